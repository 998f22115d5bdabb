"""What the training loop really feeds: each step's pictures and labels, as they reach the network.

A run's own trainer trains for two epochs on pictures that the audit has made: of `numbered` ones
each has a class of its own, so that the label says which picture it should be; of `copies` all are
one picture, so that what differs was drawn.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from common.audit.context import COUNTS, AuditContext, repeatable
from common.config import Step
from common.data import ImageSet, Splits, build_augmentation


@dataclass(frozen=True)
class Fed:
    """What one step of the optimiser got: network input (B, 3, S, S), int64 (B,) or (B, C)."""

    epoch: int
    images: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Record:
    """All steps of some epochs, and what was evaluated after each epoch.

    Attributes:
        steps: in order.
        evaluated: network input (N, 3, S, S) of each epoch's evaluation.
        parameters: the network's, after them all.
    """

    steps: list[Fed]
    evaluated: list[Tensor]
    parameters: dict[str, Tensor]

    def epoch(self, number: int) -> tuple[Tensor, Tensor]:
        """An epoch's pictures and labels, in the order in which they came."""
        steps = [step for step in self.steps if step.epoch == number]
        return torch.cat([s.images for s in steps]), torch.cat([s.targets for s in steps])


def record(
    context: AuditContext, data: Splits, augment: list | None = None, trains: bool = True
) -> Record:
    """Train on these pictures for two epochs, or go through the batches of one, and note what
    passes the door of the network's first stage.
    """
    trainer = context.trainer(data, augment, keeps=False)
    first = next(iter(trainer.network.stages))
    stages = trainer.network.stages, trainer.trunk.stages
    doors = {named[first] for named in stages if first in named}
    passed: list[Tensor] = []
    hooks = [
        door.register_forward_pre_hook(lambda _, inputs: passed.append(inputs[0].detach().cpu()))
        for door in doors
    ]
    steps, evaluated, step = [], [], trainer.step

    def spy(number: int, features: object, targets: Tensor) -> tuple[Tensor, Tensor]:
        result = step(number, features, targets)
        steps.append(Fed(epoch, torch.cat(passed), targets.cpu()))
        passed.clear()
        return result

    trainer.step = spy
    epoch = 1
    try:
        for features, targets in () if trains else trainer.train.epoch(epoch):
            images = torch.cat(passed) if passed else features.x.cpu()  # without a trunk
            steps.append(Fed(epoch, images, targets.cpu()))
            passed.clear()
        for epoch in (1, 2) if trains else ():
            with repeatable(context.runtime.device):
                trainer.epoch(epoch)
            evaluated.append(torch.cat(passed))
            passed.clear()
    finally:
        for hook in hooks:  # the trunk's stages serve others
            hook.remove()
    state = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    return Record(steps, evaluated, state)


def numbered(context: AuditContext, side: int | None = None) -> Splits:
    """Pictures unlike each other, each the only one of its class, of the run's stored size (256
    pixels at most) or of `side` pixels.
    """
    counts, start = COUNTS.values(), 0
    coarse = torch.rand(sum(counts), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    size = (side, side) if side else [min(stored, 256) for stored in context.data.train.size]
    source = F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    source = (255 * source).to(torch.uint8)
    classes, parts = tuple(map(str, range(len(source)))), []
    for count in counts:
        rows = torch.arange(start, start + count)
        parts.append(ImageSet(source, rows, rows, classes))
        start += count
    return replace(context.data, **dict(zip(COUNTS, parts, strict=True)))


def copies(context: AuditContext, picture: Tensor, count: int) -> Splits:
    """A picture, uint8 (3, H, W), so many times, as the training pictures; val has it once."""
    classes = context.data.classes

    def times(number: int) -> ImageSet:
        rows = torch.zeros(number, dtype=torch.int64)
        return ImageSet(picture[None], rows, rows, classes)

    return replace(context.data, train=times(count), val=times(1), test=times(1))


def unmixed(context: AuditContext) -> list[Step]:
    """The run's augmentation without the steps that mix pictures, whose labels say what was fed."""
    configured = context.config.augment
    built = build_augmentation(configured, context.data.mirror)
    pairs = zip(configured, built.steps, strict=True) if built else ()
    return [step for step, made in pairs if not made.mixes]


def plain(context: AuditContext) -> Record:
    """Numbered pictures as they are, for an epoch."""
    return record(context, context.once(numbered), augment=[], trains=False)


def augmented(context: AuditContext) -> Record:
    """Numbered pictures, by the run's augmentation, for two epochs."""
    return record(context, context.once(numbered), unmixed(context))


def copied(context: AuditContext) -> Record:
    """One of the numbered pictures as all of train, by the run's augmentation, for two epochs."""
    picture = context.once(numbered).train.images[0]
    return record(context, copies(context, picture, COUNTS["train"]), unmixed(context))
