"""The audit's checks on what reaches the network."""

import dataclasses
from unittest.mock import patch

import torch
from scipy import stats
from torch import Tensor, nn

from common.audit import feed
from common.audit.context import (
    BATCH,
    COUNTS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    SIZE,
    AuditContext,
    Seen,
    check,
    largest_gap,
    margin,
)
from common.config.registry import named_step
from common.data import Batches, ImageSet, build_augmentation, duplicates
from common.data.augment.steps import Flip
from common.models import trunk

UNLIKELY = 1e-4  # how improbable it must be that labels are right to be called wrong
READ = 2**28  # bytes of each split's pictures that are compared


@check(
    "pixels normalised",
    "pixels left at 0..255, or not scaled by the mean and std of the weights' own pictures",
)
def pixels_normalised(context: AuditContext) -> Seen:
    trainer = context.trainer()
    weights, part = trainer.network.weights, context.data.val
    gaps, (low, high) = [], (0.0, 0.0)
    for size in sorted({SIZE, *part.size, 3 * SIZE // 2}):  # smaller, as it is stored, larger
        batches = Batches(part, dataclasses.replace(weights, image_size=size), 8, context.runtime)
        batches = trainer.val.batches if size == SIZE else batches
        images = torch.cat([images for images, _ in batches.epoch()])
        gaps.append(largest_gap(images, context.prepare(part.images, size)))
        low, high = min(low, float(images.min())), max(high, float(images.max()))
    right = weights.mean == IMAGENET_MEAN and weights.std == IMAGENET_STD
    expected = f"RGB in [0, 1] less {IMAGENET_MEAN}, by {IMAGENET_STD}, of any size"
    seen = f"{weights.mean}, {weights.std}; values {low:.1f} to {high:.1f}"
    gap = max(gaps)
    return right and gap < 1e-3, expected, f"{seen}, {gap:.0e} off torchvision's", margin(gap, 1e-3)


@check(
    "pictures and labels belong together",
    "labels shifted, sorted or shuffled apart from their pictures",
)
def labels_belong(context: AuditContext) -> Seen:
    images, labels = context.once(feed.plain).epoch(1)
    own = context.prepare(context.once(feed.numbered).train.images).cpu()
    wrong, total = int((~_alike(images, own[labels])).sum()), len(labels)
    images, labels = context.once(feed.augmented).epoch(1)
    nearest = _nearest(images, own)
    near = int((nearest == labels).sum())  # by chance, one of 44
    usual = _usually_nearest(context, own)  # of heavy steps it is little
    by_chance = stats.binom.cdf(near, total, usual / 3)
    for part in (context.whole.train, context.whole.val, context.whole.test):
        for name, label in zip(part.names or [], part.labels.tolist(), strict=False):
            wrong += name.split("/")[1] != part.classes[label]
    seen = f"{wrong} of {total} without; augmented, {near} most like their own"
    right = wrong == 0 and by_chance >= UNLIKELY
    return right, "each picture with its own label", seen, 3 * near / max(usual * total, 1e-9)


def _usually_nearest(context: AuditContext, own: Tensor) -> float:
    """How often a picture is most like its own, by the augmentation's steps called alone."""
    steps, draws = build_augmentation(feed.unmixed(context), context.data.mirror), torch.Generator()
    pictures, draws = context.once(feed.numbered).train.images, draws.manual_seed(0)
    found = []
    for _ in range(5 if steps else 1):
        changed = steps(pictures.clone(), draws) if steps else pictures
        changed = context.prepare(changed.round().to(torch.uint8)).cpu()
        found.append(_nearest(changed, own) == torch.arange(len(own)))
    return float(torch.cat(found).float().mean())


def _nearest(images: Tensor, others: Tensor) -> Tensor:
    """For each picture the place of the other which it, or its mirror image, is most like."""
    sides = [
        (images[:, None] - side[None]).square().mean((2, 3, 4)) for side in (others, others.flip(3))
    ]
    return torch.minimum(*sides).argmin(1)


@check("splits disjoint", "val or test pictures that are in train too: a copy, or a wrong split")
def splits_disjoint(context: AuditContext) -> Seen:
    data = context.whole
    rows = [set(part.rows.tolist()) for part in (data.train, data.val, data.test)]
    shared = len(rows[0] & rows[1]) + len(rows[0] & rows[2]) + len(rows[1] & rows[2])
    train, val, test = (_some(part) for part in (data.train, data.val, data.test))
    copies = duplicates.exact_copies(val, [train]) + duplicates.exact_copies(test, [train])
    share, dropped = len(copies) / (len(val) + len(test)), context.config.data.drop_copies
    few = not copies if dropped else share < 0.01
    most = "none of train's copied in" if dropped else "copies of train's below 1 % of"
    expected = f"no picture in two splits, and {most} val and test"
    seen = f"{shared} shared, {share:.2%} copies"
    names = duplicates.listed(copies)
    seen += f": {names}" if names else ""
    seen += f"; {duplicates.WAY_ON}" if copies and not dropped else ""
    return shared == 0 and few, expected, seen, None, bool(copies)


def _some(part: ImageSet) -> ImageSet:
    """The part, or as many of its first pictures as can be read in a moment."""
    most = READ // part.source[0].nbytes
    return part if len(part) <= most else part.subset(torch.arange(most))


@check("val has train's classes", "a split that is not stratified, or sorted data cut in two")
def classes_shared(context: AuditContext) -> Seen:
    train, val = (
        part.labels.bincount(minlength=len(part.classes))
        for part in (context.whole.train, context.whole.val)
    )
    if context.whole.dropped:  # after the split
        train = train + context.whole.dropped.labels.bincount(minlength=len(train))
    share = val.sum() / (train + val).sum()
    off = float((val - share * (train + val)).abs().max())
    expected = f"{float(share):.0%} of each class in val, to 1.5 pictures"
    return off < 1.5, expected, f"{off:.1f} pictures off at most", margin(off, 1.5)


@check("each split where it belongs", "evaluation on the training set, or training on val or test")
def splits_used(context: AuditContext) -> Seen:
    data, record, wrong = context.once(feed.numbered), context.once(feed.augmented), []
    strangers = [int((record.epoch(n)[1] >= len(data.train)).sum()) for n in (1, 2)]
    if sum(strangers):
        wrong.append(f"{sum(strangers)} pictures of val or test trained on")
    own = context.prepare(data.val.images).cpu()
    for number, images in enumerate(record.evaluated, 1):
        if len(images) != len(own) or largest_gap(images, own) > 1e-2:
            wrong.append(f"epoch {number} scored on others than val's, or on changed ones")
    expected = "train's pictures to train on, val's as they are to choose with"
    return not wrong, expected, ", ".join(wrong) or "the same"


def _alike(images: Tensor, others: Tensor) -> Tensor:
    """Which of the pictures are those in the same places of the others: bool (N,)."""
    return (images - others).abs().amax((1, 2, 3)) < 1e-2


@check("train is shuffled", "a loader without shuffle, or one order drawn once for all epochs")
def train_shuffled(context: AuditContext) -> Seen:
    record = context.once(feed.augmented)
    orders = [record.epoch(number)[1] for number in (1, 2)]
    stored = torch.arange(COUNTS["train"])
    once = all(torch.equal(order.sort().values, stored) for order in orders)
    if not once:
        return False, "each picture once an epoch", "some left out, or shown twice"
    sizes = [len(step.targets) for step in record.steps if step.epoch == 1]
    if sizes != [len(batch) for batch in stored.split(BATCH)]:
        return False, f"batches of {BATCH}, the last of what is left", f"of {sizes}"
    kept = [float((order == stored).float().mean()) for order in orders]
    same = float((orders[0] == orders[1]).float().mean())
    fellows = [order.argsort() // BATCH for order in orders]  # the batch that each picture is in
    pairs = [batch[:, None] == batch[None] for batch in fellows]
    together = float((pairs[0] & pairs[1]).sum() - len(stored)) / float(pairs[0].sum())
    seen = f"{kept[0]:.0%} and {kept[1]:.0%} in their stored place, {same:.0%} in the same place"
    seen += f", {together:.0%} of batch fellows met again"
    worst = max(*kept, same, together)
    expected = "each picture once an epoch, in another order and company each epoch"
    return worst < 0.75, expected, seen, margin(worst, 0.75)


@check("another seed, other draws", "a seed that is written down, and not what is drawn by")
def seeds_differ(context: AuditContext) -> Seen:
    picture, found = context.once(feed.numbered).train.images[0], []
    alike = feed.copies(context, picture, COUNTS["train"])  # so that order makes no difference
    trainers = [context.trainer(alike, seed=context.config.seed + more) for more in (0, 1)]
    batches = [trainer.train.batches for trainer in trainers]
    if torch.equal(*(torch.cat(b.order(1)) for b in batches)):
        found.append("order")
    views = [torch.cat([images for images, _ in b.epoch(1)]) for b in batches]
    if context.once(_often) and _alike(*views).all():
        found.append("augmentation")
    features, targets = next(trainers[0].train.epoch(0))
    logits = [trainer.step(0, features, targets)[1] for trainer in trainers]
    drops = any(
        module.training and module.p >= 0.01  # of less, nothing may be dropped
        for module in trainers[0].network.modules()
        if isinstance(module, nn.modules.dropout._DropoutNd)
    )
    if drops and torch.equal(*logits):
        found.append("dropout")
    expected = "other orders, augmentation and dropout with another seed"
    return not found, expected, f"the same {', '.join(found)}" if found else "others"


@check(
    "augmentation on train only",
    "one draw for a whole batch, augmentation never called, or val given train's transform",
)
def augmentation_on_train(context: AuditContext) -> Seen:
    record, wrong = context.once(feed.copied), []
    steps = build_augmentation(feed.unmixed(context), context.data.mirror)
    often = context.once(_often)
    mirrors = any(
        isinstance(s, Flip) and s.mirror and (s.alternate or s.probability)
        for s in (steps.steps if steps else ())
    )
    picture = context.prepare(context.once(feed.numbered).train.images[:1]).cpu()
    if any(largest_gap(images, picture) > 1e-2 for images in record.evaluated):
        wrong.append("val is changed, too")
    batches = [step.images for step in record.steps]
    sides = [picture, picture.flip(3)] if mirrors else [picture]
    views = context.config.train.views
    if often:
        if all(_alike(images, images[:1]).all() for images in batches):
            wrong.append("all of a batch alike")
        full = [images for images in batches if len(images) == BATCH]
        pairs = [(a, b) for place, a in enumerate(full) for b in full[:place]]
        again = sum(bool(_alike(a, b).all()) for a, b in pairs)
        if again > 1 and views != 1:  # one may be chance
            wrong.append(f"{again} pairs of steps with the same draws")
    elif steps is None or all(isinstance(step, Flip) for step in steps.steps):
        rows = torch.cat(batches)[:, None]
        if any(min(largest_gap(row, side) for side in sides) > 1e-2 for row in rows):
            wrong.append("changed without a step that does")
    trainer = context.trainer()
    next(iter(trainer.train.epoch(1)))
    if any(trainer.train.held.values()) and context.config.augment and not views:
        wrong.append("one view kept for all epochs")
    expected = "draws of each picture's and each step's own" if often else "pictures as they are"
    return not wrong, f"{expected}, val as it is", ", ".join(wrong) or "the same"


@check(
    "views differ, and come again",
    "one view for all epochs, a mirror image that never comes, or views drawn anew",
)
def views_in_turn(context: AuditContext) -> Seen:
    views = context.config.train.views and min(context.config.train.views, 3)
    numbered = context.once(feed.numbered)
    batches = context.trainer(numbered, views=views, epochs=2 * (views or 1)).train.batches
    if batches.transform is None:
        return True, "no augmentation", "none"
    first, second = (_by_place(batches, epoch) for epoch in (1, 2))
    own, wrong = context.prepare(numbered.train.images).to(first.device), []
    often = context.once(_often)
    if often and views != 1 and _alike(first, second).all():
        wrong.append("epoch 2 shows what epoch 1 did")
    if often and any(_alike(images, own).all() for images in (first, second)):
        wrong.append("an epoch shows the pictures as they are")
    for epoch in range(views + 1, 2 * views + 1) if views else ():
        if not _alike(_by_place(batches, epoch), _by_place(batches, epoch - views)).all():
            wrong.append(f"epoch {epoch} does not show what epoch {epoch - views} did")
    turns = [s for s in batches.transform.steps if isinstance(s, Flip) and s.alternate and s.mirror]
    if turns:
        alone = [s for s in context.config.augment if named_step(s)[1].get("alternate") is True]
        batches = context.trainer(numbered, alone, views=None).train.batches
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
def kept_as_seen(context: AuditContext) -> Seen:
    views = context.config.train.views and min(context.config.train.views, 3)
    trainer = context.trainer(views=views, epochs=2 * (views or 1))  # so that all are kept
    network, worst, labelled = trainer.network, 0.0, True
    every = len(network.prefix) == len(network.stages)  # frozen: the head reads the taps alone
    with patch.object(trunk, "GROUP", (5, 2**19)):  # a batch goes through in several groups
        for epoch in range(1, (views or 1) + 2):
            pairs = zip(trainer.train.epoch(epoch), trainer.train.batches.epoch(epoch), strict=True)
            for (features, labels), (images, targets) in pairs:
                with torch.no_grad():
                    own = network.forward_prefix(images)
                labelled = labelled and torch.equal(labels, targets)
                parts = [(features.taps[name], own.taps[name]) for name in features.taps]
                parts += [] if every else [(features.x, own.x)]
                worst = max(worst, *(largest_gap(a, b) for a, b in parts), 0.0)
    seen = f"{worst:.0e} off" + ("" if labelled else ", beside other labels")
    expected = "what the frozen stages make of each batch by themselves, and its labels"
    return worst < 1e-3 and labelled, expected, seen, margin(worst, 1e-3)


def _often(context: AuditContext) -> bool:
    """Whether the run's steps, called by themselves for a picture many times, make so many others
    of it that two batches of the same are no chance. Mixing two copies makes none.
    """
    steps = build_augmentation(feed.unmixed(context), context.data.mirror)
    if steps is None:
        return False
    picture, draws = context.once(feed.numbered).train.images[:1], torch.Generator().manual_seed(0)
    made = torch.cat([steps(picture.clone(), draws).float() for _ in range(120)])
    unlike = (made[::2] - made[1::2]).abs().amax((1, 2, 3)) > 2
    return float(unlike.float().mean()) > 0.35
