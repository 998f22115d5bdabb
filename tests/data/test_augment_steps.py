"""Augmentation steps against torchvision's on single pictures; labels mixed as published."""

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, autoaugment
from torchvision.transforms import functional as tv

from common.config import LevelConfig
from common.data import Batches, build_augmentation
from common.data.augment import color, geometry, policies, steps
from common.data.augment.steps import STEPS, Erase, Jitter, ResizedCrop, boxes
from common.utils.errors import UserError
from helpers.makers import generator
from helpers.networks import CPU, built, noise, quick, small_network, small_splits

TORCHVISION = {
    **{"shear_x": "ShearX", "shear_y": "ShearY", "rotate": "Rotate"},
    **{"translate_x": "TranslateX", "translate_y": "TranslateY"},
    **{"brightness": "Brightness", "saturation": "Color", "contrast": "Contrast"},
    **{"sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize"},
    **{"autocontrast": "AutoContrast", "equalize": "Equalize", "identity": "Identity"},
}
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
ALL = [*STEPS]


def smooth(count: int = 4, size: int = 24) -> torch.Tensor:
    """Pictures without steep edges, where a hundredth of a pixel would count: float of 0 to 255."""
    padded = F.pad(noise(count, size).float(), (2, 2, 2, 2), mode="reflect")
    return F.avg_pool2d(padded, 5, 1)


@pytest.mark.parametrize("policy", [policies.TrivialAugment(), policies.RandAugment()])
@pytest.mark.parametrize("name", policies.NAMES[1:])
def test_each_operation_is_torchvisions(policy, name):
    """At all strengths and both signs, inside of what geometry moves in from outside."""
    images = smooth().round()
    if isinstance(policy, policies.TrivialAugment):
        space = autoaugment.TrivialAugmentWide()._augmentation_space(31)
    else:
        space = autoaugment.RandAugment()._augmentation_space(31, (24, 24))
    strengths, signed = space[TORCHVISION[name]]
    for number, sign in ((n, s) for n in (0, 9, 20, 30) for s in ((1, -1) if signed else (1,))):
        strength = sign * float(strengths[number]) if strengths.ndim else 0.0
        share, signs = torch.full((4,), number / 30), torch.full((4,), sign)
        seen, m = policy.apply(name, images.clone(), share, signs)
        seen = geometry.resample(seen, m, whole=False)

        def own(x, strength=strength):
            how = InterpolationMode.BILINEAR, [0.0, 0.0, 0.0]
            return autoaugment._apply_op(x, TORCHVISION[name], strength, *how)

        exact = name in ("posterize", "solarize", "equalize")  # torchvision's for bytes
        expected = own(images.byte()).float() if exact else 255 * own(images / 255)
        inside = own(torch.ones_like(images)) > 0.999 if name in MOVES else images >= 0
        assert inside.any() or abs(strength) > 20
        assert ((seen - expected).abs()[inside] <= 0.5).all(), (number, sign)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 9), (3, 3)])
@pytest.mark.parametrize("name", ["sharpness", "contrast", "autocontrast", "equalize"])
def test_operations_on_tiny_pictures_are_torchvisions(name, size):
    images = noise(3, 9)[:, :, : size[0], : size[1]]
    policy = policies.TrivialAugment()
    seen, _ = policy.apply(name, images.float(), torch.full((3,), 0.5), torch.ones(3))
    strength = 0.99 * 0.5 if name in ("sharpness", "contrast") else 0.0
    how = InterpolationMode.BILINEAR, [0.0, 0.0, 0.0]
    expected = autoaugment._apply_op(images, TORCHVISION[name], strength, *how)
    assert ((seen - expected.float()).abs() <= 1.5).all()


