"""Networks as an ordered dict of named stages, with their weights.

To add a network, add a function to `NETWORKS` that returns its stages; its parameters that have a
rule are options in a config: `arch: {cnn: {depth: 5}}`. All but the classifier, which every level
builds anew, belongs to a stage.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torchvision import models

from common.config import NetworkConfig
from common.config.ranges import FLAG, SHARE, one_of, whole
from common.config.registry import Registry
from common.models.weights import Weights, check_fit, input_size, load_weights
from common.utils.errors import UserError, nearest

Dropout = Annotated[float, SHARE]
Width = Annotated[int, whole(1, 4096)]  # channels


@dataclass
class Backbone:
    """Stages with their weights loaded, and what a head must know of them."""

    stages: OrderedDict[str, nn.Module]
    channels: dict[str, int]  # of each stage's output
    weights: Weights


@dataclass(frozen=True)
class Architecture:
    """A network and its stages.

    Attributes:
        network: holds the stages' parameters under the names that files of weights use.
        stages: (name, module, channels of its output), from the picture up.
        classifier: the prefix of the classifier's keys in a state dict.
    """

    network: nn.Module
    stages: list[tuple[str, nn.Module, int]]
    classifier: str = "fc."


def _convolution(inputs: int, outputs: int, kernel: int = 3) -> list[nn.Module]:
    """Convolution of the same size, batch norm, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _of_own(stages: list[tuple[str, nn.Module, int]]) -> Architecture:
    """An architecture of ours: its weights go by the stages' names."""
    return Architecture(nn.ModuleDict({name: stage for name, stage, _ in stages}), stages)


def mlp(image_size: int, dropout: Dropout = 0.5) -> Architecture:
    """Two hidden layers of 512 and 256 on the pixels, with batch norm, ReLU and dropout."""

    def hidden(inputs: int, outputs: int) -> list[nn.Module]:
        linear = nn.Linear(inputs, outputs, bias=False)  # batch norm has its own
        return [linear, nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(dropout)]

    first = nn.Sequential(nn.Flatten(), *hidden(3 * image_size**2, 512))
    return _of_own([("hidden1", first, 512), ("hidden2", nn.Sequential(*hidden(512, 256)), 256)])


def cnn_small(image_size: int, dropout: Dropout = 0.0) -> Architecture:
    """Two blocks of two convolutions, 32 and 64 channels, and a hidden layer of 512."""
    return cnn(image_size, depth=4, dropout=dropout, width=32, hidden=512)


def cnn(
    image_size: int,
    depth: Annotated[int, one_of(4, 5, 6)] = 6,
    kernel: Annotated[int, one_of(1, 3, 5, 7)] = 3,
    dropout: Dropout = 0.5,
    width: Width = 64,
    hidden: int = 256,
) -> Architecture:
    """`depth` convolutions of one kernel size, pooled after every other one; a `hidden` layer."""
    blocks, inputs, side = [], 3, image_size
    for number in range(1, -(-depth // 2) + 1):
        outputs = width * 2 ** (number - 1)
        layers = _convolution(inputs, outputs, kernel)
        if 2 * number <= depth:
            layers += _convolution(outputs, outputs, kernel)
        blocks.append((f"block{number}", nn.Sequential(*layers, nn.MaxPool2d(2)), outputs))
        inputs, side = outputs, side // 2
    return _of_own([*blocks, ("dense", _dense(inputs * side**2, hidden, dropout), hidden)])


def _dense(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    layers = nn.Flatten(), nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)
    return nn.Sequential(*layers)


def alexnet(dropout: Dropout = 0.5) -> Architecture:
    """Krizhevsky et al., 2012, as in torchvision, its stem 3x3 with stride 2 for small pictures."""
    network = models.alexnet(dropout=dropout)
    layers = list(network.features)
    layers[0] = nn.Conv2d(3, 64, 3, stride=2, padding=1)
    first, second, third = layers[:2], layers[3:6], layers[6:]  # without the early pooling
    hidden = list(network.classifier)[:-1]
    hidden[1] = nn.Linear(256 * 3 * 3, 4096)
    dense = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), *hidden)
    parts = (("stem", first, 64), ("block1", second, 192), ("block2", third, 256))
    stages = [(name, nn.Sequential(*part), channels) for name, part, channels in parts]
    return _of_own([*stages, ("dense", dense, 4096)])


def vgg13(dropout: Dropout = 0.5) -> Architecture:
    """Simonyan and Zisserman, 2015, with batch norm; at 32 px its last map is a single pixel."""
    layers = list(models.vgg13_bn().features)
    ends = [i + 1 for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    stages = []
    for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False), 1):
        part = nn.Sequential(*layers[start:end])
        channels = next(x.num_features for x in part if isinstance(x, nn.BatchNorm2d))
        stages.append((f"block{number}", part, channels))
    hidden = [*_dense(512, 4096, dropout), *_dense(4096, 4096, dropout)[1:]]
    return _of_own([*stages, ("dense", nn.Sequential(nn.AdaptiveAvgPool2d(1), *hidden), 4096)])


def resnet18(small_stem: Annotated[bool, FLAG] = False) -> Architecture:
    """He et al., 2016; `small_stem`: 3x3 and no pooling, for pictures of 32 px."""
    network = models.resnet18()
    if small_stem:
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    names = ("conv1", "bn1", "relu", "maxpool")
    stem = nn.Sequential(OrderedDict((name, getattr(network, name)) for name in names))
    layers = [(f"layer{i}", getattr(network, f"layer{i}"), 32 * 2**i) for i in (1, 2, 3, 4)]
    return Architecture(network, [("stem", stem, 64), *layers], "fc.")


