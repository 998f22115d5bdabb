"""The audit's checks on what reaches the network."""

import copy

import torch
from torch import Tensor

from common.audit.context import IMAGENET_MEAN, IMAGENET_STD, SIZE, AuditContext, check, largest_gap
from common.config.registry import named_step
from common.data import Batches, ImageSet, duplicates
from common.data.augment.base import AugmentationStep
from common.data.augment.steps import Flip

READ = 2**28  # bytes of each split's pictures that are compared


@check(
    "pixels normalised",
    "pixels left at 0..255, or not scaled by the mean and std of the weights' own pictures",
)
def pixels_normalised(context: AuditContext) -> tuple[bool, str, str]:
    trainer = context.trainer()
    weights = trainer.network.weights
    images = torch.cat([images for images, _ in trainer.val.batches.epoch()])
    gap = largest_gap(images, context.pictures(context.data.val))
    right = weights.mean == IMAGENET_MEAN and weights.std == IMAGENET_STD
    expected = f"RGB in [0, 1] less {IMAGENET_MEAN}, by {IMAGENET_STD}, {SIZE} px"
    seen = f"{weights.mean}, {weights.std}; values {images.min():.1f} to {images.max():.1f}"
    return right and gap < 1e-3, expected, f"{seen}, {gap:.0e} off torchvision's"


@check(
    "pictures and labels belong together",
    "labels shifted, sorted or shuffled apart from their pictures",
)
def labels_belong(context: AuditContext) -> tuple[bool, str, str]:
    wrong = total = 0
    trainer = context.trainer()
    for stream, part in ((trainer.train, context.data.train), (trainer.val, context.data.val)):
        pictures, order = context.pictures(part), torch.cat(stream.batches.order(0))
        stream.batches.transform = None  # as they lie; augmentation has a check of its own
        for images, labels in stream.batches.epoch(0):
            own, order = order[: len(labels)], order[len(labels) :]
            right = _alike(images, pictures[own]) & (labels == part.labels.to(labels.device)[own])
            wrong, total = wrong + int((~right).sum()), total + len(labels)
    for part in (context.whole.train, context.whole.val, context.whole.test):
        for name, label in zip(part.names or [], part.labels.tolist(), strict=False):
            wrong += name.split("/")[1] != part.classes[label]
    return wrong == 0, "each picture with its own label", f"{wrong} of {total} checked without"


@check("splits disjoint", "val or test pictures that are in train too: a copy, or a wrong split")
def splits_disjoint(context: AuditContext) -> tuple[bool, str, str]:
    data = context.whole
    rows = [set(part.rows.tolist()) for part in (data.train, data.val, data.test)]
    shared = len(rows[0] & rows[1]) + len(rows[0] & rows[2]) + len(rows[1] & rows[2])
    train, val, test = (_some(part) for part in (data.train, data.val, data.test))
    copies = duplicates.exact_copies(val, [train]) + duplicates.exact_copies(test, [train])
    share = copies / (len(val) + len(test))
    expected = "no picture in two splits, and copies of train's below 1 % of val and test"
    return shared == 0 and share < 0.01, expected, f"{shared} shared, {share:.2%} copies"


def _some(part: ImageSet) -> ImageSet:
    """The part, or as many of its first pictures as can be read in a moment."""
    most = READ // part.source[0].nbytes
    return part if len(part) <= most else part.subset(torch.arange(most))


@check("each split where it belongs", "evaluation on the training set, or training on val or test")
def splits_used(context: AuditContext) -> tuple[bool, str, str]:
    trainer, wrong = context.trainer(), []
    for name, stream in (("train", trainer.train), ("val", trainer.val)):
        stream.batches.transform = None
        images = torch.cat([images for images, _ in stream.batches.epoch(0)])
        own = context.pictures(getattr(context.data, name))
        same = len(images) == len(own) and largest_gap(_sorted(images), _sorted(own)) < 1e-2
        if not same:
            wrong.append(name)
    seen = f"other pictures in {', '.join(wrong)}" if wrong else "the same pictures"
    return not wrong, "train's pictures to train on, val's to choose with", seen


def _sorted(images: Tensor) -> Tensor:
    """What tells whether two batches hold the same pictures in any order: (N,)."""
    return images.double().mean((1, 2, 3)).sort().values


def _alike(images: Tensor, others: Tensor) -> Tensor:
    """Which of the pictures are those in the same places of the others: bool (N,)."""
    return (images - others).abs().amax((1, 2, 3)) < 1e-2


@check("train is shuffled", "a loader without shuffle, or one order drawn once for all epochs")
def train_shuffled(context: AuditContext) -> tuple[bool, str, str]:
    stream = context.trainer().train.batches
    stream.transform = None
    images = [torch.cat([i for i, _ in stream.epoch(epoch)]) for epoch in (0, 1)]
    own = context.pictures(context.data.train)
    kept = [float(_alike(i, own).float().mean()) for i in images]
    same = float(_alike(*images).float().mean())
    complete = all(largest_gap(_sorted(i), _sorted(own)) < 1e-3 for i in images)
    seen = f"{kept[0]:.0%} and {kept[1]:.0%} in their stored place, {same:.0%} in the same place"
    seen += "" if complete else ", not each picture once"
    good = complete and max(*kept, same) < 0.5
    return good, "each picture once an epoch, in another order each epoch", seen


