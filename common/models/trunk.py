"""The frozen prefix as a function: without gradients, folded, and kept where it repeats."""

import copy
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from common.data import Batches, ImageSet
from common.models.staged import Features, StagedNetwork
from common.runtime import Runtime, free_memory

log = logging.getLogger("rungs")

GROUP = 64, 2**19  # on a CPU: pictures, and pixels, that go through the trunk at a time


class Trunk:
    """The frozen stages before the first one that trains: pictures -> `Features`.

    Where `runtime.fast`, a copy in the run's precision with every batch norm folded into the
    convolution before it, and on a CPU a few pictures at a time, so that what one layer writes is
    still in the cache when the next one reads it; else, the network's own stages under autocast.

    Attributes:
        keeps: whether what it makes may be kept.
        kept: what it made of pictures as they are, and of which.
        kept_bytes: how much it has made that was kept, views of pictures included.
    """

    def __init__(self, network: StagedNetwork, runtime: Runtime):
        self.network, self.runtime = network, runtime
        self.stages = network.stages
        if runtime.fast:
            stages = {name: folded(network.stages[name]) for name in network.prefix}
            self.stages = nn.ModuleDict(stages).to(runtime.device, runtime.dtype)
            self.stages.to(memory_format=torch.channels_last)
            for stage in self.stages.values() if runtime.compile else ():
                stage.compile(dynamic=False)
        several = runtime.processes.world > 1  # each would have to keep all pictures'
        self.keeps = runtime.fast and bool(network.prefix) and not several
        self.kept: list[tuple[ImageSet, Kept]] = []
        self.kept_bytes = 0

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

    def recall(self, batches: Batches) -> "Kept | None":
        """What is kept of these pictures, which may be a part of those that it was made of."""
        for images, kept in self.kept:
            if images.source is batches.images.source:
                places = torch.searchsorted(images.rows, batches.images.rows)
                places = places.clamp(max=len(images) - 1)
                if torch.equal(images.rows[places], batches.images.rows):
                    places = kept.places[places.to(kept.places.device)]
                    return Kept(kept.features, places, batches.labels)
        return None

    def _run(self, images: Tensor) -> Features:
        prefix = self.network.prefix
        with self.runtime.arithmetic():
            features = self.network.run(Features(images, {}), prefix, self.stages)
        if len(prefix) == len(self.network.stages):
            features.x = features.x.new_empty((len(images), 0))  # the head reads the taps alone
        elif prefix:
            features.taps.pop(prefix[-1], None)  # which x is
        return features


def folded(stage: nn.Module) -> nn.Module:
    """A copy of a stage in eval mode, each batch norm folded into the convolution before it."""
    stage = copy.deepcopy(stage).eval().requires_grad_(False)
    if not any(isinstance(module, nn.BatchNorm2d) for module in stage.modules()):
        return stage
    return fuse(stage)


class FeatureBatches:
    """Batches of what the trunk makes of the pictures.

    Where the same pictures come again, unchanged or in one of a few augmented views, what the trunk
    made of them is kept.

    Args:
        folder: where goes what is too large for memory.
        epochs: how often these pictures come, if that is known: what comes once is not kept.
    """

    def __init__(
        self,
        batches: Batches,
        trunk: Trunk,
        folder: Path | None = None,
        epochs: int | None = None,
    ):
        self.batches, self.trunk, self.folder, self.epochs = batches, trunk, folder, epochs
        self.held: dict[int, Kept | None] = {}  # by view; 0: the pictures as they are

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.batches)

    def epoch(self, epoch: int = 0) -> Iterator[tuple[Features, Tensor]]:
        """Yield (features, labels int64 (B,)) on the device."""
        kept = self._kept(self.batches.view(epoch))
        if kept is None:
            if self.batches.view(epoch) == epoch:  # not in the epoch that first needs it
                self.batches.check_room()
            for images, labels in self.batches.epoch(epoch):
                yield self.trunk(images), labels
            return
        for positions in self.batches.order(epoch):
            positions = positions.to(kept.labels.device)
            yield kept.features[kept.places[positions]], kept.labels[positions]

    def _kept(self, view: int) -> "Kept | None":
        """All features of the pictures, or of a view of them; None where they are not kept."""
        batches, trunk = self.batches, self.trunk
        new = batches.transform and not batches.views
        if new or not trunk.keeps:
            return None
        view = view if batches.transform else 0
        if view not in self.held:  # a refusal is remembered, too
            kept = trunk.recall(batches) if view == 0 else None
            self.held[view] = kept or (self._keep(view) if self._again(view) else None)
        return self.held[view]

    def _again(self, view: int) -> bool:
        """Whether the pictures, or this view of them, come more than once."""
        return self.epochs is None or (view or 1) + (self.batches.views or 1) <= self.epochs

    def _keep(self, view: int) -> "Kept | None":
        """Go once through the pictures, or through a view of them in its own epoch's batches."""
        batches, features, labels = self.batches, None, None
        order, epoch = batches.order(view), batches.epoch(view)
        if not batches.transform:
            order = batches.split(torch.arange(len(batches.images)))
            epoch = map(batches.batch, order)
        for positions, (images, targets) in zip(order, epoch, strict=True):
            part = self.trunk(images)
            if features is None:
                features = room(part, len(batches.images), self.folder)
                if features is None:
                    return None
                labels = targets.new_empty(len(batches.images), *targets.shape[1:])
            positions = positions.to(labels.device)
            features[positions], labels[positions] = part, targets
        kept = Kept(features, torch.arange(len(labels), device=labels.device), labels)
        self.trunk.kept_bytes += features.nbytes
        if view == 0:
            self.trunk.kept.append((batches.images, kept))
        return kept


class Kept(NamedTuple):
    """What a trunk made of pictures.

    Attributes:
        features: theirs, and maybe others'.
        places: int64 (N,), where in those each picture's are.
        labels: int64 (N,), or shares of the classes, float32 (N, C).
    """

    features: Features
    places: Tensor
    labels: Tensor


def room(part: Features, count: int, folder: Path | None) -> Features | None:
    """Room for `count` pictures' features, laid out as in `part`: in memory, if they fit in half of
    what is free; else in a file in the folder, which is mapped into memory; None where there is no
    room, either.
    """
    need, device = part.nbytes // len(part.x) * count, part.x.device
    if need <= free_memory(device) / 2:
        return part.empty(count)
    if folder is not None and device.type == "cpu" and need < shutil.disk_usage(folder).free / 2:
        log.info("features kept in %s: %.1f GiB", folder, need / 2**30)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".features") as file:
            # without a name it lives as long as the tensor, and no longer than the process
            memory = torch.from_file(file.name, True, need, dtype=torch.uint8)
        return part.empty(count, memory)
    log.info("features not kept: %.1f GiB, over half of what is free", need / 2**30)
    return None
