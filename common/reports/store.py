"""What a run leaves for readers: a folder with its figures, predictions, pictures and `report.md`.

Reports are found again, and compared with each other, from these files alone.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from common.evaluation.statistics import compare
from common.reports.figures.album import ALBUM
from common.reports.pages import report_page
from common.reports.readers import read_json
from common.reports.tables import Run
from common.training.schedules import build_schedule
from common.utils.errors import UserError
from common.utils.files import read_npz

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLOAT16 = 65504.0  # the largest float16


def write_report(
    folder: Path,
    metrics: dict,
    history: list[dict],
    labels: np.ndarray,
    logits: np.ndarray,
    single: np.ndarray,
    classes: Sequence[str],
    examples: tuple[np.ndarray, np.ndarray],
) -> None:
    """Write a run's report; one that is there is replaced only once all of the new is made.

    Args:
        metrics: the run's figures, as they go into metrics.json.
        history: a dict an epoch: what `plots.training_curves` takes, and `lr`, `seconds`,
            `pictures_per_second`.
        labels: (N,) int, the test pictures' classes.
        logits: (N, C) float, what the network made of them; kept as float16.
        single: (N,) int, what it took them for in a single pass, without test-time augmentation.
        classes: C names.
        examples: some training pictures, uint8 (n, 3, H, W), and their classes, (n,) int.
    """
    from common.reports.figures import galleries, plots

    labels, logits = np.asarray(labels, np.int64), np.asarray(logits)
    run = Run(metrics, history, labels, logits.argmax(1).astype(np.int64), classes)
    below = read_below(folder.parent, run)
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".new-*"):  # of a run that was killed while it wrote
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
        new = Path(new)
        np.savez_compressed(
            new / "predictions.npz",
            labels=labels,
            predictions=run.predictions,
            single=np.asarray(single, np.int64),
            logits=logits.clip(-FLOAT16, FLOAT16).astype(np.float16),
            classes=np.array(classes, dtype=str),
        )
        pictures = draw(run, logits, below)
        pictures["contact_sheet"] = galleries.contact_sheet(*examples, classes)
        for name, figure in pictures.items():
            plots.save(figure, new / f"{name}.png")
        texts = {
            "history.json": json.dumps(history, indent=2) + "\n",
            "report.md": report_page(run, below, list(pictures)),
            "metrics.json": json.dumps(metrics, indent=2, ensure_ascii=False) + "\n",
        }
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        # Without metrics.json it is no report: the old one goes first, the new one comes last.
        (folder / "metrics.json").unlink(missing_ok=True)
        for name in ALBUM:  # pictures of the old run that this one has not
            (folder / f"{name}.png").unlink(missing_ok=True)
        for file in sorted(new.iterdir(), key=lambda file: file.name == "metrics.json"):
            os.replace(file, folder / file.name)


def draw(run: Run, logits: np.ndarray, below: Run | None) -> dict[str, "Figure"]:
    """The pictures of `ALBUM` that a run's figures are enough for.

    Args:
        logits: (N, C) float, of the test pictures.
        below: the run of the level below, where it is compared with it.
    """
    from common.reports.figures import diagnostics, plots

    m = run.metrics
    pictures = {
        "training_curves": plots.training_curves(run.history, m["best_epoch"]),
        "confusion_matrix": plots.confusion_matrix(run.labels, run.predictions, run.classes),
        "reliability": diagnostics.reliability(
            softmax(np.asarray(logits, np.float64), 1), run.labels
        ),
    }
    rates, steps = learning_rates(run)
    if steps:
        pictures["learning_rate"] = diagnostics.rates(rates, steps)
    if below:
        pictures["class_gains"] = diagnostics.class_gains(
            *(run.labels, below.predictions, run.predictions),
            *(run.classes, below.metrics["level"]),
        )
    return pictures


def learning_rates(run: Run) -> tuple[np.ndarray, int]:
    """The head's learning rate at each step of the epochs that were run, and the steps of one.

    Where the settings do not say, no rates and 0.
    """
    train, rates = run.metrics["settings"].get("train"), []
    if not train:
        return np.zeros(0), 0
    steps = -(-run.metrics["data"]["train"] // train["batch_size"])
    schedule = build_schedule(train["schedule"], steps * train["epochs"])
    for epoch in range(len(run.history)):
        schedule.see(run.history[:epoch])
        rates += [train["lr"] * schedule(epoch * steps + step) for step in range(steps)]
    return np.array(rates), steps


def read_run(folder: Path) -> Run | None:
    """A report, read again; None where a file is missing or broken."""
    try:
        texts = [read_json(folder / f"{name}.json") for name in ("metrics", "history")]
        saved = read_npz(folder / "predictions.npz")
        arrays = [saved["labels"], saved["predictions"], saved["classes"].tolist()]
        return Run(*texts, *arrays)
    except (KeyError, UserError):
        return None


def read_logits(folder: Path) -> np.ndarray | None:
    """The test pictures' logits of a report, float (N, C); None where there are none."""
    try:
        return read_npz(folder / "predictions.npz")["logits"].astype(np.float32)
    except (KeyError, UserError):
        return None


