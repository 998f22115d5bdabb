"""The fusion head: what the stages hold at several depths, brought together."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.efficientnet import FusedMBConv, MBConv
from torchvision.models.resnet import BasicBlock, Bottleneck

from common.models import Classifier
from common.models.backbones import Backbone

RESIDUAL = BasicBlock, Bottleneck, FusedMBConv, MBConv


class FusionHead(nn.Module):
    """A way of its own from the shallowest map down to the deepest.

    A block leads each tapped stage's map down to the next one; what comes down and that
    stage's own map are averaged, and go on. Of what arrives and of the deepest map, each channel's
    average and maximum are what the classifier reads.

        shallow ---> block ---+
        deeper  --------------+---> block ---> average, maximum ---+
        deepest ------------------------------> average, maximum --+--> classes

    A side network beside frozen stages, as in Sung et al., 2022, https://arxiv.org/abs/2206.06522.

    Args:
        blocks: from each tapped stage to the next one tapped, the shallowest first.
        channels: of the deepest map, and of what the last block gives.
        classes: logits.
        normalised: false leaves what the classifier reads as it is.
    """

    def __init__(
        self, blocks: list[nn.Module], channels: int, classes: int, normalised: bool = True
    ):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.classifier = Classifier([2 * channels, 2 * channels], classes, normalised)

    def forward(self, *maps: Tensor) -> Tensor:
        """One (B, C, H, W) a stage, the shallowest first -> logits (B, classes)."""
        shallowest, *between, deepest = maps
        x = self.blocks[0](shallowest)
        for block, own in zip(self.blocks[1:], between, strict=True):
            if own.shape[2:] != x.shape[2:]:  # stages that do not halve their maps
                own = F.adaptive_avg_pool2d(own, x.shape[2:])
            x = block((x + own) / 2)
        return self.classifier(average_and_maximum(x), average_and_maximum(deepest))


def way_down(backbone: Backbone, upper: str, lower: str) -> nn.Sequential:
    """Blocks that lead the map of stage `upper` to as many channels as `lower`'s.

    Of each stage on the way the first block, copied with its weights as they were published: it has
    learnt just that. Its batch norm trains, and so comes to have these pictures' statistics. A
    stage that does not begin with a residual block has a new convolution for it.
    """
    names, blocks = list(backbone.stages), []
    channels = backbone.channels[upper]
    for name in names[names.index(upper) + 1 : names.index(lower) + 1]:
        first = next(backbone.stages[name].children(), None)
        if isinstance(first, RESIDUAL):
            blocks.append(copy.deepcopy(first))
        else:
            blocks.append(halving_convolution(channels, backbone.channels[name]))
        channels = backbone.channels[name]
    return nn.Sequential(*blocks)


def halving_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2)."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def average_and_maximum(x: Tensor) -> Tensor:
    """Maps (B, C, H, W) -> (B, 2 C): what there is of each channel, and its strongest place."""
    return torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)
