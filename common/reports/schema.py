"""What a report's files hold, and the one check of it: what has passed can be compared and shown.

A run writes metrics.json, history.json and predictions.npz. A stranger may have written them, so
kinds and ranges are as narrow as pages need them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from common.config.yaml_files import shown
from common.utils.errors import UserError
from common.utils.files import read_json, read_npz

CLASSES = 10_000  # at most: what pages show of classes grows with their square
NAME = 255  # characters of a class's name, at most: as many as a folder's name may have


@dataclass(frozen=True)
class Kind:
    """What a value may be, and how that is said after "must be"."""

    words: str
    holds: Callable[[Any], bool]


def _number(low: float, high: float, whole: bool = False) -> Kind:
    words = f"a {'whole ' if whole else ''}number from {low:g} to {high:g}"
    types = (int,) if whole else (int, float)
    return Kind(words, lambda value: type(value) in types and low <= value <= high)


def _is_step(value: object) -> bool:
    if isinstance(value, dict) and len(value) == 1:
        return all(part is None or isinstance(part, dict) for part in value.values())
    return isinstance(value, str)


TEXT = Kind("a text", lambda value: isinstance(value, str))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
STEP = Kind("a name, or one with its parameters", _is_step)
COUNT, SOME = _number(0, 10**12, whole=True), _number(1, 10**12, whole=True)
OPERATIONS = _number(0, 10**18, whole=True)
NUMBER, POSITIVE = _number(-1e100, 1e100), _number(0, 1e100)  # pictures of larger ones overflow
SHARE = _number(0, 1)
INTERVAL = Kind(
    "two numbers",
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(NUMBER.holds, value)),
)
VERDICT = Kind("gain, loss or not shown", lambda value: value in ("gain", "loss", "not shown"))


def _each(kind: object, *names: str) -> dict[str, object]:
    return dict.fromkeys(names, kind)


# Key -> kind. A key with ? may be missing; a list is one of such, a tuple of this kind or None.
SCORE = {"correct": COUNT, "total": SOME, "accuracy": SHARE, "loss": NUMBER}
GAIN = {
    **_each(COUNT, "fixed", "broken"),
    **_each(NUMBER, "gain", "p_value"),
    "level": TEXT,
    "interval": INTERVAL,
    "verdict": VERDICT,
}
DETAIL = {
    **_each(NUMBER, "macro_f1", "nll", "ece", "nll_scaled", "ece_scaled"),
    "interval": INTERVAL,
    "recall": [(NUMBER, None)],
    "temperature": POSITIVE,
    "top5": (NUMBER, None),
    "seconds": _each(POSITIVE, "test", "test_single"),
}
STAGE = {
    **_each(COUNT, "parameters", "trained_parameters"),
    "name": TEXT,
    "output": [COUNT],
    "trains": FLAG,
    "multiply_adds": OPERATIONS,
}
SETTINGS = {  # what pages show of a run's options; a report by hand may lack any
    "network?": {
        "arch": STEP,
        "trainable": [TEXT],
        "taps": ([TEXT], None),
        "start_from": (TEXT, None),
    },
    "train?": {
        **_each(POSITIVE, "lr", "weight_decay"),
        "head_lr?": (POSITIVE, None),
        "epochs": COUNT,
        "batch_size": SOME,
        "label_smoothing": NUMBER,
        "optimizer": TEXT,
        "schedule": STEP,
    },
    "augment?": [STEP],
    "benchmarks?": [{"data": TEXT, "weights": TEXT, "image_size": COUNT, "accuracy": NUMBER}],
}
METRICS = {
    **_each(TEXT, "level", "config", "tta", "command"),
    **_each(COUNT, "image_size", "parameters", "trained_parameters", "epochs"),
    **_each(SCORE, "train", "val", "test", "test_single"),
    **_each({}, "machine", "versions"),
    "seed": _number(0, 2**63, whole=True),
    "data": {
        **_each(TEXT, "title", "fingerprint", "split"),
        **_each(COUNT, "train", "val", "test", "skipped"),
        **_each(COUNT, "left_out?", "dropped?"),  # not in earlier reports
        "classes": _number(1, CLASSES, whole=True),
    },
    "weights": {"name": TEXT, "sha256": (TEXT, None)},
    "adapted?": COUNT,  # not in earlier reports, either
    "start?": (TEXT, None),
    "started_from?": (TEXT, None),  # by its folder's name
    "place?": TEXT,  # the folder of runs
    "trainable": [TEXT],
    "network?": [STAGE],  # not in earlier reports
    "best_epoch": SOME,
    "frozen": _each(TEXT, "before", "after"),
    "below": (GAIN, None),
    "detail": DETAIL,
    "seconds": POSITIVE,
    "commit": (TEXT, None),
    "settings": SETTINGS,
}
EPOCH = {
    "epoch": SOME,
    **_each(POSITIVE, "lr", "seconds", "pictures_per_second"),
    **_each(NUMBER, "train_loss", "val_loss"),
    **_each(SHARE, "train_accuracy", "val_accuracy"),
}
ARRAYS = {"labels": "i", "predictions": "i", "single": "i", "logits": "f", "classes": "U"}


@dataclass(frozen=True, eq=False)
class Run:
    """A run's report.

    Attributes:
        folder: where it lies.
        metrics, history: as their files have them; no epochs where history.json is missing.
        labels, predictions, single: int (N,), the test pictures' classes, what the network took
            them for, and what in a single pass; None where that was not kept.
        logits: float (N, C), or None.
        classes: C names.
    """

    folder: Path
    metrics: dict
    history: list[dict]
    labels: np.ndarray | None = None
    predictions: np.ndarray | None = None
    single: np.ndarray | None = None
    logits: np.ndarray | None = None
    classes: list[str] = field(default_factory=list)

    @property
    def level(self) -> str:
        return self.metrics["level"]

    @property
    def config(self) -> str:
        return self.metrics["config"]

    @property
    def seed(self) -> int:
        return self.metrics["seed"]

    @property
    def number(self) -> int:
        """3 of level3_fusion."""
        return int(re.match(r"level(\d+)", self.level)[1])

    @property
    def label(self) -> str:
        """Its level, and its config where that is not the level's own."""
        return self.level if self.config == "config" else f"{self.level}-{self.config}"

    @property
    def probabilities(self) -> np.ndarray:
        """What the logits say, float64 (N, C)."""
        return softmax(self.logits.astype(np.float64), 1)


