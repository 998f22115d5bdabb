"""Small networks and data that several test files use."""

from collections import OrderedDict

import torch
import torchvision
from torch import nn

from common.config import NetworkConfig, TrainConfig
from common.data import ImageSet, Splits
from common.models import Backbone, Classifier, StagedNetwork, Trunk, Weights, build_backbone
from common.runtime import Runtime
from common.training import Trainer, fit

CPU = Runtime(torch.device("cpu"), torch.float32)


def noise(count: int, size: int) -> torch.Tensor:
    """Random bytes, uint8 (count, 3, size, size), the same each time."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, size, size)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def block(inputs: int, outputs: int) -> nn.Module:
    conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def small_backbone(size: int = 8) -> Backbone:
    """Three stages of 4, 6 and 8 channels with batch-norm buffers that are not the identity."""
    torch.manual_seed(0)
    stages = OrderedDict(a=block(3, 4), b=block(4, 6), c=block(6, 8))
    for module in nn.ModuleList(stages.values()).modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return Backbone(
        stages, {"a": 4, "b": 6, "c": 8}, Weights(name="none", sha256=None, image_size=size)
    )


def small_network(trainable=("head",), taps=("c",), classes=3, size=8, normalised=True):
    backbone = small_backbone(size)
    head = Classifier([backbone.channels[tap] for tap in taps], classes, normalised)
    return StagedNetwork(backbone, head, list(trainable), list(taps))


class Means(nn.Module):
    """An own head for three classes, without a linear layer."""

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return pooled[:, :3] - pooled[:, 3:6]


def small_splits(count: int = 30, size: int = 8, classes: int = 3) -> Splits:
    """Brightness tells the class: `count` to train on, half of it each to val, test."""
    counts = (count, count // 2, count // 2)
    labels = torch.arange(sum(counts)) % classes
    pixels = noise(sum(counts), size).float() / 4
    pixels = (pixels + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8)
    rows, parts = torch.arange(sum(counts)).split(counts), []
    for part in rows:
        names = tuple(str(c) for c in range(classes))
        parts.append(ImageSet(pixels, part, labels[part], names))
    return Splits(*parts, name="small", title="small", fingerprint="f", split="s", mirror=True)


def quick(**settings) -> TrainConfig:
    return TrainConfig(**{"epochs": 2, "batch_size": 8, "precision": "float32", **settings})


def built(network, data, config, runtime=CPU) -> Trainer:
    return Trainer(network, data, config, Trunk(network, runtime))


def fitted(network, data, config, folder, runtime=CPU) -> list[dict]:
    return fit(network, data, config, Trunk(network, runtime), folder)


def torchvision_network() -> nn.Module:
    """torchvision's ResNet-18 for 7 classes, in eval mode, no parameter or statistic as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = torchvision.models.resnet18(num_classes=7)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


def build(weights="none", **options) -> Backbone:
    return build_backbone(NetworkConfig(weights=str(weights), **options))
