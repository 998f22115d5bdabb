"""The grader's checks: what a submission claims against what was recomputed from its files.

Each check compares figures and gives a `Finding`; common/examination.py goes through them.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.config import Benchmark, LevelConfig, NetworkConfig
from common.config.schema import comparable, flat
from common.data import Splits, duplicates
from common.data.cifar import KINDS, TITLES
from common.evaluation import Predictions
from common.grade.submission import Submission
from common.models import Weights, build_backbone
from common.models.weights import NAMED
from common.runtime import Runtime, provenance
from common.training.checkpoint import read_checkpoint
from common.utils.paths import run_name

LENIENCE = 0.002  # share of the predictions that may differ on another machine or version


@dataclass(frozen=True)
class Finding:
    """One check's outcome; `passed` is None where it could not be run."""

    check: str
    passed: bool | None
    expected: str
    seen: str

    @property
    def outcome(self) -> str:
        return {True: "passed", False: "failed", None: "not run"}[self.passed]


def check_settings(submission: Submission, whose: str) -> Finding:
    """The checkpoint was made with the settings, and in the epoch, that the report tells."""
    content, metrics = submission.checkpoint, submission.metrics
    own, other = comparable(metrics["settings"]), comparable(content["settings"])
    wrong = [
        f"{key} {other.get(key)} instead of {own.get(key)}"
        for key in sorted(own.keys() | other.keys(), key=lambda key: (key == "benchmarks", key))
        if own.get(key) != other.get(key)
    ]
    if content["epoch"] != metrics["best_epoch"]:
        wrong.append(f"epoch {content['epoch']} instead of {metrics['best_epoch']}")
    seen = "the same" if not wrong else "another run's: " + ", ".join(wrong[:4])
    seen = f"{whose}'s checkpoint: {seen}" if whose else seen
    expected = "a checkpoint made with the report's settings"
    return Finding("checkpoint is this run's", not wrong and not whose, expected, seen)


def check_data(submission: Submission, data: Splits) -> list[Finding]:
    """Pictures and split, by what this checkout reads."""
    claimed, content = submission.metrics["data"], submission.checkpoint
    wrong = []
    for who, said in (("the report", claimed), ("the checkpoint", content)):
        if said["fingerprint"] != data.fingerprint:
            wrong.append(f"{said['fingerprint'][:12]}... in {who}")
    counts = {"train": len(data.train), "val": len(data.val), "test": len(data.test)}
    counts |= {"classes": len(data.classes), "skipped": data.skipped}
    for key, count in counts.items():
        if claimed.get(key, count) != count:
            wrong.append(f"{claimed[key]} {key} in the report instead of {count}")
    expected = f"{data.title}, fingerprint {data.fingerprint[:12]}..."
    pictures = Finding("data", not wrong, expected, ", ".join(wrong) or "the same")
    wrong = [
        f"{said['split'][:12]}... in {who}"
        for who, said in (("the report", claimed), ("the checkpoint", content))
        if said["split"] != data.split
    ]
    expected = f"split {data.split[:12]}..."
    return [pictures, Finding("split", not wrong, expected, ", ".join(wrong) or "the same")]


def check_duplicates(data: Splits) -> Finding:
    """No test picture is among those that were trained on or chosen with."""
    rows = torch.cat([data.train.rows, data.val.rows])
    shared = int(torch.isin(data.test.rows, rows).sum())
    exact = duplicates.exact_copies(data.test, [data.train, data.val])
    near = duplicates.near_copies(data.test, [data.train, data.val])
    published = data.name in KINDS or data.name == "digits"  # checked archives are as they are
    seen = f"{exact} exact copies, {near} of {len(data.test)} look much like one (counted only)"
    passed = not shared and (published or not exact)
    return Finding("test pictures not in train", passed, "no exact copy", seen)


def same_machine(metrics: dict, runtime: Runtime) -> bool:
    """Whether equal predictions are due: the device, precision and versions of the run.

    Several processes, which divide the batches, round otherwise than the grader's one.
    """
    here = provenance(runtime)
    keys = {"machine": ("device", "cpu", "gpu", "precision", "threads")}
    keys["versions"] = ("torch", "torchvision", "numpy", "arithmetic")
    alone = metrics["machine"].get("processes", 1) == 1
    same = (metrics[g].get(key) == here[g][key] for g, names in keys.items() for key in names)
    return alone and all(same)


