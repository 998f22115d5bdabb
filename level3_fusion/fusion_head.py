"""The fusion head: one classifier on features of several depths."""

import torch
from torch import Tensor, nn


class FusionHead(nn.Module):
    """What several stages give, each normalised, side by side, and one linear layer on it.

    A deep stage's numbers are small and a shallow one's large, or the other way round: batch norm
    without scale and shift gives each number the same weight at the start, and the same rate.

    Args:
        inputs: numbers that each stage gives, e.g. layer3's 256 averages and 256 maxima.
        classes: logits.
        normalised: false leaves the numbers as they are.
    """

    def __init__(self, inputs: list[int], classes: int, normalised: bool = True):
        super().__init__()
        norms = [nn.BatchNorm1d(n, affine=False) if normalised else nn.Identity() for n in inputs]
        self.normalise = nn.ModuleList(norms)
        self.classify = nn.Linear(sum(inputs), classes)

    def forward(self, *taps: Tensor) -> Tensor:
        """One (B, D) a stage -> logits (B, classes)."""
        fused = [norm(tap) for norm, tap in zip(self.normalise, taps, strict=True)]
        return self.classify(torch.cat(fused, dim=1))
