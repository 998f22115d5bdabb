"""Steps that mix pictures of a batch with each other, and their labels with them."""

from typing import Annotated

import torch
from torch import Tensor

from common.config.ranges import within
from common.data.augment.base import AugmentationStep

Alpha = Annotated[float, within(1e-3, 1e3)]


def box_mask(
    left: Tensor, top: Tensor, wide: Tensor, tall: Tensor, height: int, width: int
) -> Tensor:
    """Pixels whose centre lies in boxes given in pixels (B,): bool (B, 1, H, W)."""
    x = torch.arange(width, device=left.device) + 0.5
    y = torch.arange(height, device=left.device) + 0.5
    columns = (x >= left[:, None]) & (x < (left + wide)[:, None])
    rows = (y >= top[:, None]) & (y < (top + tall)[:, None])
    return (rows[:, :, None] & columns[:, None, :])[:, None]


class MixUp(AugmentationStep):
    """Blend each picture and its label with another of the batch; shares from Beta(alpha, alpha).

    Zhang et al., 2018, https://arxiv.org/abs/1710.09412.
    """

    mixes = True

    def __init__(self, alpha: Alpha = 0.2):
        self.alpha = alpha

    def mix(
        self, images: Tensor, shares: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The share is the sample's own; its partner is drawn for it."""
        own, partner = _beta(self.alpha, images, generator), _partner(images, generator)
        wide = own.view(-1, 1, 1, 1)
        mixed = wide * images + (1 - wide) * images[partner]
        return mixed, own[:, None] * shares + (1 - own[:, None]) * shares[partner]


class CutMix(AugmentationStep):
    """Paste a box of another picture of the batch; the label's share is the area's.

    Yun et al., 2019, https://arxiv.org/abs/1905.04899.
    """

    mixes = True

    def __init__(self, alpha: Alpha = 1.0):
        self.alpha = alpha

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