def check_predictions(
    saved: dict[str, np.ndarray], test: Predictions, single: Predictions, same: bool
) -> Finding:
    """predictions.npz is what the checkpoint makes of the test pictures."""
    labels, total = test.labels.numpy(), len(test.labels)
    logits = test.logits.numpy()
    allowed = 0 if same else math.floor(LENIENCE * total)
    expected = f"the checkpoint's predictions, {allowed} of {total} different at most"
    if saved["logits"].shape != logits.shape or not np.array_equal(saved["labels"], labels):
        return Finding("predictions.npz", False, expected, "other labels than the test set's")
    differ = int((saved["predictions"] != test.classes.numpy()).sum())
    gap = float(np.abs(saved["logits"].astype(np.float32) - logits).max() / np.abs(logits).max())
    close = not same or gap <= 2e-3  # twice float16's rounding
    seen = f"{differ} of {total} differ, logits by {gap:.1e} of the largest"
    chosen = saved["predictions"].clip(0, logits.shape[1] - 1)
    torn = int((saved["logits"][np.arange(total), chosen] < saved["logits"].max(1)).sum())
    seen += f"; {torn} are not their own logits' class" if torn else ""
    alone = saved.get("single", single.classes.numpy())
    moved = int((alone != single.classes.numpy()).sum()) if len(alone) == total else total
    seen += f"; {moved} differ in a single pass" if moved else ""
    fine = max(differ, moved) <= allowed and close and not torn
    return Finding("predictions.npz", fine, expected, seen)


def check_metrics(
    submission: Submission, config: LevelConfig, facts: dict[str, Any], scores: dict, same: bool
) -> Finding:
    """metrics.json's test figures are the recomputed ones, and it is about this run.

    Args:
        facts: dotted key -> what must stand there.
        scores: `test` and `test_single`, recomputed, and `detail`, of which figures that
            metrics.json lacks are passed over.
    """
    metrics, wrong = submission.metrics, []
    facts = facts | {"level": submission.level, "seed": config.seed}
    for key, value in facts.items():
        said = flat(metrics).get(key)
        if said != value and not (key == "trainable" and set(map(str, said)) == set(value)):
            wrong.append(f"{key} {said} instead of {value}")
    name = run_name(metrics["level"], metrics["config"], metrics["seed"])
    if name != submission.report.name:
        wrong.append(f"a report of {name} in {submission.report.name}")
    detail = metrics.get("detail")
    for key, value in scores["detail"].items() if same and isinstance(detail, dict) else ():
        if key in detail and not equal(detail[key], value, 1e-4):
            wrong.append(f"detail.{key} {str(detail[key])[:60]} instead of {str(value)[:60]}")
    for part in ("test", "test_single"):
        score = scores[part]
        said, total = metrics[part], score["total"]
        allowed = 0 if same else math.floor(LENIENCE * total)
        near = abs(said["correct"] - score["correct"]) <= allowed and said["total"] == total
        if not near or said["accuracy"] != said["correct"] / total:
            figures = f"{said['correct']} of {said['total']} ({said['accuracy']:.4f})"
            wrong.append(f"{part} {figures} instead of {score['correct']} of {total}")
        elif not math.isclose(said["loss"], score["loss"], rel_tol=1e-4 if same else 0.05):
            wrong.append(f"{part} loss {said['loss']:.6f} instead of {score['loss']:.6f}")
    expected = f"test {scores['test']['correct']} of {scores['test']['total']} right"
    near = "the same within 0.2 % (another machine or version)"
    seen = ", ".join(wrong) or ("the same" if same else near)
    return Finding("metrics.json", not wrong, expected, seen)


def equal(claimed: object, found: object, tolerance: float) -> bool:
    """Whether a figure, a list of figures or a text is the recomputed one."""
    if found is None or isinstance(found, str):
        return claimed == found
    try:
        pair = np.asarray(claimed, float), np.asarray(found, float)
    except (ValueError, TypeError):
        return False
    return pair[0].shape == pair[1].shape and np.allclose(*pair, 0, tolerance, equal_nan=True)