def efficientnet_v2_s() -> Architecture:
    """Tan and Le, 2021."""
    network = models.efficientnet_v2_s()
    names = ["stem", *(f"stage{i}" for i in range(1, 7)), "top"]
    channels = (24, 24, 48, 64, 128, 160, 256, 1280)
    stages = list(zip(names, network.features, channels, strict=True))
    return Architecture(network, stages, "classifier.")


def densenet121() -> Architecture:
    """Huang et al., 2017."""
    network = models.densenet121()
    parts = OrderedDict(network.features.named_children())
    groups = {"stem": ["conv0", "norm0", "relu0", "pool0"]}
    groups |= {f"block{i}": [f"denseblock{i}", f"transition{i}"] for i in (1, 2, 3)}
    groups["block4"] = ["denseblock4", "norm5"]
    stages = []
    for (name, group), channels in zip(groups.items(), (64, 128, 256, 512, 1024), strict=True):
        stage = nn.Sequential(OrderedDict((part, parts[part]) for part in group))
        stages.append((name, stage, channels))
    stages[-1][1].append(nn.ReLU(inplace=True))
    return Architecture(network, stages, "classifier.")


class Patches(nn.Module):
    """A picture (B, 3, S, S) as tokens (B, 1 + (S / 16)^2, 768), the class token first."""

    def __init__(self, network: models.VisionTransformer):
        super().__init__()
        self.conv_proj, self.class_token = network.conv_proj, network.class_token
        self.pos_embedding = network.encoder.pos_embedding

    def forward(self, x: Tensor) -> Tensor:
        """Cut into patches, project, put the class token before them, add the positions."""
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        token = self.class_token.to(x.dtype).expand(len(x), -1, -1)
        return torch.cat([token, x], dim=1) + self.pos_embedding.to(x.dtype)


def vit_b_16(image_size: int) -> Architecture:
    """Dosovitskiy et al., 2021; at other sizes than 224 px its positions are interpolated.

    Raises:
        UserError: a size that patches of 16 px do not fill.
    """
    if image_size % 16:
        raise UserError(f"network.image_size: vit_b_16 needs a multiple of 16, not {image_size}")
    network = models.vit_b_16(image_size=image_size)
    layers = list(network.encoder.layers)
    blocks = [nn.Sequential(*layers[i : i + 3]) for i in (0, 3, 6, 9)]
    blocks[-1].append(network.encoder.ln)
    stages = [("patches", Patches(network), 768)]
    stages += [(f"blocks{i}", block, 768) for i, block in enumerate(blocks, 1)]
    return Architecture(network, stages, "heads.")


NETWORKS = mlp, cnn_small, cnn, alexnet, vgg13, resnet18, efficientnet_v2_s, densenet121, vit_b_16
ARCHITECTURES = Registry("network.arch", {network.__name__: network for network in NETWORKS})


def build_backbone(config: NetworkConfig, tell: bool = True) -> Backbone:
    """The configured network's stages, with the configured weights. Its classifier is left out,
    which is logged if it had weights, too.

    Raises:
        UserError: an unknown network, or weights that are unreadable or another network's.
        NoNetwork: weights that must be downloaded, and cannot be.
    """
    architecture = build_architecture(config)
    channels = {name: channels for name, _, channels in architecture.stages}
    check_stages("taps", config.taps or [], channels)
    weights = load_weights(architecture.network, architecture.classifier, config, tell)
    stages = OrderedDict((name, stage) for name, stage, _ in architecture.stages)
    return Backbone(stages, channels, weights)


def starting_state(config: NetworkConfig) -> tuple[dict[str, Tensor], str | None]:
    """The stages' tensors as the configured weights have them, by their names in a network of ours,
    on the CPU; and the SHA-256 of the weights' file, None (and no tensors) where there is none.

    Raises:
        UserError: as `build_backbone`.
    """
    if config.weights == "none":
        return {}, None
    with torch.random.fork_rng([]):  # what is drawn, and then replaced, is nobody's loss
        backbone = build_backbone(config, tell=False)
    tensors = nn.Sequential(backbone.stages).state_dict()
    return {f"stages.{key}": value for key, value in tensors.items()}, backbone.weights.sha256


def build_architecture(config: NetworkConfig) -> Architecture:
    """The configured network, as its function builds it, with weights drawn at random.

    Raises:
        UserError: an unknown network or option, or a value that the option does not take.
    """
    return ARCHITECTURES.build(config.arch, image_size=input_size(config))


def check_network(config: NetworkConfig) -> None:
    """What is wrong with a network by its config alone: tenths of a second, no picture is read.

    Not the stages' names: an own level may build others.

    Raises:
        UserError: an unknown network or option; weights that are not there, unreadable or another
            network's; a new head without a start.
    """
    if config.new_head and not config.start_from:
        raise UserError("network.new_head: every head is new without network.start_from")
    try:
        with torch.device("meta"):  # names and shapes without numbers
            architecture = build_architecture(config)
    except (NotImplementedError, RuntimeError):  # a constructor that needs values
        architecture = build_architecture(config)
    check_fit(architecture.network, architecture.classifier, config)


def check_stages(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise UserError for a name under `network.<option>` that is no stage."""
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"network.{option}: no stage '{unknown[0]}'{nearest(unknown[0], known)}")
