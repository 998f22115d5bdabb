"""A seed's draws stay what they were: reports of record are to be had again, to the digit.

Another order of drawing, another default or another stream is another experiment, however alike
its distribution: who changes one on purpose says so here, and trains the reports of record anew.
"""

import pytest
import torch

from common.data import Batches, build_augmentation
from common.data.augment.steps import STEPS
from common.evaluation import predictions
from helpers.makers import generator
from helpers.networks import CPU, small_network, small_splits

SIZE = 16
PLACES = torch.linspace(-1, 1, 3 * SIZE * SIZE).sin().view(3, SIZE, SIZE)

# Of 6 pictures, under each step as it is by default: mean over the pixels, weighted by place.
DRAWN = {
    "flip": [5.69, 6.12, 5.69, 5.69, 5.69, 6.12],
    "crop": [5.55, 2.58, 5.92, 2.87, 8.62, 8.24],
    "resized_crop": [10.51, 5.28, 8.83, 3.48, 1.54, 2.66],
    "rotate": [6.12, 5.58, 6.2, 6.22, 6.2, 5.89],
    "jitter": [6.22, 7.65, 5.07, 5.38, 5.25, 6.04],
    "erase": [3.41, 6.12, 7.23, 7.55, 5.21, 6.12],
    "mixup": [6.12, 6.12, 6.12, 6.13, 7.63, 8.61],
    "cutmix": [5.94, 5.76, 5.82, 10.05, 8.33, 9.89],
    "trivial_augment": [-2.28, -4.56, 6.72, 4.01, 13.2, 6.12],
    "rand_augment": [6.12, 11.49, 7.99, 6.01, -0.03, 6.07],
}
ORDER = [26, 19, 29, 9, 4, 11, 5, 13, 15, 21]
MIRRORED = [1, 0, 0, 0, 1, 1, 0, 1, 0, 0]
CLEAN = [4, 6, 9, 13, 14, 21, 23, 25, 27, 29]


def pictures(count: int = 6) -> torch.Tensor:
    """Red grows to the right, green downwards, blue is a checkerboard: uint8 (count, 3, 16, 16)."""
    ramp = 15 * torch.arange(SIZE)
    red, green = ramp.expand(SIZE, SIZE), ramp[:, None].expand(SIZE, SIZE)
    blue = 120 * ((ramp[:, None] + ramp) // 60 % 2) + 60
    return torch.stack([red, green, blue]).to(torch.uint8).repeat(count, 1, 1, 1)


def summary(images: torch.Tensor) -> list[float]:
    """A figure a picture, which no change of a picture leaves alone."""
    return [round(x, 2) for x in (images.float() * PLACES).mean((1, 2, 3)).tolist()]


def drawn(step: str) -> list[float]:
    augmentation, images = build_augmentation([step], mirror=True), pictures()
    if not augmentation.mixes:
        return summary(augmentation(images, generator()))
    images = images + 20 * torch.arange(6, dtype=torch.uint8).view(-1, 1, 1, 1) // 2
    return summary(augmentation.mix(images, torch.arange(6), 6, generator())[0])


@pytest.mark.parametrize("step", STEPS)
def test_each_steps_draws(step):
    assert drawn(step) == pytest.approx(DRAWN[step], abs=0.05)


def test_an_epochs_order_and_which_begin_mirrored():
    data, network = small_splits(), small_network()
    batches = Batches(data.train, network.weights, 8, CPU, seed=3)
    assert torch.cat(batches.order(2))[:10].tolist() == ORDER
    assert batches.coins[:10].int().tolist() == MIRRORED
    alternate = build_augmentation([{"flip": {"alternate": True}}], mirror=True)
    turning = Batches(data.train, network.weights, 8, CPU, alternate, seed=3)
    for epoch in (1, 2):
        (pixels, _), positions = turning._pixels(torch.arange(10), epoch, 0), torch.arange(10)
        own = data.train.images[positions]
        turned = (pixels != own).flatten(1).any(1).int().tolist()
        assert turned == [bool(coin) != bool(epoch % 2) for coin in MIRRORED]


def test_which_training_pictures_are_evaluated(monkeypatch):
    monkeypatch.setattr(predictions, "CLEAN_TRAIN", 10)
    assert predictions.clean_train(small_splits().train).rows.tolist() == CLEAN