def check_history(submission: Submission) -> Finding:
    """The epoch that was tested is the one that history.json says was best on val."""
    metrics, values = submission.metrics, [e["val_accuracy"] for e in submission.history]
    best, expected = values.index(max(values)) + 1, "the tested epoch is the best of history.json"
    said = (metrics["epochs"], metrics["best_epoch"], metrics["val"]["accuracy"])
    seen = f"epoch {said[1]} of {said[0]} with val {said[2]:.4f}"
    seen += f"; history.json: epoch {best} of {len(values)} with {max(values):.4f}"
    # val is scored anew after training, where rounding may move a picture
    close = said[:2] == (len(values), best) and abs(said[2] - max(values)) <= LENIENCE
    return Finding("history.json", close, expected, seen)


def find_bar(rows: list[Benchmark], metrics: dict, config: LevelConfig) -> tuple[float | None, str]:
    """The benchmark in percent that applies, and where none does, why."""
    title, weights, size = (
        metrics["data"]["title"],
        metrics["weights"]["name"],
        metrics["image_size"],
    )
    if config.data.limit is not None:
        return None, f"data.limit {config.data.limit}: only part of the pictures"
    known = {title: name for name, title in TITLES.items()} | {"digits": "digits"}
    if known.get(title, config.data.name) != config.data.name:
        return None, f"pictures called {title} that are {config.data.name}"
    if weights in NAMED and weights != config.network.weights:
        return None, f"weights called {weights} that are {config.network.weights}"
    for row in rows:
        if (row.data, row.weights, row.image_size) == (title, weights, size):
            return row.accuracy, ""
    return None, f"no row for {title}, {weights}, {size} px"


def check_weights(submission: Submission, weights: Weights) -> Finding:
    """The starting weights' file is the one that the run says it started from."""
    said = {"the report": submission.metrics["weights"].get("sha256")}
    said["the checkpoint"] = submission.checkpoint.get("weights")
    wrong = [f"{str(h)[:12]}... in {who}" for who, h in said.items() if h != weights.sha256]
    expected = f"{weights.name}, SHA-256 {str(weights.sha256)[:12]}..."
    return Finding("starting weights", not wrong, expected, ", ".join(wrong) or "the same")


def check_frozen(submission: Submission, config: LevelConfig) -> Finding:
    """What the run says it froze is, to the last bit, what it started from."""
    weights = config.network.weights
    start = [] if weights == "none" else [_pretrained(config.network)]
    missing = ""
    if level := config.network.start_from:
        folder = submission.checkpoint_path.parent.parent
        path = folder / run_name(level, "config", config.seed) / "best.pt"
        try:
            start.append(read_checkpoint(path)["network"])
        except Exception:  # its own level's checks say what is wrong with it
            missing = f" ({level}'s checkpoint is missing or unreadable)"
    state = submission.checkpoint["network"]
    frozen = [key for key in state if _part(key) not in config.network.trainable]
    known = [key for key in frozen if any(key in tensors for tensors in start)]
    changed = [k for k in known if not any(_same(state[k], tensors.get(k)) for tensors in start)]
    expected = "frozen tensors as in the starting weights"
    if weights == "none" and not config.network.start_from:
        return Finding("frozen parts", True, expected, "they started at random: not compared")
    stages = sorted({_part(key) for key in changed})
    seen = f"{len(changed)} of {len(known)} changed"
    seen += f", in {', '.join(stages)}{missing}" if changed else ""
    unknown = len(frozen) - len(known)
    seen += f"; {unknown} not in those weights" if unknown else ""
    return Finding("frozen parts", not changed, expected, seen)


def _pretrained(config: NetworkConfig) -> dict[str, Tensor]:
    stages = build_backbone(config).stages
    return {
        f"stages.{name}.{key}": value
        for name, stage in stages.items()
        for key, value in stage.state_dict().items()
    }


def _part(key: str) -> str:
    parts = key.split(".")
    return parts[1] if parts[0] == "stages" and len(parts) > 1 else parts[0]


def _same(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and tensor.dtype == other.dtype and torch.equal(tensor, other)