def read_below(reports: Path, run: Run) -> Run | None:
    """The run that a run's gain is measured against, as its report is now, on these pictures."""
    found = below_folder(reports, *identity(run.metrics)) if run.metrics["below"] else None
    below = read_run(found[0]) if found else None
    return below if below and np.array_equal(below.labels, run.labels) else None


def gain_over_below(
    reports: Path,
    level: str,
    config: str,
    seed: int,
    metrics: dict,
    labels: np.ndarray,
    predictions: np.ndarray,
) -> dict | None:
    """What a run gained over the level below it: the next lower number with a report of this seed.

    The level below is represented by its config of the same name, else by its own ("config").

    Args:
        metrics: of the run; its `data` is read.
        labels, predictions: (N,) int, of the run's test pictures.

    Returns:
        `level`, the level below, and what `statistics.compare` says of the two; None where there
        is no level below, or where its data, split or test labels are others.
    """
    found = below_folder(reports, level, config, seed)
    if not found:
        return None
    folder, other = found
    if any(other["data"][key] != metrics["data"][key] for key in ("fingerprint", "split")):
        return None
    saved = read_predictions(folder)
    if saved is None or not np.array_equal(labels, saved["labels"]):
        return None
    return {"level": other["level"], **compare(labels, saved["predictions"], predictions)}


def below_folder(reports: Path, level: str, config: str, seed: int) -> tuple[Path, dict] | None:
    """Folder and metrics of the report that a run is compared with."""
    below = [
        (folder, m)
        for folder, m in find_reports(reports)
        if level_number(m["level"]) < level_number(level)
        and m["config"] in (config, "config")
        and m["seed"] == seed
    ]
    return max(
        below,
        key=lambda run: (level_number(run[1]["level"]), run[1]["config"] == config),
        default=None,
    )


def read_predictions(folder: Path) -> dict[str, np.ndarray] | None:
    """`labels`, `predictions` and `single` of a report, int64 (N,); None where there are none."""
    try:
        saved = read_npz(folder / "predictions.npz")
        return {name: saved[name] for name in ("labels", "predictions", "single")}
    except (KeyError, UserError):
        return None


def level_number(level: str) -> int:
    """3 of "level3_fusion"; -1 for what is no level's name."""
    match = re.fullmatch(r"level(\d+)_.+", level)
    return int(match[1]) if match else -1


def find_reports(reports: Path) -> list[tuple[Path, dict]]:
    """Folder and metrics of every report, in the ladder's order; what is none is passed over."""
    found = []
    for file in reports.glob("*/metrics.json"):
        try:
            metrics = read_json(file)
        except UserError:
            continue
        ours = isinstance(metrics, dict) and metrics.get("schema") == 1
        ours = ours and "detail" in metrics  # it is missing before gains had intervals
        named = ours and all(isinstance(metrics.get(k), t) for k, t in IDENTITY.items())
        if named and level_number(metrics["level"]) >= 0:
            found.append((file.parent, metrics))
    return sorted(found, key=lambda run: (level_number(run[1]["level"]), identity(run[1])))


IDENTITY = {"level": str, "config": str, "seed": int}


def identity(m: dict) -> tuple[str, str, int]:
    return m["level"], m["config"], m["seed"]
