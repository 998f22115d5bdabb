"""What a run leaves for readers: its report, and the ladder page over all reports of a folder.

A report is a folder with `metrics.json`, `history.json`, `predictions.npz`, two pictures and
`report.md`. The ladder is made from such folders alone, without data or networks.
"""

import itertools
import json
import os
import re
import statistics
import tempfile
import urllib.parse
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from common import plots
from common.config import UserError
from common.markdown import aligned, duration, escape, listing, percent
from common.pages import facts, interval, ladder_page, report_page


def write_report(
    folder: Path,
    metrics: dict,
    history: list[dict],
    labels: np.ndarray,
    logits: np.ndarray,
    classes: Sequence[str],
) -> None:
    """Write a run's report; one that is there is replaced only once all of the new is made.

    Args:
        metrics: the run's figures, as they go into metrics.json.
        history: a dict an epoch: what `plots.training_curves` takes, and `lr`, `seconds`,
            `pictures_per_second`.
        labels: (N,) int, the test pictures' classes.
        logits: (N, C) float, what the network made of them; kept as float16.
        classes: C names.
    """
    labels, logits = np.asarray(labels, np.int64), np.asarray(logits)
    predictions = logits.argmax(1).astype(np.int64)
    texts = {
        "history.json": json.dumps(history, indent=2) + "\n",
        "report.md": report_page(metrics, history, labels, predictions, classes),
        "metrics.json": json.dumps(metrics, indent=2, ensure_ascii=False) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
        new = Path(new)
        np.savez_compressed(
            new / "predictions.npz",
            labels=labels,
            predictions=predictions,
            logits=logits.astype(np.float16),
            classes=np.array(classes, dtype=str),
        )
        curves = plots.training_curves(history, metrics["best_epoch"])
        curves.savefig(new / "training_curves.png")
        plots.confusion_matrix(labels, predictions, classes).savefig(new / "confusion_matrix.png")
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        # Without metrics.json it is no report: the old one goes first, the new one comes last.
        (folder / "metrics.json").unlink(missing_ok=True)
        for file in sorted(new.iterdir(), key=lambda file: file.name == "metrics.json"):
            os.replace(file, folder / file.name)


def read_metrics(reports: Path) -> list[dict]:
    """The metrics.json of every report in a folder, by level number, then config, then seed."""
    return [metrics for _, metrics in _find(reports)]


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
        The level below and the difference of the two test accuracies, a fraction; None where
        there is none, or where its data, split or test labels are others.
    """
    below = [
        (folder, m)
        for folder, m in _find(reports)
        if _number(m["level"]) < _number(level)
        and m["config"] in (config, "config")
        and m["seed"] == seed
    ]
    if not below:
        return None
    folder, other = max(
        below, key=lambda run: (_number(run[1]["level"]), run[1]["config"] == config)
    )
    if any(other["data"][key] != metrics["data"][key] for key in ("fingerprint", "split")):
        return None
    saved = _predictions(folder)
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if saved is None or not np.array_equal(labels, saved[0]):
        return None
    more = int((predictions == labels).sum()) - int((saved[1] == labels).sum())
    return {"level": other["level"], "gain": more / len(labels)}


def write_ladder(reports: Path) -> str:
    """Write the ladder of a folder of reports: README.md and ladder.png.

    Where runs differ in data, weights or size, their row says how.

    Returns:
        The ladder as plain text for a terminal; its last line is the README's path.

    Raises:
        UserError: the folder holds no report.
    """
    found = _find(reports)
    if not found:
        raise UserError(f"{reports}: no reports here; run a level first")
    own = [run for run in found if run[1]["config"] == "config"]
    given = facts((own or found)[0][1])
    groups = itertools.groupby(found, key=lambda run: (run[1]["level"], run[1]["config"]))
    rows = [_row(reports, list(runs), given) for _, runs in groups]
    ladder = [row for row in rows if row["config"] == "config"]
    others = [row for row in rows if row["config"] != "config"]

    shown = ladder or others
    for i, row in enumerate(shown):  # a gain over any other level than the one drawn before it
        if i and row["below"] and row["below"]["level"] == shown[i - 1]["level"]:
            row["gain"] = row["below"]["gain"]
    plots.ladder(shown).savefig(reports / "ladder.png")

    names = [name for name in rows[0]["cells"] if any(row["cells"][name] for row in rows)]
    runs = [metrics for _, metrics in found]
    page = ladder_page(
        names,
        {
            title: [[row["link"], *[row["cells"][name] for name in names[1:]]] for row in part]
            for title, part in (("", ladder), ("Other configs", others))
        },
        given,
        list(dict.fromkeys(metrics["command"] for metrics in runs)),
        list(dict.fromkeys(listing(metrics["machine"]) for metrics in runs)),
    )
    readme = reports / "README.md"
    readme.write_text(page, encoding="utf-8")
    text = aligned(names, [[row["cells"][name] for name in names] for row in ladder + others])
    return f"{text}\n{readme}"


def _row(reports: Path, runs: list[tuple[Path, dict]], given: dict[str, str]) -> dict:
    """A level's line of the ladder, from its runs with one config: the lowest seed's figures."""
    folder, m = runs[0]
    low, high = interval(m["test"])
    below = _gain_now(reports, folder, m)
    notes = [] if m["seed"] == 0 else [f"seed {m['seed']}"]
    for key, value in itertools.chain.from_iterable(facts(run).items() for _, run in runs):
        notes += [f"other {key}: {value[:20]}"] if value != given[key] else []
    if (m["below"] or {}).get("gain") != (below or {}).get("gain"):
        notes.append("the level below has changed since this run")
    accuracies = [100 * run["test"]["accuracy"] for _, run in runs]
    several = ""
    if len(runs) > 1:
        mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
        several = f"{mean:.1f} ± {deviation:.1f} % ({len(runs)})"
    name = m["level"] if m["config"] == "config" else f"{m['level']}-{m['config']}"
    return {
        "level": m["level"],
        "config": m["config"],
        "accuracy": m["test"]["accuracy"],
        "low": low,
        "high": high,
        "below": below,
        "link": Markup(f"[{escape(name)}]({urllib.parse.quote(folder.name)}/report.md)"),
        "cells": {
            "level": name,
            "test accuracy": percent(m["test"]["accuracy"]),
            "95 % interval": f"{100 * low:.1f} to {100 * high:.1f}",
            "gain, points": _over(below) if below else "",
            "mean ± sd (seeds)": several,
            "trained": ", ".join(m["trainable"]),
            "epochs": f"{m['epochs']} (best {m['best_epoch']})",
            "time": duration(m["seconds"]),
            "note": "; ".join(dict.fromkeys(notes)),
        },
    }


def _over(below: dict) -> str:
    """ "+2.1 over level1": levels are told apart by what stands before the first underscore."""
    return f"{plots.points(below['gain'])} over {below['level'].split('_')[0]}"


def _gain_now(reports: Path, folder: Path, m: dict) -> dict | None:
    """The gain over the level below as its report is now, which may be newer than this run's."""
    saved = _predictions(folder)
    return gain_over_below(reports, *_identity(m), m, *saved) if saved else m["below"]


def _predictions(folder: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels and predictions of a report, (N,) int64 each; None where the file is no such thing."""
    try:
        with np.load(folder / "predictions.npz", allow_pickle=False) as saved:
            return saved["labels"], saved["predictions"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _number(level: str) -> int:
    """3 of "level3_fusion"; -1 for what is no level's name."""
    match = re.fullmatch(r"level(\d+)_.+", level)
    return int(match[1]) if match else -1


def _find(reports: Path) -> list[tuple[Path, dict]]:
    """Folder and metrics of every report, in the ladder's order; what is none is passed over."""
    found = []
    for file in reports.glob("*/metrics.json"):
        try:
            metrics = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        ours = isinstance(metrics, dict) and metrics.get("schema") == 1
        if ours and _number(metrics["level"]) >= 0:
            found.append((file.parent, metrics))
    return sorted(found, key=lambda run: (_number(run[1]["level"]), _identity(run[1])))


def _identity(m: dict) -> tuple[str, str, int]:
    return m["level"], m["config"], m["seed"]