@check(
    "augmentation on train only",
    "one draw for a whole batch, augmentation never called, or val given train's transform",
)
def augmentation_on_train(context: AuditContext) -> tuple[bool, str, str]:
    trainer, train, val = context.trainer(), context.data.train, context.data.val
    transform = trainer.train.batches.transform
    moves = any(_varies(step) for step in transform.steps) if transform else False
    positions = torch.zeros(32, dtype=torch.int64)  # one picture, 32 times
    images, _ = trainer.train.batches.batch(positions)
    different = 1 + int((~_alike(images, images[:1])).sum())
    evaluated = torch.cat([images for images, _ in trainer.val.batches.epoch()])
    gap = largest_gap(evaluated, context.pictures(val))
    next(iter(trainer.train.epoch(1)))
    fixed = context.config.train.views or not context.config.augment
    kept = any(trainer.train.held.values()) and not fixed
    expected = f"{'several kinds' if moves else 'one kind'} among 32 copies, val as it is"
    seen = f"{different - 1} of 32 copies unlike the first, val {gap:.0e} off"
    seen += ", kept over epochs" if kept else ""
    own = context.prepare(train.images[:1])
    sides = [own, own.flip(3)] if transform and context.data.mirror else [own]
    plain = moves or min(largest_gap(images[:1], side) for side in sides) < 1e-3
    return (different > 1) == moves and plain and gap < 1e-3 and not kept, expected, seen


@check(
    "views differ, and come again",
    "one view for all epochs, a mirror image that never comes, or views drawn anew",
)
def views_in_turn(context: AuditContext) -> tuple[bool, str, str]:
    views = context.config.train.views and min(context.config.train.views, 3)
    batches = context.trainer(views=views, epochs=(views or 1) + 1).train.batches
    if batches.transform is None:
        return True, "no augmentation", "none"
    first, second = (_by_place(batches, epoch) for epoch in (1, 2))
    own, wrong = context.pictures(context.data.train).to(first.device), []
    often = any(_varies(s) and getattr(s, "probability", 1) > 0.25 for s in batches.transform.steps)
    if often and views != 1 and _alike(first, second).all():
        wrong.append("epoch 2 shows what epoch 1 did")
    if often and any(_alike(images, own).all() for images in (first, second)):
        wrong.append("an epoch shows the pictures as they are")
    if views and not _alike(_by_place(batches, views + 1), first).all():
        wrong.append(f"epoch {views + 1} does not show what epoch 1 did")
    turns = [s for s in batches.transform.steps if isinstance(s, Flip) and s.alternate and s.mirror]
    if turns:
        alone = copy.copy(context)
        alone.config = copy.deepcopy(context.config)
        steps = context.config.augment
        alone.config.augment = [s for s in steps if named_step(s)[1].get("alternate") is True]
        batches = alone.trainer(views=None).train.batches
        first, second = (_by_place(batches, epoch) for epoch in (1, 2))
        if not _alike(first.flip(3), second).all():
            wrong.append("epoch 2 does not show epoch 1's mirror images")
    expected = "another view in each epoch" if not views else f"{views} views in turn"
    return not wrong, expected, ", ".join(wrong) or "the same"


def _by_place(batches: Batches, epoch: int) -> Tensor:
    """An epoch's network input (N, 3, S, S), each picture in its place in the image set."""
    images = torch.cat([images for images, _ in batches.epoch(epoch)])
    return images[torch.cat(batches.order(epoch)).argsort().to(images.device)]


@check(
    "what is kept is what was seen",
    "kept features of other pictures or of another view, or beside other pictures' labels",
)
def kept_as_seen(context: AuditContext) -> tuple[bool, str, str]:
    views = context.config.train.views and min(context.config.train.views, 3)
    trainer = context.trainer(views=views, epochs=2 * (views or 1))  # so that all are kept
    worst, labelled = 0.0, True
    for epoch in range(1, (views or 1) + 2):
        pairs = zip(trainer.train.epoch(epoch), trainer.train.batches.epoch(epoch), strict=True)
        for (features, labels), (images, targets) in pairs:
            own = trainer.trunk(images)
            labelled = labelled and torch.equal(labels, targets)
            parts = [(features.x, own.x), *((features.taps[k], own.taps[k]) for k in own.taps)]
            worst = max(worst, *(largest_gap(a, b) for a, b in parts if b.numel()), 0.0)
    seen = f"{worst:.0e} off" + ("" if labelled else ", beside other labels")
    return worst < 1e-3 and labelled, "each batch's own features and labels", seen


def _varies(step: AugmentationStep) -> bool:
    """Whether a step makes several pictures of one that a batch holds many times.

    One that mixes a batch's pictures does not, nor does a flip that takes turns or is not allowed.
    """
    if isinstance(step, Flip):
        return step.mirror and not step.alternate and 0 < step.probability < 1
    return not step.mixes and not all(value == 0 for value in vars(step).values())
