"""Batches: what reaches the network."""

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as tv

from common.data import Batches, loader, steps_per_epoch
from common.models import Weights
from common.runtime import Runtime
from common.utils.errors import UserError
from helpers.networks import CPU, small_splits

GPU = torch.cuda.is_available()
WEIGHTS = Weights(name="none", sha256=None, image_size=8)


def batches(size=8, count=30, batch_size=8, **options):
    data = small_splits(count)
    return Batches(
        data.train, Weights(name="none", sha256=None, image_size=size), batch_size, CPU, **options
    )


def test_pixels_are_normalised_as_torchvision_does():
    data = small_splits()
    images, labels = next(batches().epoch())
    expected = tv.normalize(data.train.images[:8].float() / 255, WEIGHTS.mean, WEIGHTS.std)
    torch.testing.assert_close(images, expected)
    assert torch.equal(labels, data.train.labels[:8])


def test_resized_as_torchvision_does():
    data = small_splits()
    for size in (16, 5):  # enlarged; made smaller, where antialiasing matters
        images, _ = next(batches(size).epoch())
        enlarged = tv.resize(data.train.images[:8].float() / 255, [size, size], antialias=size < 8)
        expected = tv.normalize(enlarged, WEIGHTS.mean, WEIGHTS.std)
        torch.testing.assert_close(images, expected, atol=2e-5, rtol=1e-4)


def test_channels_last_in_the_runs_precision():
    runtime = Runtime(torch.device("cpu"), torch.bfloat16)
    images, _ = next(Batches(small_splits().train, WEIGHTS, 8, runtime).epoch())
    assert images.dtype == torch.bfloat16
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_each_picture_once_an_epoch_and_another_order_each_epoch():
    shuffled = batches(seed=0)
    orders = [torch.cat(shuffled.order(epoch)) for epoch in range(3)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(30))
    assert not torch.equal(orders[0], orders[1]) and not torch.equal(orders[1], orders[2])
    assert not torch.equal(orders[0], torch.cat(batches(seed=1).order(0)))
    assert torch.equal(orders[2], torch.cat(batches(seed=0).order(2)))  # by counter, not by state


def test_unshuffled_without_a_seed():
    assert torch.equal(torch.cat(batches().order(3)), torch.arange(30))


def test_a_last_batch_of_one_joins_the_one_before():
    assert [len(b) for b in batches(count=17).order(0)] == [8, 9]
    assert [len(b) for b in batches(count=18).order(0)] == [8, 8, 2]
    assert len(batches(count=17)) == 2


@pytest.mark.parametrize(
    ("count", "steps"), [(1, 1), (15, 1), (16, 1), (17, 1), (18, 2), (32, 2), (33, 2), (34, 3)]
)
def test_no_batch_is_of_a_single_picture(count, steps):
    assert steps_per_epoch(count, 16) == steps


def test_a_view_may_take_half_of_what_is_free(monkeypatch):
    data = small_splits().train
    batches = Batches(data, WEIGHTS, 4, CPU, lambda x, _: x, 0, views=2)
    need = data.images.nbytes
    monkeypatch.setattr(loader, "free_memory", lambda device: 2 * need)
    batches.check_room()
    monkeypatch.setattr(loader, "free_memory", lambda device: 2 * need - 1)
    with pytest.raises(UserError, match=r"train\.views: .*over half of what is free"):
        batches.check_room()


def test_steps_an_epoch_are_as_many_as_batches():
    for count in range(40):
        images = small_splits().train.subset(torch.arange(count) % 30)
        for size in (1, 2, 3, 8, 50):
            shuffled = Batches(images, WEIGHTS, size, CPU, seed=0)
            assert steps_per_epoch(count, size) == len(shuffled) == len(shuffled.order(1))


DEVICES = ["meta", pytest.param("cuda", marks=pytest.mark.skipif(not GPU, reason="no GPU"))]


@pytest.mark.parametrize("device", DEVICES)
def test_the_gpus_copy_is_of_these_pictures_not_of_others_in_their_place(device):
    """Arrays whose memory is freed, and used again for another one of the same shape."""
    memory, device = np.zeros((9, 3, 8, 8), np.uint8), torch.device(device)
    pictures = torch.from_numpy(memory)
    place, copy = pictures.data_ptr(), loader._uploaded(pictures, device)
    assert loader._uploaded(pictures, device) is copy, "one upload for all parts of a data set"
    del pictures
    memory += 1
    others = torch.from_numpy(memory)
    assert others.data_ptr() == place
    other = loader._uploaded(others, device)
    assert other is not copy
    assert device.type == "meta" or bool((other == 1).all())


def test_augmentation_differs_by_epoch_and_step_and_repeats_by_counter():
    drawn = []

    def transform(pixels, generator):
        drawn.append(torch.rand(1, generator=generator).item())
        return pixels

    for epoch in (0, 1, 0):
        list(batches(transform=transform, seed=0).epoch(epoch))
    assert len(set(drawn[:8])) == 8
    assert drawn[:4] == drawn[8:]
