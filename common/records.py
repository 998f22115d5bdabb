"""Reports that others are set beside: refused, by file, where they are not as runs write them."""

import re
from pathlib import Path

import numpy as np

from common.arrays import read_npz
from common.config import UserError
from common.readers import NEEDED, read_history, read_json, read_metrics

# what the pages show beside what the grader compares
SHOWN = NEEDED | {
    "weights": dict,
    "parameters": int,
    "trained_parameters": int,
    "frozen": dict,
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
SHOWN |= {f"detail.{name}": float for name in ("macro_f1", "ece", "temperature", "nll")}
EPOCH = ("epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")


def check_reports(reports: Path, replaced: str | None = None) -> None:
    """Read every report in a folder; of other folders' files, those that are no reports are let be.

    `replaced` is the name of a report that is to be written anew, and may be in any state.

    Raises:
        UserError: one that is damaged.
    """
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
    if (folder / "history.json").exists():
        history = read_history(folder)
        numbers = all(isinstance(e.get(k), int | float) for e in history for k in EPOCH)
        if not numbers:
            raise UserError(f"{folder.name}/history.json: an epoch lacks one of {', '.join(EPOCH)}")
    if (folder / "predictions.npz").exists():
        _check_predictions(folder, metrics["data"]["classes"])


def _check_predictions(folder: Path, classes: int) -> None:
    file, arrays = f"{folder.name}/predictions.npz", read_npz(folder / "predictions.npz")
    count = len(arrays["labels"]) if arrays.get("labels", np.array(0)).ndim else -1
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