def read_run(folder: Path, metrics: object) -> Run:
    """A report, of which metrics.json is read but not checked.

    history.json and predictions.npz may be missing, as may the arrays `single` and `logits`.

    Raises:
        UserError: a file that is damaged, or that lacks something.
    """
    metrics = _checked(metrics, f"{folder.name}/metrics.json")
    history = read_history(folder) if (folder / "history.json").exists() else []
    if not (folder / "predictions.npz").exists():
        return Run(folder, metrics, history)
    arrays = read_arrays(folder, needed=("labels", "predictions", "classes"))
    kept = {name: arrays.get(name) for name in ("labels", "predictions", "single", "logits")}
    run = Run(folder, metrics, history, **kept, classes=arrays["classes"].tolist())
    said = metrics["test"]["total"], metrics["data"]["classes"]
    if (len(run.labels), len(run.classes)) != said:
        words = f"is not ({said[0]},) of the {said[1]} classes of metrics.json: {run.labels.shape}"
        raise UserError(f"{folder.name}/predictions.npz: 'labels' {words}")
    return run


def read_metrics(report: Path) -> dict:
    """A report's metrics.json.

    Raises:
        UserError: there is none, it is damaged, or it is not as `METRICS` says.
    """
    return _checked(read_json(report / "metrics.json"), f"{report.name}/metrics.json")


