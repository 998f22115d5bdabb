"""Augmentation: geometry against torchvision's own, samples independent, drawn by seed."""

import pytest
import torch
from torchvision.transforms import functional as tv

from common.data import build_augmentation
from common.utils.errors import UserError
from helpers.makers import generator
from helpers.networks import noise


def test_flip_mirrors_left_right_or_leaves_alone():
    images = noise(64, 8)
    flipped = build_augmentation(["flip"], True)(images, generator())
    mirrored = [torch.equal(b, tv.hflip(a)) for a, b in zip(images, flipped, strict=True)]
    untouched = [torch.equal(a, b) for a, b in zip(images, flipped, strict=True)]
    assert all(m != u for m, u in zip(mirrored, untouched, strict=True))
    assert 16 < sum(mirrored) < 48


def test_flip_does_nothing_where_mirror_images_differ():
    steps = build_augmentation(["flip"], mirror=False)
    images = noise(64, 8)
    assert torch.equal(steps(images, generator()), images)


def test_crop_is_torchvisions_crop_of_the_reflected_padding():
    images = noise(32, 16)
    cropped = build_augmentation([{"crop": {"padding": 3}}], True)(images, generator())
    padded = tv.pad(images, [3], padding_mode="reflect")
    places = set()
    for padded_image, image in zip(padded, cropped, strict=True):
        found = [
            (top, left)
            for top in range(7)
            for left in range(7)
            if torch.equal(padded_image[:, top : top + 16, left : left + 16], image)
        ]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 16  # each sample draws for itself


def test_crop_pads_an_eighth_by_default():
    images = noise(256, 8)
    cropped = build_augmentation(["crop"], True)(images, generator())
    padded = tv.pad(images, [1], padding_mode="reflect")
    windows = torch.stack(
        [padded[:, :, top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
    )
    assert (windows == cropped).flatten(2).all(2).any(0).all()


def test_same_generator_same_pictures():
    images, steps = noise(16, 8), build_augmentation(["flip", {"crop": {"padding": 2}}], True)
    assert torch.equal(steps(images, generator(1)), steps(images, generator(1)))
    assert not torch.equal(steps(images, generator(1)), steps(images, generator(2)))


@pytest.mark.parametrize("step", [{"mixup": {"alpha": 2}}, {"cutmix": {"alpha": 1}}])
def test_whole_numbers_are_numbers(step):
    images, generator = torch.zeros(4, 3, 8, 8), torch.Generator().manual_seed(0)
    _, shares = build_augmentation([step], mirror=True).mix(images, torch.arange(4), 4, generator)
    torch.testing.assert_close(shares.sum(1), torch.ones(4))


def test_no_steps_is_no_augmentation():
    assert build_augmentation([], mirror=True) is None


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("flop", "did you mean 'flip'"),
        ({"crop": {"pading": 2}}, "did you mean 'padding'"),
        ({"flip": {"mirror": True}}, "no option 'mirror'"),
        ({"flip": {}, "crop": {}}, "one name"),
    ],
)
def test_unknown_steps_and_parameters(step, says):
    with pytest.raises(UserError, match=says):
        build_augmentation([step], mirror=True)
