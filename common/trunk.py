"""The frozen prefix as a function: without gradients, folded, and kept where it repeats."""

import copy
import logging
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from common.batches import Batches
from common.network import Features, StagedNetwork
from common.runtime import Runtime

log = logging.getLogger("rungs")


class Trunk:
    """The frozen stages before the first one that trains: pictures -> `Features`.

    With `fast`, a copy in the run's precision with every batch norm folded into the convolution
    before it; without, the network's own stages under autocast.
    """

    def __init__(self, network: StagedNetwork, runtime: Runtime, fast: bool = True):
        self.network, self.runtime, self.fast = network, runtime, fast
        if fast:
            stages = {name: folded(network.stages[name]) for name in network.prefix}
            self.stages = nn.ModuleDict(stages).to(runtime.device, runtime.dtype)
            self.stages.to(memory_format=torch.channels_last)
        else:
            self.stages = network.stages

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """(B, 3, S, S) -> the input of the first stage that trains, and the taps passed."""
        with self.runtime.autocast():
            features = self.network.run(Features(images, {}), self.network.prefix, self.stages)
        if len(self.network.prefix) == len(self.network.stages):
            features.x = features.x.new_empty((len(images), 0))  # the head reads the taps alone
        return features


def folded(stage: nn.Module) -> nn.Module:
    """A copy of a stage in eval mode, each batch norm folded into the convolution before it."""
    stage = copy.deepcopy(stage).eval().requires_grad_(False)
    if not any(isinstance(module, nn.BatchNorm2d) for module in stage.modules()):
        return stage
    return fuse(stage)


class FeatureBatches:
    """Batches of what the trunk makes of the pictures.

    Where an epoch's input is used again unchanged (`repeats`: no augmentation), the features are
    computed once and kept, if they fit in half of the memory that is free.
    """

    def __init__(self, batches: Batches, trunk: Trunk, repeats: bool):
        self.batches, self.trunk = batches, trunk
        self.repeats = repeats and trunk.fast and bool(trunk.network.prefix)
        self.kept: Features | None = None

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.batches)

    def epoch(self, epoch: int = 0) -> Iterator[tuple[Features, Tensor]]:
        """Yield (features, labels int64 (B,)) on the device."""
        if self.repeats and self.kept is None:
            self.kept = self._keep()
        if self.kept is None:
            for images, labels in self.batches.epoch(epoch):
                yield self.trunk(images), labels
            return
        for positions in self.batches.order(epoch):
            positions = positions.to(self.batches.labels.device)
            yield self.kept[positions], self.batches.labels[positions]

    def _keep(self) -> Features | None:
        count = len(self.batches.images)
        everything = self.batches.split(torch.arange(count))
        kept = None
        for positions in everything:
            features = self.trunk(self.batches.batch(positions)[0])
            if kept is None:
                need = features.nbytes / len(positions) * count
                if need > free_memory(features.x.device) / 2:
                    self.repeats = False
                    log.info("features not kept: %.1f GiB, over half of what is free", need / 2**30)
                    return None
                kept = features.empty(count)
            kept[positions] = features
        return kept


def free_memory(device: torch.device) -> float:
    """Bytes free on a device (on a CPU: available without swapping)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            available = next(line for line in file if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
