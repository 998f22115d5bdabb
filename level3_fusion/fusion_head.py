"""The fusion head: what the stages hold at several depths, brought together."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.models import Classifier


class FusionHead(nn.Module):
    """A way of its own from the shallowest map down to the deepest.

    At each depth but the deepest, a convolution reads the stage's map beside what came down from
    the depth above it, and hands on a map of half the size. The average and the maximum of each
    channel of what arrives, and of the deepest map, are what the classifier reads.

        shallow ---> convolution --+
        deeper  -------------------+--> convolution --> average, maximum --+
        deepest -------------------------------------> average, maximum --+--> classes

    A side network beside frozen stages, as in Sung et al., 2022, https://arxiv.org/abs/2206.06522.

    Args:
        channels: of each tapped stage's map, the shallowest first; two at least.
        classes: logits.
        normalised: false leaves all that is read as it is.
        width: channels that each convolution gives.
    """

    def __init__(
        self, channels: list[int], classes: int, normalised: bool = True, width: int = 256
    ):
        super().__init__()
        *carried, deepest = channels
        norms = [nn.BatchNorm2d(c, affine=False) if normalised else nn.Identity() for c in carried]
        reads = [c + (width if depth else 0) for depth, c in enumerate(carried)]
        self.normalise = nn.ModuleList(norms)
        self.convolve = nn.ModuleList([halving_convolution(c, width) for c in reads])
        self.classifier = Classifier([2 * width, 2 * deepest], classes, normalised)

    def forward(self, *maps: Tensor) -> Tensor:
        """One (B, C, H, W) a stage -> logits (B, classes)."""
        *carried, deepest = maps
        x = None
        for stage, normalise, convolve in zip(carried, self.normalise, self.convolve, strict=True):
            stage = normalise(stage)
            if x is not None:
                if stage.shape[2:] != x.shape[2:]:  # stages that do not halve their maps
                    stage = F.adaptive_avg_pool2d(stage, x.shape[2:])
                stage = torch.cat([x, stage], dim=1)
            x = convolve(stage)
        return self.classifier(average_and_maximum(x), average_and_maximum(deepest))


def halving_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2), as a ResNet's stage begins."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def average_and_maximum(x: Tensor) -> Tensor:
    """Maps (B, C, H, W) -> (B, 2 C): what there is of each channel, and its strongest place."""
    return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
