"""The audit's checks on evaluation: exact, independent of batches, honest counting, true TTA."""

import torch
from torch import Tensor, nn

from common.audit.context import (
    BATCH,
    AuditContext,
    Seen,
    check,
    cross_entropy,
    largest_gap,
    margin,
    plain_logits,
)
from common.data import Batches, ImageSet
from common.evaluation import Predictions, Results, evaluate, predict
from common.models import FeatureBatches, StagedNetwork


def _predict(
    context: AuditContext, network: StagedNetwork, part: ImageSet, batch_size: int = BATCH
) -> Predictions:
    batches = Batches(part, network.weights, batch_size, context.runtime)
    return predict(network, FeatureBatches(batches, context.trunk(network)))


@check("two evaluations agree", "dropout or batch norm left in train mode while evaluating")
def evaluations_agree(context: AuditContext) -> Seen:
    network = context.network().train()
    first, second = (_predict(context, network, context.data.val) for _ in range(2))
    gap = largest_gap(first.logits, second.logits)
    return gap == 0, "equal logits", f"{gap:.1e} apart"


@check("no dependence on batch size or order", "batch statistics used in evaluation")
def batch_independent(context: AuditContext) -> Seen:
    network, part = context.network().train(), context.data.val
    whole = _predict(context, network, part)
    backwards = torch.arange(len(part)).flip(0)
    other = _predict(context, network, part.subset(backwards), batch_size=5).logits.flip(0)
    gap = largest_gap(other, whole.logits)
    return (
        gap < 1e-3,
        "the same logits, batches of 5, backwards",
        f"{gap:.1e} apart",
        margin(gap, 1e-3),
    )


@check("accuracy is total over total", "a mean of means, a wrong count, or other pictures")
def total_over_total(context: AuditContext) -> Seen:
    trainer = context.trainer()
    last = [m for m in trainer.network.head.modules() if isinstance(m, nn.Linear)][-1:]
    for layer in last:  # else losses are near chance, right or wrong
        layer.weight.data *= 20
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    step = trainer.step

    def spy(number: int, features: object, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, logits = step(number, features, targets)
        hard = targets.argmax(1) if targets.ndim == 2 else targets
        own = cross_entropy(logits, targets, trainer.config.train.label_smoothing)
        steps.append((logits.argmax(1) == hard, own.cpu().double(), loss.cpu().double()))
        return loss, logits

    trainer.step = spy
    entry = trainer.epoch(1)
    with trainer.ema.in_place():  # what val scores
        scored = {
            name: plain_logits(trainer.network, context.pictures(getattr(context.data, name)))
            for name in ("train", "val")
        }
    hits, losses = [hit.cpu().double() for hit, _, _ in steps], [loss for _, loss, _ in steps]
    sizes = torch.tensor([float(len(hit)) for hit in hits])
    own = {
        "train_accuracy": float(torch.cat(hits).mean()),
        "train_loss": sum(float(a) * float(b) for a, b in zip(losses, sizes, strict=True))
        / float(sizes.sum()),
        **_figures(scored["val"], context.data.val.labels),
    }
    gaps = {key: abs(entry[key] - value) / max(1.0, abs(value)) for key, value in own.items()}
    off = {key: value for key, value in own.items() if gaps[key] > 1e-3}
    usual = {  # what a wrong figure may be instead
        "the mean of the batches' means": {
            "train_accuracy": float(torch.stack([hit.mean() for hit in hits]).mean()),
            "train_loss": float(torch.stack(losses).mean()),
        },
        "that of train's pictures": _figures(scored["train"], context.data.train.labels),
    }
    causes = [
        f"{key} {entry[key]:.4f}, not {value:.4f}"
        + "".join(
            f" ({name})"
            for name, figures in usual.items()
            if abs(figures.get(key, -1) - entry[key]) < 1e-3
        )
        for key, value in off.items()
    ]
    if any(abs(float(a - b)) > 1e-3 * max(1.0, abs(float(a))) for _, a, b in steps):
        causes.append("the loss is not the cross-entropy of the step's logits")
    expected = ", ".join(f"{key} {value:.4f}" for key, value in own.items())
    gap = max(gaps.values())
    return not causes, expected, ", ".join(causes) or "the same", margin(gap, 1e-3)


def _figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy and loss of logits (N, C)."""
    hit = (logits.argmax(1) == labels).double().mean()
    loss = cross_entropy(logits.double(), labels)
    return {"val_accuracy": float(hit), "val_loss": float(loss)}


@check("a blind network learns nothing", "labels that leak into the input or the evaluation")
def blind_is_blind(context: AuditContext) -> Seen:
    part = context.data.val
    grey = torch.full_like(part.images, 128)
    blind = ImageSet(grey, torch.arange(len(part)), part.labels, part.classes)
    score = _predict(context, context.network(), blind).score()
    prior = int(part.labels.bincount().max()) / len(part)
    expected = f"no more than the largest class's share, {prior:.0%}, of grey pictures right"
    return score["accuracy"] <= prior + 1e-9, expected, f"{score['accuracy']:.0%}"


def evaluated(context: AuditContext) -> Results:
    """What `evaluate` makes of the network before it trains."""
    network = context.network()
    return evaluate(network, context.data, context.config, context.trunk(network))


@check("test is scored on test", "a report on other pictures, or in another order")
def scored_on_test(context: AuditContext) -> Seen:
    network, results = context.network(), context.once(evaluated)
    wrong, gaps = [], [0.0]
    for name in ("train", "val", "test"):
        part, own = getattr(context.data, name), getattr(results, name)
        own = results.test_single if name == "test" else own
        logits = plain_logits(network, context.pictures(part))
        same = len(own.labels) == len(part) and torch.equal(own.labels, part.labels)
        gaps.append(largest_gap(own.logits, logits) if same else 0.0)
        if not same or gaps[-1] > 1e-3:
            wrong.append(name)
    expected = "the logits of a plain pass over each split's own pictures"
    seen = f"others for {', '.join(wrong)}" if wrong else "the same"
    return not wrong, expected, seen, margin(max(gaps), 1e-3)


@check("test-time augmentation", "flipped upside down, or the passes not averaged")
def tta_averages(context: AuditContext) -> Seen:
    network, part = context.network(), context.data.test
    tta = context.config.test.tta
    tta = "shifts" if tta.startswith("flip") and not context.data.mirror else tta
    results = context.once(evaluated)
    passes = [part.images]
    if tta == "flip":
        passes.append(torch.from_numpy(part.images.numpy()[:, :, :, ::-1].copy()))
    if tta in ("shifts", "flip_shifts"):
        padded = torch.nn.functional.pad(part.images.float(), (1, 1, 1, 1), mode="reflect")
        height, width = part.size
        for top, left in ((0, 1), (2, 1), (1, 0), (1, 2)):
            passes.append(padded[:, :, top : top + height, left : left + width].to(torch.uint8))
    if tta == "flip_shifts":
        passes += [torch.from_numpy(x.numpy()[:, :, :, ::-1].copy()) for x in passes]
    logits = [plain_logits(network, context.prepare(images)) for images in passes]
    gap = largest_gap(results.test.logits, torch.stack(logits).mean(0))
    names = {"none": "a single pass", "flip": "the mean of the picture's and its mirror image's"}
    names = names.get(tta, "the mean of the picture's and its four one-pixel shifts'")
    return gap < 1e-3, f"{names} logits", f"{gap:.1e} off", margin(gap, 1e-3)
