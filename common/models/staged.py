"""A network as named stages and a head: which of them train, and what the head reads."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.models.backbones import Backbone, check_stages


@dataclass
class Features:
    """What the frozen prefix hands on: its last output, and what the head reads of its stages.

    `x`: float (B, ...), the input of the first stage that trains; `taps`: name -> (B, D) or
    (B, C, H, W), as the network pools them.
    """

    x: Tensor
    taps: dict[str, Tensor]

    def __getitem__(self, rows: Tensor | slice) -> "Features":
        return Features(self.x[rows], {name: tap[rows] for name, tap in self.taps.items()})

    def __setitem__(self, rows: Tensor | slice, features: "Features") -> None:
        self.x[rows] = features.x
        for name, tap in self.taps.items():
            tap[rows] = features.taps[name]

    @property
    def nbytes(self) -> int:
        return self.x.nbytes + sum(tap.nbytes for tap in self.taps.values())

    def empty(self, count: int, memory: Tensor | None = None) -> "Features":
        """Room for the features of `count` pictures, each picture's laid out as here.

        Args:
            memory: bytes to lay them out in, uint8 (n,); new ones if None.
        """

        def room(x: Tensor, start: int) -> Tensor:
            shape, last = (count, *x.shape[1:]), x.ndim == 4
            if last:  # channels last in memory, whatever a stage's output is: convolutions read it
                shape = count, *x.shape[2:], x.shape[1]
            if memory is None:
                whole = x.new_empty(shape)
            else:
                size = math.prod(shape) * x.element_size()
                whole = memory[start : start + size].view(x.dtype).view(shape)
            return whole.permute(0, 3, 1, 2) if last else whole

        parts, start = {}, 0
        for name, part in {"": self.x, **self.taps}.items():
            parts[name] = room(part, start)
            start += parts[name].nbytes
        return Features(parts.pop(""), parts)


def average(x: Tensor) -> Tensor:
    """A stage's output as one vector a picture (B, C).

    Maps (B, C, H, W) are averaged over their pixels; of tokens (B, T, C) the first is taken, a
    vision transformer's class token.
    """
    if x.ndim == 4:
        return x.mean((2, 3))
    return x[:, 0] if x.ndim == 3 else x


def as_map(x: Tensor) -> Tensor:
    """A stage's output as a map (B, C, H, W), for a head that looks at places.

    Of tokens (B, 1 + S S, C) the class token is left out; a vector is a map of one place.
    """
    if x.ndim == 3:
        side = math.isqrt(x.shape[1] - 1)
        return x[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    return x if x.ndim == 4 else x[:, :, None, None]


class StagedNetwork(nn.Module):
    """Stages one after another; the head reads the outputs of the tapped stages.

    A stage that is not in `trainable` is frozen: no gradients, and eval mode also while its
    neighbours are in train mode, so that its batch-norm buffers cannot drift. The frozen stages
    before the first trainable one are the *prefix*: a fixed function of the picture.

    Args:
        backbone: the stages, with their weights.
        head: takes what `pool` makes of each tap, in the order of `taps`; gives logits
            (B, classes).
        trainable: the names that train; "head" is the head's.
        taps: the stages the head reads.
        pool: what the head reads of a tapped stage's output: `average` or `as_map`.
    Attributes:
        weights: what the stages started from.
        start: digest of what was put in before training: another level's best checkpoint, or batch
            norm's new statistics; else None.
        adapted: pictures that batch norm's statistics were estimated anew on; 0: those of the
            weights.
    Raises:
        UserError: a name in `trainable` or `taps` that is no stage.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        trainable: list[str],
        taps: list[str],
        pool: Callable[[Tensor], Tensor] = average,
    ):
        super().__init__()
        self.pool = pool
        self.stages = nn.ModuleDict(backbone.stages)
        self.head = head
        self.taps = tuple(taps)
        check_stages("taps", taps, self.stages)
        self.weights = backbone.weights
        self.start: str | None = None
        self.adapted = 0
        self.batch_norm_trains = True
        known = [*self.stages, "head"]
        check_stages("trainable", trainable, known)
        self.trainable = [name for name in known if name in trainable]
        self.unfreeze(self.trainable)

    def unfreeze(self, names: list[str]) -> None:
        """Of what is trainable, train these for now; the rest waits, frozen."""
        self.unfrozen = [name for name in self.trainable if name in names]
        for name, part in self.parts():
            part.requires_grad_(name in self.unfrozen)
        if not self.batch_norm_trains:
            for norm in batch_norms(self.stages):
                norm.requires_grad_(False)
        self.train(self.training)

    def freeze_batch_norm(self) -> None:
        """Keep batch norm as it is also in the stages that train: statistics, scale and shift."""
        self.batch_norm_trains = False
        self.unfreeze(self.unfrozen)

    def synchronise_batch_norm(self) -> None:
        """Batch norm of what trains by the statistics of all processes' pictures; on CUDA."""
        convert = nn.SyncBatchNorm.convert_sync_batchnorm
        for name in self.trainable:
            if name == "head":
                self.head = convert(self.head)
            else:
                self.stages[name] = convert(self.stages[name])

    def parts(self) -> list[tuple[str, nn.Module]]:
        """The stages and the head, by name."""
        return [*self.stages.items(), ("head", self.head)]

    def train(self, mode: bool = True) -> "StagedNetwork":
        """Train mode for what trains; what is frozen stays in eval mode."""
        super().train(mode)
        for name, part in self.parts():
            if name not in self.unfrozen:
                part.eval()
        if not self.batch_norm_trains:
            for norm in batch_norms(self.stages):
                norm.eval()
        return self

    @property
    def prefix(self) -> list[str]:
        """Names of the frozen stages before the first trainable one."""
        names = list(self.stages)
        first = next((i for i, name in enumerate(names) if name in self.trainable), len(names))
        return names[:first]

    def state_keys(self, names: list[str]) -> list[str]:
        """Keys in the state dict of these stages, or the head."""
        starts = tuple("head." if name == "head" else f"stages.{name}." for name in names)
        return [key for key in self.state_dict() if key.startswith(starts)]

    def frozen_hash(self) -> str:
        """SHA-256 of all frozen parameters and buffers."""
        frozen = [name for name, _ in self.parts() if name not in self.trainable]
        return state_hash(self, set(self.state_keys(frozen)))

    def forward_prefix(self, images: Tensor) -> Features:
        """(B, 3, S, S) -> the input of the first trainable stage, and the taps passed."""
        return self.run(Features(images, {}), self.prefix)

    def forward_suffix(self, features: Features) -> Tensor:
        """What `forward_prefix` gave, or the trunk -> logits (B, classes)."""
        passed = self.prefix
        taps = self.run(features, list(self.stages)[len(passed) :]).taps
        for name in passed[-1:]:  # the trunk does not keep one map twice
            if name in self.taps and name not in taps:
                taps[name] = self.pool(features.x)
        return self.head(*(taps[name] for name in self.taps))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised pictures (B, 3, S, S) -> logits (B, classes)."""
        with torch.no_grad():
            features = self.forward_prefix(images)
        return self.forward_suffix(features)

    def run(
        self, features: Features, names: list[str], stages: nn.ModuleDict | None = None
    ) -> Features:
        """Go through the named stages (or stand-ins for them), collecting the taps passed."""
        stages = stages or self.stages
        x, taps = features.x, dict(features.taps)
        for name in names:
            x = stages[name](x)
            if name in self.taps:
                taps[name] = self.pool(x)
        return Features(x, taps)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """A module's batch norms, of maps or of vectors."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


class Classifier(nn.Module):
    """One linear layer on what the taps give, side by side, each number normalised.

    Stages differ in scale by orders of magnitude, and a rate suits one scale: batch norm without
    scale and shift of its own, as linear probes have it (He et al., 2022,
    https://arxiv.org/abs/2111.06377), gives all the same.

    Args:
        inputs: numbers that each tap gives.
        classes: logits.
        normalised: false leaves the numbers as they are.
    """

    def __init__(self, inputs: list[int], classes: int, normalised: bool = True):
        super().__init__()
        count = sum(inputs)
        self.normalise = nn.BatchNorm1d(count, affine=False) if normalised else nn.Identity()
        self.classify = nn.Linear(count, classes)

    def forward(self, *taps: Tensor) -> Tensor:
        """One (B, D) a tap -> logits (B, classes)."""
        return self.classify(self.normalise(torch.cat(taps, dim=1)))


def state_hash(module: nn.Module, only: set[str] | None = None) -> str:
    """SHA-256 over the names and bytes of a module's parameters and buffers.

    `only` restricts it to these names of the state dict.
    """
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        if only is None or name in only:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
