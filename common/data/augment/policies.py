"""TrivialAugment and RandAugment: torchvision's operations, drawn for each sample.

An operation is geometry, which becomes a matrix, or a change of the pixels' values, which is done
for all samples that drew it at once. Strengths are torchvision's, in 31 steps.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from common.config.ranges import whole
from common.data.augment import color, geometry
from common.data.augment.base import AugmentationStep

BINS = 31  # strengths of an operation

Draw = Callable[[Tensor, int], Tensor]  # strengths as shares (B,) of 0 to 1, width -> values


def _values(low: float, high: float) -> Draw:
    return lambda share, side: low + (high - low) * share


# What a signed operation does at strength v, as entries of a matrix from the new to the old place.
GEOMETRY: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    "shear_x": lambda v: {"xy": v, "x1": v / 2},  # about the outer corner of the first pixel
    "shear_y": lambda v: {"yx": v, "y1": v / 2},
    "translate_x": lambda v: {"x1": -v.trunc()},
    "translate_y": lambda v: {"y1": -v.trunc()},
}
BLENDS = ("brightness", "saturation", "contrast", "sharpness")
OTHERS = ("posterize", "solarize", "autocontrast", "equalize")
NAMES = ("identity", *GEOMETRY, "rotate", *BLENDS, *OTHERS)


class Policy(AugmentationStep):
    """Some of the operations on each sample, one after another.

    Args:
        ranges: name -> strengths by share, for the operations that have one.
        count: operations a sample.
        magnitude: the strength's bin; None draws it.
    """

    def __init__(self, ranges: dict[str, Draw], count: int, magnitude: int | None):
        self.ranges, self.count, self.magnitude = ranges, count, magnitude

    def both(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The pictures with their values changed, and the matrices of the geometry drawn."""
        images = images.float()
        matrix = geometry.matrices(len(images), images.device)
        options = {"generator": generator, "device": images.device}
        for _ in range(self.count):
            chosen = torch.randint(len(NAMES), (len(images),), **options)
            bins = torch.randint(BINS, (len(images),), **options)
            if self.magnitude is not None:
                bins = torch.full_like(bins, self.magnitude)
            sign = 2 * torch.randint(2, (len(images),), **options) - 1
            for number, name in enumerate(NAMES):
                rows = (chosen == number).nonzero()[:, 0]
                if len(rows) and name != "identity":
                    strength = bins[rows] / (BINS - 1)
                    part, m = self.apply(name, images[rows], strength, sign[rows])
                    images[rows], matrix[rows] = part, matrix[rows] @ m
        return images, matrix

    def apply(
        self, name: str, images: Tensor, share: Tensor, sign: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One operation at strengths (B,) of 0 to 1 and signs (B,): pictures and matrices."""
        height, width = images.shape[2:]
        none = geometry.matrices(len(images), images.device)
        value = self.ranges[name](share, width) if name in self.ranges else share
        if name in GEOMETRY:
            entries = GEOMETRY[name](sign * value)
            return images, geometry.matrices(len(images), images.device, **entries)
        if name == "rotate":
            return images, geometry.rotations(sign * value, height, width)
        change = getattr(color, name)
        if name in BLENDS:
            return change(images, 1 + sign * value), none
        return change(images, value) if name in ("posterize", "solarize") else change(images), none


def _bits(levels: float) -> Draw:
    return lambda share, side: 8 - (share * (BINS - 1) / levels).round()


class TrivialAugment(Policy):
    """One operation a sample at any strength.

    Mueller and Hutter, 2021, https://arxiv.org/abs/2103.10158.
    """

    def __init__(self) -> None:
        ranges = {"rotate": _values(0, 135), "posterize": _bits((BINS - 1) / 6)}
        ranges |= dict.fromkeys(("shear_x", "shear_y"), _values(0, 0.99))
        ranges |= dict.fromkeys(("translate_x", "translate_y"), _values(0, 32))
        ranges |= dict.fromkeys(BLENDS, _values(0, 0.99)) | {"solarize": _values(255, 0)}
        super().__init__(ranges, 1, None)


class RandAugment(Policy):
    """Several operations a sample at one strength.

    Cubuk et al., 2019, https://arxiv.org/abs/1909.13719.
    """

    def __init__(
        self,
        count: Annotated[int, whole(1, 14)] = 2,
        magnitude: Annotated[int, whole(0, BINS - 1)] = 9,
    ):
        ranges = {"rotate": _values(0, 30), "posterize": _bits((BINS - 1) / 4)}
        ranges |= dict.fromkeys(("shear_x", "shear_y"), _values(0, 0.3))
        shift = lambda share, side: 150 / 331 * side * share  # noqa: E731
        ranges |= dict.fromkeys(("translate_x", "translate_y"), shift)
        ranges |= dict.fromkeys(BLENDS, _values(0, 0.9)) | {"solarize": _values(255, 0)}
        super().__init__(ranges, count, magnitude)
