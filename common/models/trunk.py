"""The frozen prefix as a function: without gradients, folded, and kept where it repeats."""

import copy
import logging
from collections.abc import Iterator

import psutil
import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from common.data import Batches, ImageSet
from common.models.staged import Features, StagedNetwork
from common.runtime import Runtime

log = logging.getLogger("rungs")

GROUP = 64, 2**19  # on a CPU: pictures, and pixels, that go through the trunk at a time


class Trunk:
    """The frozen stages before the first one that trains: pictures -> `Features`.

    Where `runtime.fast`, a copy in the run's precision with every batch norm folded into the
    convolution before it, and on a CPU a few pictures at a time, so that what one layer writes is
    still in the cache when the next one reads it; else, the network's own stages under autocast.

    Attributes:
        kept: image sets whose features are kept, and the features, in the set's order.
    """

    def __init__(self, network: StagedNetwork, runtime: Runtime):
        self.network, self.runtime = network, runtime
        self.kept: list[tuple[ImageSet, Features]] = []
        self.stages = network.stages
        if runtime.fast:
            stages = {name: folded(network.stages[name]) for name in network.prefix}
            self.stages = nn.ModuleDict(stages).to(runtime.device, runtime.dtype)
            self.stages.to(memory_format=torch.channels_last)
            for stage in self.stages.values() if runtime.compile else ():
                stage.compile(dynamic=False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """(B, 3, S, S) -> the input of the first stage that trains, and the taps passed."""
        if not self.runtime.fast or self.runtime.device.type != "cpu":
            return self._run(images)
        pictures, pixels = GROUP
        size = max(1, min(pictures, pixels // images[0, 0].numel()))
        if len(images) <= size:
            return self._run(images)
        features = None
        for rows in torch.arange(len(images)).split(size):
            part = self._run(images[rows[0] : rows[-1] + 1])
            features = part.empty(len(images)) if features is None else features
            features[rows[0] : rows[-1] + 1] = part
        return features

    def _run(self, images: Tensor) -> Features:
        with self.runtime.arithmetic():
            features = self.network.run(Features(images, {}), self.network.prefix, self.stages)
        if len(self.network.prefix) == len(self.network.stages):
            features.x = features.x.new_empty((len(images), 0))  # the head reads the taps alone
        return features

    def keep(self, batches: Batches) -> None:
        """Compute and keep a set's features, if they fit in half of the memory that is free."""
        images, kept = batches.images, None
        for positions in batches.split(torch.arange(len(images))):
            features = self(batches.batch(positions)[0])
            if kept is None:
                need = features.nbytes / len(positions) * len(images)
                if need > free_memory(features.x.device) / 2:
                    log.info("features not kept: %.1f GiB, over half of what is free", need / 2**30)
                    return
                kept = features.empty(len(images))
            kept[positions[0] : positions[-1] + 1] = features
        self.kept.append((images, kept))

    def recall(self, images: ImageSet) -> tuple[Features, Tensor] | None:
        """Kept features, and where in them each picture's are: int64 (N,); None if not kept."""
        for known, features in self.kept:
            if known.source is images.source:
                places = torch.searchsorted(known.rows, images.rows).clamp(max=len(known) - 1)
                if torch.equal(known.rows[places], images.rows):
                    return features, places.to(features.x.device)
        return None


def folded(stage: nn.Module) -> nn.Module:
    """A copy of a stage in eval mode, each batch norm folded into the convolution before it."""
    stage = copy.deepcopy(stage).eval().requires_grad_(False)
    if not any(isinstance(module, nn.BatchNorm2d) for module in stage.modules()):
        return stage
    return fuse(stage)


class FeatureBatches:
    """Batches of what the trunk makes of the pictures.

    Where pictures come unchanged (no augmentation, no test-time view), features that are kept are
    taken from there; with `repeats`, as the same pictures will come again, they are kept first.
    """

    def __init__(self, batches: Batches, trunk: Trunk, repeats: bool):
        self.batches, self.trunk, self.repeats = batches, trunk, repeats

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.batches)

    def epoch(self, epoch: int = 0) -> Iterator[tuple[Features, Tensor]]:
        """Yield (features, labels int64 (B,)) on the device."""
        kept = self._kept()
        if kept is None:
            for images, labels in self.batches.epoch(epoch):
                yield self.trunk(images), labels
            return
        features, places = kept
        for positions in self.batches.order(epoch):
            positions = positions.to(places.device)
            yield features[places[positions]], self.batches.labels[positions]

    def _kept(self) -> tuple[Features, Tensor] | None:
        trunk, images = self.trunk, self.batches.images
        several = trunk.runtime.processes.world > 1  # each would have to keep all pictures'
        if self.batches.transform or not trunk.runtime.fast or not trunk.network.prefix or several:
            return None
        kept = trunk.recall(images)
        if kept is None and self.repeats:
            trunk.keep(self.batches)
            kept = trunk.recall(images)
            self.repeats = kept is not None
        return kept


def free_memory(device: torch.device) -> float:
    """Bytes free on a device (on a CPU: available without swapping)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