def test_posterize_takes_values_as_the_bytes_they_round_to():
    between = torch.tensor([127.4, 127.6]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    kept = color.posterize(between, torch.tensor([1]))
    assert kept[0, 0, 0].tolist() == [0, 128]


def test_policies_cover_torchvisions_operations():
    theirs = set(autoaugment.TrivialAugmentWide()._augmentation_space(31))
    assert {TORCHVISION[name] for name in policies.NAMES} == theirs


def test_resized_crop_is_torchvisions_of_the_same_box():
    images, places = smooth(), [(2, 3, 12, 16), (0, 0, 24, 24), (8, 5, 10, 9), (11, 12, 13, 12)]
    left, top, wide, tall = (torch.tensor(column).float() for column in zip(*places, strict=True))
    m = boxes(left, top, wide, tall, 24, 24)
    seen = geometry.resample(images, m, whole=False)
    for i, (x, y, w, h) in enumerate(places):
        expected = tv.resized_crop(images[i], y, x, h, w, [24, 24], antialias=False)
        inner = (slice(None), slice(2, -2), slice(2, -2))  # torchvision repeats the box's edge
        torch.testing.assert_close(seen[i][inner], expected[inner], atol=0.05, rtol=0)


def test_resized_crop_keeps_to_its_scale_and_stays_inside():
    step = ResizedCrop(scale=[0.3, 0.5])
    m = step.matrix(noise(500, 20), generator())
    area = m[:, 0, 0] * m[:, 1, 1]
    assert area.min() >= 0.3 * 0.999 and area.max() <= 0.5 * 1.001 and area.std() > 0.03
    for axis, extent in ((0, m[:, 0, 0]), (1, m[:, 1, 1])):
        first = m[:, axis, 2] - (extent - 1) / 2
        assert first.min() >= -1e-3 and (first + 20 * extent).max() <= 20.001


def test_rotation_is_torchvisions():
    images, degrees = smooth(), torch.tensor([10.0, -25.0, 90.0, 0.0])
    seen = geometry.resample(images, geometry.rotations(degrees, 24, 24), whole=False)
    for i, angle in enumerate(degrees.tolist()):
        how = {"angle": angle, "interpolation": InterpolationMode.BILINEAR}
        inside = tv.rotate(torch.ones(3, 24, 24), **how) > 0.999
        assert ((seen[i] - tv.rotate(images[i], **how)).abs()[inside] < 0.01).all()


def test_all_geometry_is_one_resampling(monkeypatch):
    calls, resample = [], geometry.resample
    monkeypatch.setattr(geometry, "resample", lambda *a: calls.append(a[2]) or resample(*a))
    steps = ["flip", "crop", "rotate", "jitter", "resized_crop", "trivial_augment"]
    build_augmentation(steps, True)(noise(8, 16), generator())
    assert calls == [False]
    seen = build_augmentation(["flip", "crop"], True)(noise(8, 16), generator())
    assert calls == [False, True] and seen.dtype == torch.uint8
    build_augmentation(["flip", "erase", "crop"], True)(noise(8, 16), generator())
    assert calls[2:] == [True, True]  # the box is drawn in what the flip made


def test_flip_then_rotate_is_that_order():
    images = smooth(1)
    flip = geometry.matrices(1, images.device, xx=-1.0, x1=23.0)
    turn = geometry.rotations(torch.tensor([30.0]), 24, 24)
    seen = geometry.resample(images, flip @ turn, whole=False)
    flipped = geometry.resample(images, flip, whole=True)
    expected = geometry.resample(flipped, turn, whole=False)
    torch.testing.assert_close(seen, expected, atol=0.01, rtol=0)


def test_jitter_is_torchvisions_adjustments():
    images, turn = smooth(), torch.tensor([0.1, -0.2, 0.5, 0.0])
    for i in range(4):
        expected = 255 * tv.adjust_hue(images[i] / 255, float(turn[i]))
        torch.testing.assert_close(color.hue(images, turn)[i], expected, atol=0.01, rtol=0)
    grey = images.mean(1, keepdim=True).expand_as(images).contiguous()
    torch.testing.assert_close(color.hue(grey, turn), grey, atol=0.01, rtol=0)
    still = Jitter(0.0, 0.0, 0.0).change(images, generator())
    assert torch.equal(still, images)
    bright = Jitter(0.3, 0.0, 0.0).change(torch.full((200, 3, 2, 2), 100.0), generator())
    assert 70 <= bright.min() < 75 and 125 < bright.max() <= 130


def test_erase_fills_one_box_of_noise_with_its_probability():
    images = torch.full((300, 3, 20, 20), 7.0)
    changed = Erase(0.4, [0.1, 0.2]).change(images, generator()) != 7
    hit = changed.flatten(1).any(1)
    assert 90 < hit.sum() < 150
    for box in changed[hit].any(1):
        rows, columns = box.any(1).nonzero(), box.any(0).nonzero()
        wide = columns.max() - columns.min() + 1
        tall = rows.max() - rows.min() + 1
        assert 0.9 * box.sum() <= wide * tall <= 1.1 * box.sum() + 4
        assert 0.05 <= box.float().mean() <= 0.26


@pytest.mark.parametrize("step", [steps.MixUp(1.0), steps.CutMix(1.0)])
def test_labels_are_mixed_as_the_pictures_are(step):
    """Picture i is all of the value i: what came from where can be read off it."""
    count = 40
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(count, 3, 16, 16).clone()
    mixed, shares = step.mix(images, torch.eye(count), generator())
    torch.testing.assert_close(shares.sum(1), torch.ones(count))
    mean = (shares * torch.arange(count)).sum(1)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), mean, atol=1e-3, rtol=1e-4)
    assert len(shares.diag().unique()) > count // 2, "one share for the whole batch"
    for picture, share in zip(mixed, shares, strict=True):
        values = picture.unique()
        sources = (share > 0).nonzero()[:, 0].tolist()
        if isinstance(step, steps.CutMix):
            assert {int(v) for v in values} <= {*sources} | {0}
        else:
            assert len(values) == 1


