"""The fusion head: one classifier on features of several depths."""

import torch
from torch import Tensor, nn


class FusionHead(nn.Module):
    """Pooled features of several stages, side by side, projected and classified.

    Args:
        channels: of each stage's features, e.g. layer3's 256 and layer4's 512.
        classes: logits.
        width: of the projection.
        dropout: share of the projection's outputs that are zeroed in training.
    """

    def __init__(self, channels: list[int], classes: int, width: int = 256, dropout: float = 0.5):
        super().__init__()
        self.project = nn.Linear(sum(channels), width)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(width, classes)

    def forward(self, *pooled: Tensor) -> Tensor:
        """One (B, channels) a stage, averaged over its map's pixels -> logits (B, classes)."""
        fused = torch.cat(pooled, dim=1)
        return self.classify(self.dropout(torch.relu(self.project(fused))))