def _checked(m: Any, place: str) -> dict:
    """Metrics, if they are."""
    if not isinstance(m, dict) or m.get("schema") != 1:
        raise UserError(f"{place}: not a report of schema 1")
    _check(m, METRICS, place)
    parts = "train", "val", "test", "test_single"
    fine = {f"{part}.correct": m[part]["correct"] <= m[part]["total"] for part in parts}
    fine["level"] = bool(re.fullmatch(r"level\d{1,9}_\w+", m["level"]))
    fine["config"] = m["config"].isprintable() and "/" not in m["config"]
    fine["best_epoch"] = m["best_epoch"] <= m["epochs"]
    fine["detail.recall"] = len(m["detail"]["recall"]) == m["data"]["classes"]
    if wrong := [key for key, good in fine.items() if not good]:
        raise UserError(f"{place}: '{wrong[0]}' cannot be so")
    return m


def read_history(report: Path) -> list[dict]:
    """A report's history.json: the epochs in turn, one at least.

    Raises:
        UserError: there is none, it is damaged, or it is not so.
    """
    history, place = read_json(report / "history.json"), f"{report.name}/history.json"
    if not isinstance(history, list) or not history:
        raise UserError(f"{place}: not a list of epochs")
    _check(history, [EPOCH], place)
    if [epoch["epoch"] for epoch in history] != list(range(1, len(history) + 1)):
        raise UserError(f"{place}: its epochs are not 1, 2, 3 ...")
    return history


def read_arrays(
    report: Path, needed: tuple[str, ...] = ("labels", "predictions", "logits", "classes")
) -> dict[str, np.ndarray]:
    """The arrays of a report's predictions.npz: those of `ARRAYS`, of which some are `needed`.

    Raises:
        UserError: there is none, it is damaged, or its arrays do not go together.
    """
    place, saved = f"{report.name}/predictions.npz", read_npz(report / "predictions.npz")
    if missing := [name for name in needed if name not in saved]:
        raise UserError(f"{place}: '{missing[0]}' is missing")
    arrays = {name: saved[name] for name in ARRAYS if name in saved}
    count, classes = arrays["labels"].size, arrays["classes"].size
    for name, values in arrays.items():
        shape = {"logits": (count, classes), "classes": (classes,)}.get(name, (count,))
        fine = values.dtype.kind == ARRAYS[name] and values.shape == shape
        if not fine or ARRAYS[name] == "i" and not ((values >= 0) & (values < classes)).all():
            found = f"{values.dtype} {values.shape}"
            raise UserError(f"{place}: '{name}' is not {shape} of the {classes} classes: {found}")
    if not np.isfinite(arrays.get("logits", np.zeros(1))).all():
        raise UserError(f"{place}: 'logits' holds NaN or infinity")
    if classes > CLASSES or arrays["classes"].dtype.itemsize > 4 * NAME:
        raise UserError(f"{place}: more than {CLASSES} 'classes', or {NAME} characters of a name")
    return arrays


def _check(value: object, kind: object, place: str, key: str = "") -> None:
    """Raise UserError where a value, which stands at this key of a file, is not of a kind."""
    if isinstance(kind, tuple):
        if value is None:
            return
        kind = kind[0]
    if isinstance(kind, Kind):
        fine, words = kind.holds(value), kind.words
    elif isinstance(kind, list):
        fine, words = isinstance(value, list), "a list"
    else:
        fine, words = isinstance(value, dict), "a mapping"
    if not fine:
        raise UserError(f"{place}: '{key.removesuffix('.')}' must be {words}, not {shown(value)}")
    if isinstance(kind, list):
        for i, part in enumerate(value):
            _check(part, kind[0], place, f"{key}{i}.")
    elif isinstance(kind, dict):
        known = {name.rstrip("?"): own for name, own in kind.items()}
        if missing := [name for name in known if name in kind and name not in value]:
            raise UserError(f"{place}: '{key}{missing[0]}' is missing")
        for name in known:
            if name in value:
                _check(value[name], known[name], place, f"{key}{name}.")