def test_mixup_draws_its_share_from_beta():
    drawn = steps._beta(0.4, torch.zeros(20_000, 1), generator())
    assert abs(drawn.mean() - 0.5) < 0.01
    assert abs(drawn.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.005  # of Beta(a, a)


def test_training_on_mixed_labels_learns():
    config = LevelConfig(train=quick(epochs=6, lr=0.02), augment=["mixup"])
    trainer = built(small_network(["c", "head"]), small_splits(), config)
    images, labels = trainer.train.batches.batch(torch.arange(8), 1)
    assert labels.shape == (8, 3) and labels.dtype == torch.float32
    history = [trainer.epoch(epoch) for epoch in range(1, 7)]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert history[-1]["val_accuracy"] > 0.5


@pytest.mark.parametrize("step", ALL)
def test_samples_are_independent_and_drawn_by_seed(step):
    steps = build_augmentation([step], True)
    images = smooth(1).round().byte().repeat(64, 1, 1, 1)

    def run(seed):
        if steps.mixes:
            labels = torch.arange(64)
            return steps.mix(noise(64, 24), labels, 64, generator(seed))[0]
        return steps(images, generator(seed)).float()

    first = run(0)
    assert torch.equal(first, run(0)) and not torch.equal(first, run(1))
    assert len({picture.numpy().tobytes() for picture in first}) > (1 if step == "flip" else 8)
    assert first.min() >= 0 and first.max() <= 255 and first.shape == images.shape


def test_steps_work_on_pictures_that_are_not_square():
    images = noise(6, 12)[:, :, :8]
    for step in ALL:
        steps = build_augmentation([step], True)
        assert steps(images, generator()).shape == images.shape


def test_val_and_test_are_not_mixed():
    data = small_splits()
    batches = Batches(data.val, small_network().weights, 8, CPU)
    assert batches.batch(torch.arange(3))[1].shape == (3,)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"resized_crop": {"scale": [0.9, 0.1]}}, r"scale must be \[low, high\]"),
        ({"resized_crop": {"ratio": 2}}, r"ratio must be \[low, high\]"),
        ({"rotate": {"degrees": 400}}, "from 0 to 180, not '400'"),
        ({"jitter": {"hue": 0.7}}, "from 0 to 0.5"),
        ({"erase": {"probability": 2}}, "from 0 to 1"),
        ({"mixup": {"alpha": 0}}, "mixup: alpha"),
        ({"rand_augment": {"count": 1.5}}, "a whole number"),
        ({"rand_augment": {"magnitude": 31}}, "from 0 to 30"),
        ("trivial_augmen", "did you mean 'trivial_augment'"),
    ],
)
def test_wrong_parameters(step, says):
    with pytest.raises(UserError, match=says):
        build_augmentation([step], mirror=True)


def test_rotation_by_a_quarter_turn_is_exact():
    images = noise(1, 9)
    m = geometry.rotations(torch.tensor([90.0]), 9, 9)
    seen = geometry.resample(images, m, whole=False).round()
    assert torch.equal(seen, images.rot90(1, (2, 3)).float())
    assert math.isclose(float(m[0, 0, 0]), 0, abs_tol=1e-6)
