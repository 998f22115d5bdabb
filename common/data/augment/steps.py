"""The steps of an augmentation, and how they work together; to add one, add it to `STEPS`."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from common.config import Step
from common.config.ranges import FLAG, SIDE, pair, whole, within
from common.config.registry import Registry
from common.data.augment import color, geometry
from common.data.augment.base import AugmentationStep
from common.data.augment.policies import RandAugment, TrivialAugment

Probability = Amount = Annotated[float, within(0, 1)]
Alpha = Annotated[float, within(1e-3, 1e3)]


@dataclass
class Flip(AugmentationStep):
    """Mirror left-right with the given probability.

    With `alternate`, each picture every other epoch instead, half of them in the first: so that
    two epochs show both sides of each (Jordan, 2024, https://arxiv.org/abs/2404.00498). Where a
    mirrored picture would not keep its label (`mirror` false), it does nothing.
    """

    exact = True

    mirror: bool
    probability: Probability = 0.5
    alternate: Annotated[bool, FLAG] = False

    def matrix(self, images: Tensor, generator: torch.Generator) -> Tensor | None:
        """x becomes width - 1 - x where it is drawn."""
        if self.alternate:
            return None  # the batches do it, which know the pictures and the epoch
        draws = torch.rand(len(images), generator=generator, device=images.device)
        flipped = (draws < (self.probability if self.mirror else 0)).float()
        last = images.shape[3] - 1
        return geometry.matrices(len(images), images.device, xx=1 - 2 * flipped, x1=last * flipped)


@dataclass
class Crop(AugmentationStep):
    """Pad by reflection and cut the original size out again at a random place.

    `padding` in pixels; by default an eighth of the picture's side.
    """

    exact = True

    padding: Annotated[int | None, whole(0, SIDE)] = None

    def matrix(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Moves by whole pixels."""
        batch, _, height, width = images.shape
        pad = min(height, width) // 8 if self.padding is None else self.padding
        options = {"generator": generator, "device": images.device}
        shifts = torch.randint(-pad, pad + 1, (2, batch, 1), **options)[:, :, 0].float()
        return geometry.matrices(batch, images.device, x1=shifts[1], y1=shifts[0])


@dataclass
class ResizedCrop(AugmentationStep):
    """Cut out a share `scale` of the area at random, sides in a ratio `ratio`, and enlarge it.

    Szegedy et al., 2015, https://arxiv.org/abs/1409.4842.
    """

    scale: Annotated[list[float], pair(1e-3, 1)] = (0.25, 1.0)
    ratio: Annotated[list[float], pair(1e-3, 100)] = (3 / 4, 4 / 3)

    def matrix(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Area uniform, ratio log-uniform, place uniform; sides no longer than the picture's."""
        batch, _, height, width = images.shape
        area, ratio, x, y = torch.rand((4, batch), generator=generator, device=images.device)
        area = (self.scale[0] + (self.scale[1] - self.scale[0]) * area) * height * width
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = torch.exp(low + (high - low) * ratio)
        wide = (area * ratio).sqrt().clamp(max=width)
        tall = (area / ratio).sqrt().clamp(max=height)
        return boxes(x * (width - wide), y * (height - tall), wide, tall, height, width)


def boxes(left: Tensor, top: Tensor, wide: Tensor, tall: Tensor, height: int, width: int) -> Tensor:
    """Matrices (B, 3, 3) that enlarge boxes, given in pixels (B,), to the whole picture."""
    entries = {"xx": wide / width, "yy": tall / height}
    entries["x1"] = left + (wide / width - 1) / 2
    entries["y1"] = top + (tall / height - 1) / 2
    return geometry.matrices(len(left), left.device, **entries)


@dataclass
class Rotate(AugmentationStep):
    """Rotate about the centre by up to `degrees` either way."""

    degrees: Annotated[float, within(0, 180)] = 15

    def matrix(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Counter-clockwise, as torchvision counts."""
        draws = torch.rand(len(images), generator=generator, device=images.device)
        return geometry.rotations((2 * draws - 1) * self.degrees, *images.shape[2:])


@dataclass
class Jitter(AugmentationStep):
    """Brightness, contrast and saturation times 1 - x to 1 + x, hue turned by -x to x turns."""

    brightness: Amount = 0.2
    contrast: Amount = 0.2
    saturation: Amount = 0.2
    hue: Annotated[float, within(0, 0.5)] = 0.0

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """In this order, each sample by factors of its own."""
        x, options = images.float(), {"generator": generator, "device": images.device}
        for name in ("brightness", "contrast", "saturation"):
            if amount := getattr(self, name):
                factor = 1 + amount * (2 * torch.rand(len(x), **options) - 1)
                x = getattr(color, name)(x, factor)
        if self.hue:
            x = color.hue(x, self.hue * (2 * torch.rand(len(x), **options) - 1))
        return x


@dataclass
class Erase(AugmentationStep):
    """Fill a random box with noise, with the given probability; after all geometry.

    `scale` is the box's share of the area. Zhong et al., 2017, https://arxiv.org/abs/1708.04896.
    """

    after_geometry = True

    probability: Probability = 0.5
    scale: Annotated[list[float], pair(0, 1)] = (0.02, 0.33)

    def change(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Noise uniform over all values, a value a pixel and channel."""
        batch, _, height, width = images.shape
        options = {"generator": generator, "device": images.device}
        drawn, area, ratio, x, y = torch.rand((5, batch), **options)
        area = (self.scale[0] + (self.scale[1] - self.scale[0]) * area) * height * width
        ratio = torch.exp(math.log(0.3) * (1 - 2 * ratio))  # 0.3 to 1 / 0.3, log-uniform
        wide = (area * ratio).sqrt().clamp(max=width)
        tall = (area / ratio).sqrt().clamp(max=height)
        inside = box_mask(x * (width - wide), y * (height - tall), wide, tall, height, width)
        inside &= (drawn < self.probability).view(-1, 1, 1, 1)
        noise = torch.randint(256, images.shape, **options).to(images.dtype)
        return torch.where(inside, noise, images)


def box_mask(
    left: Tensor, top: Tensor, wide: Tensor, tall: Tensor, height: int, width: int
) -> Tensor:
    """Pixels whose centre lies in boxes given in pixels (B,): bool (B, 1, H, W)."""
    x = torch.arange(width, device=left.device) + 0.5
    y = torch.arange(height, device=left.device) + 0.5
    columns = (x >= left[:, None]) & (x < (left + wide)[:, None])
    rows = (y >= top[:, None]) & (y < (top + tall)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


@dataclass
class MixUp(AugmentationStep):
    """Blend each picture and its label with another of the batch; shares from Beta(alpha, alpha).

    Zhang et al., 2018, https://arxiv.org/abs/1710.09412.
    """

    mixes = True

    alpha: Alpha = 0.2

    def mix(
        self, images: Tensor, shares: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The share is the sample's own; its partner is drawn for it."""
        own, partner = _beta(self.alpha, images, generator), _partner(images, generator)
        wide = own.view(-1, 1, 1, 1)
        mixed = wide * images + (1 - wide) * images[partner]
        return mixed, own[:, None] * shares + (1 - own[:, None]) * shares[partner]


@dataclass
class CutMix(AugmentationStep):
    """Paste a box of another picture of the batch; the label's share is the area's.

    Yun et al., 2019, https://arxiv.org/abs/1905.04899.
    """

    mixes = True

    alpha: Alpha = 1.0

    def mix(
        self, images: Tensor, shares: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The box's centre is anywhere, so that it may be cut at the border."""
        height, width = images.shape[2:]
        side = (1 - _beta(self.alpha, images, generator)).sqrt()
        partner = _partner(images, generator)
        x, y = torch.rand((2, len(images)), generator=generator, device=images.device)
        wide, tall = side * width, side * height
        pasted = box_mask(x * width - wide / 2, y * height - tall / 2, wide, tall, height, width)
        own = 1 - pasted.float().mean((1, 2, 3))[:, None]
        mixed = torch.where(pasted, images[partner], images)
        return mixed, own * shares + (1 - own) * shares[partner]


def _beta(alpha: float, images: Tensor, generator: torch.Generator) -> Tensor:
    """A draw of Beta(alpha, alpha) a sample: (B,)."""
    shape = torch.full((2, len(images)), alpha, device=images.device)
    first, second = torch._standard_gamma(shape, generator=generator)
    return (first / (first + second).clamp_min(1e-20)).clamp(0, 1)


def _partner(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randperm(len(images), generator=generator, device=images.device)


STEPS = Registry(
    "augment",
    {
        "flip": Flip,
        "crop": Crop,
        "resized_crop": ResizedCrop,
        "rotate": Rotate,
        "jitter": Jitter,
        "erase": Erase,
        "mixup": MixUp,
        "cutmix": CutMix,
        "trivial_augment": TrivialAugment,
        "rand_augment": RandAugment,
    },
)


class Augmentation:
    """The configured steps, one after another, all geometry in one resampling.

    Geometry waits until the end, or until a step that comes `after_geometry`; changes of values
    before that are made on the old picture.
    """

    def __init__(self, steps: list[AugmentationStep]):
        self.steps = steps
        self.mixes = any(step.mixes for step in steps)
        flips = [step for step in steps if isinstance(step, Flip)]
        self.alternates = any(flip.alternate and flip.mirror for flip in flips)

    def __repr__(self) -> str:
        return f"Augmentation({self.steps})"

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch: uint8 (B, 3, H, W) in; uint8 out where only whole pixels moved."""
        waiting, exact = None, True
        for step in self.steps:
            if step.after_geometry and waiting is not None:
                images, waiting, exact = geometry.resample(images, waiting, exact), None, True
            images, m = step.both(images, generator)
            if m is not None:
                waiting, exact = m if waiting is None else waiting @ m, exact and step.exact
        return images if waiting is None else geometry.resample(images, waiting, exact)

    def mix(
        self, images: Tensor, labels: Tensor, classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix a batch: labels int64 (B,) become shares of the classes, float32 (B, classes)."""
        shares = F.one_hot(labels, classes).float()
        for step in self.steps:
            if step.mixes:
                images, shares = step.mix(images.float(), shares, generator)
        return images, shares


def build_augmentation(steps: list[Step], mirror: bool) -> Augmentation | None:
    """The augmentation of a config's `augment` list; None where the list is empty.

    Args:
        mirror: whether a mirrored picture keeps its label.
    Raises:
        UserError: a step or a parameter that does not exist, or a value out of range.
    """
    built = [STEPS.build(step, mirror=mirror) for step in steps]
    return Augmentation(built) if built else None
