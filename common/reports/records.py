"""Reports that others are set beside: refused, by file, where they are not as runs write them."""

import math
import re
from pathlib import Path

import numpy as np

from common.reports.pages import report_page
from common.reports.readers import NEEDED, line, read_history, read_json, read_metrics
from common.reports.store import learning_rates, read_run
from common.reports.table_of_runs import row_of
from common.reports.tables import benchmark
from common.utils.errors import UserError
from common.utils.files import read_npz

# what the pages show beside what the grader compares
SHOWN = NEEDED | {
    "weights.sha256": str | None,
    "commit": str | None,
    "frozen.before": str,
    "frozen.after": str,
    "parameters": int,
    "trained_parameters": int,
    "seconds": float,
    "command": str,
    "detail.recall": list,
    "detail.interval": list,
    "detail.seconds": dict,
}
SHOWN |= {f"data.{name}": int for name in ("classes", "train", "val", "test", "skipped")}
SHOWN |= {f"{name}.correct": int for name in ("train", "val")}
SHOWN |= {f"{name}.total": int for name in ("train", "val")}
SHOWN |= {f"{name}.accuracy": float for name in ("train", "val")}
SHOWN |= {
    f"detail.{name}": float for name in ("macro_f1", "ece", "ece_scaled", "temperature", "nll")
}
EPOCH = ("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
EPOCH += ("pictures_per_second",)

PAGES, MARK = ("README.md", "index.html"), b"The ladder on "
# what the pages fail with, given other figures than a run's
UNFIT = LookupError, TypeError, ValueError, AttributeError, ArithmeticError, UserError


def check_reports(reports: Path, replaced: str | None = None) -> None:
    """Read every report in a folder; of other folders' files, those that are no reports are let be.

    `replaced` is the name of a report that is to be written anew, and may be in any state.

    Raises:
        UserError: one that is damaged; or pages of somebody else's, which ours would replace.
    """
    for page in PAGES:
        file = reports / page
        ours = not file.exists() or file.is_file() and MARK in file.read_bytes()[:2000]
        if not ours:
            raise UserError(
                f"{file}: not a page that runs write, and they would replace it: name another "
                "folder with --reports, or move the file away"
            )
    for file in sorted(reports.glob("*/metrics.json")):
        ours = re.match(r"level\d+_", file.parent.name) or _is_report(file)
        if ours and file.parent.name != replaced:
            try:
                _check(file.parent)
            except UserError as error:
                if not file.exists():  # another run is writing it anew
                    continue
                hint = "run its level again, or move the folder away"
                raise UserError(f"{reports}: {error}; {hint}") from error


def _is_report(file: Path) -> bool:
    try:
        content = read_json(file)
    except UserError:
        return False
    return isinstance(content, dict) and content.get("schema") == 1 and "detail" in content


def _check(folder: Path) -> None:
    metrics = read_json(folder / "metrics.json")
    if isinstance(metrics, dict) and metrics.get("schema") == 1 and "detail" not in metrics:
        return  # from before gains had intervals: passed over
    metrics = read_metrics(folder, SHOWN)
    if wrong := _impossible(metrics):
        raise UserError(f"{folder.name}/metrics.json: '{wrong}' cannot be so")
    if (folder / "history.json").exists():
        history = read_history(folder)
        if not all(_finite(epoch.get(key)) for epoch in history for key in EPOCH):
            words = f"an epoch lacks one of {', '.join(EPOCH)}, or it is no number"
            raise UserError(f"{folder.name}/history.json: {words}")
    if (folder / "predictions.npz").exists():
        _check_predictions(folder, metrics["data"]["classes"], metrics["test"]["total"])
    _check_shown(folder, metrics)


def _check_shown(folder: Path, metrics: dict) -> None:
    """Raise UserError for what cannot be shown, which is known by trying."""
    try:
        row_of(metrics)
        benchmark(metrics)
        if run := read_run(folder):
            bare = run._replace(metrics=metrics | {"settings": {}})
            report_page(run, bare, [])  # all settings differ, so that all are shown
            learning_rates(run)
    except UNFIT as error:
        reason = f"{type(error).__name__}: {line(error)}"
        raise UserError(f"{folder.name}/metrics.json: cannot be shown ({reason})") from error


def _impossible(m: dict) -> str | None:
    """The first figure of a report's that cannot be, by its key."""
    floats = [key for key, kind in SHOWN.items() if kind is float]
    fine = {key: _finite(_at(m, key)) for key in floats}
    for part in ("train", "val", "test", "test_single"):
        fine[f"{part}.correct"] = 0 <= m[part]["correct"] <= m[part]["total"] > 0
    fine["detail.interval"] = _numbers(m["detail"]["interval"], 2)
    recall = m["detail"]["recall"]
    fine["detail.recall"] = _numbers([r for r in recall if r is not None])
    fine["detail.recall"] &= len(recall) == m["data"]["classes"]
    fine["detail.top5"] = m["detail"].get("top5") is None or _finite(m["detail"]["top5"])
    fine["trainable"] = all(isinstance(name, str) for name in m["trainable"])
    below = m.get("below", "missing")
    fine["below"] = below is None or isinstance(below, dict) and _is_gain(below)
    return next((key for key, good in fine.items() if not good), None)


def _is_gain(below: dict) -> bool:
    figures = [below.get(key) for key in ("gain", "p_value", "fixed", "broken")]
    words = [below.get(key) for key in ("level", "verdict")]
    named = all(isinstance(word, str) for word in words)
    return named and _numbers(figures) and _numbers(below.get("interval"), 2)


def _at(m: dict, key: str) -> object:
    for part in key.split("."):
        m = m[part]
    return m


def _finite(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _numbers(values: object, count: int | None = None) -> bool:
    """Whether these are finite numbers, so many of them."""
    listed = isinstance(values, list) and count in (None, len(values))
    return listed and all(map(_finite, values))


def _check_predictions(folder: Path, classes: int, count: int) -> None:
    file, arrays = f"{folder.name}/predictions.npz", read_npz(folder / "predictions.npz")
    shapes = {name: (count,) for name in ("labels", "predictions", "single")}
    shapes |= {"logits": (count, classes), "classes": (classes,)}
    for name, shape in shapes.items():
        values = arrays.get(name)
        if values is None and name in ("single", "logits"):  # a slim folder has no logits
            continue
        kind = {"logits": "f", "classes": "U"}.get(name, "i")
        fine = values is not None and values.shape == shape and values.dtype.kind == kind
        if not fine or kind == "i" and not ((values >= 0) & (values < classes)).all():
            found = "missing" if values is None else f"{values.dtype} {values.shape}"
            raise UserError(f"{file}: '{name}' is not {shape} of the {classes} classes: {found}")
    if not np.isfinite(arrays.get("logits", np.zeros(1))).all():
        raise UserError(f"{file}: 'logits' holds NaN or infinity")
