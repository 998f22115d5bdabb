"""Made-up runs for the tests of reports, and what reads a report back."""

import contextlib
import json
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from common.evaluation.statistics import wilson_interval
from common.reports import ladder, page
from common.reports.schema import Run
from common.reports.store import Reports as Found
from common.reports.store import write_report
from helpers.processes import undrawn

NASTY = ["a|b", "tick`s", "<b>bold</b>", "two\nlines", "*star*", "$x$", "_under_", "back\\slash"]


def score(correct, total, loss=0.5):
    return {"correct": correct, "total": total, "accuracy": correct / total, "loss": loss}


def made_up(
    level="level1_first",
    right=80,
    seed=0,
    config="config",
    n=100,
    tta="none",
    single=None,
    skip=0,
):
    """A run that has `right` of `n` test pictures right, those after the first `skip`.

    In a single pass it has the first `single` right, or the same ones where that is None.
    Returns what `write` takes after the folder.
    """
    place = np.arange(n)
    labels = place % 10
    wrong = (labels + 1) % 10
    predictions = np.where((place >= skip) & (place < skip + right), labels, wrong)
    alone = right if single is None else single
    single = predictions if single is None else np.where(place < single, labels, wrong)
    logits = np.eye(10, dtype=np.float32)[predictions] * 3
    data = {"name": "digits", "title": "Made | up", "fingerprint": "f" * 64, "split": "5" * 64}
    metrics = {
        "schema": 1,
        "level": level,
        "config": config,
        "seed": seed,
        "data": data | {"classes": 10, "train": 400, "val": 100, "test": n, "skipped": 0},
        "weights": {"name": "tiny", "sha256": "a" * 64},
        "image_size": 64,
        "trainable": ["layer4", "head"],
        "parameters": 11_000_000,
        "trained_parameters": 8_000_000,
        "epochs": 3,
        "best_epoch": 2,
        "train": score(390, 400, 0.1),
        "val": score(85, 100, 0.4),
        "test": score(right, n, 0.4321),
        "test_single": score(alone, n, 0.4321 if alone == right else 0.45),
        "tta": tta,
        "frozen": {"before": "c" * 64, "after": "c" * 64},
        "below": None,
        "detail": {
            "interval": list(wilson_interval(right, n)),
            "macro_f1": 0.7912,
            "recall": [0.8] * 10,
            "top5": None,
            "nll": 0.4321,
            "ece": 0.0512,
            "temperature": 1.375,
            "nll_scaled": 0.4012,
            "ece_scaled": 0.0213,
            "seconds": {"test": 2.04, "test_single": 1.02},
        },
        "seconds": 200.4,
        "command": f"python {level}/run.py --seed {seed}",
        "commit": None,
        "machine": {"cpu": "Some CPU", "cores": 2, "memory_gib": 7.8, "gpu": None},
        "versions": {"torch": "2.11"},
        "settings": {"data": {"name": "digits"}, "seed": seed},
    }
    history = [
        {
            "epoch": i + 1,
            "lr": 1e-4,
            "train_loss": 1 / (i + 1),
            "train_accuracy": 0.7 + 0.1 * i,
            "val_loss": 0.6,
            "val_accuracy": [0.8, 0.85, 0.83][i],
            "seconds": 61.0,
            "pictures_per_second": 1234.5,
        }
        for i in range(3)
    ]
    classes = [f"class {i}" for i in range(10)]
    return metrics, history, labels, logits, single, classes, pictures()


def pictures(count=11, side=4):
    """Pictures of one grey each, uint8 (count, 3, side, side), and labels that go round."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.uint8(20)
    return images.repeat(3, 1).repeat(side, 2).repeat(side, 3), np.arange(count) % 10


def leave(reports, name=None, change=None, draws=False, **about):
    """Write a made-up run's report as a level does, drawn or not; returns its metrics."""
    metrics, history, labels, logits, *rest = made_up(**about)
    metrics = change(metrics) if change else metrics
    run = metrics["level"], metrics["config"], metrics["seed"]
    folder = reports / (name or "-".join(map(str, run)))
    made = run_of(folder, metrics, history, labels, logits, *rest[:-1])
    metrics["below"] = Found.read(reports).gain(made)
    with contextlib.nullcontext() if draws else undrawn():
        write(folder, metrics, history, labels, logits, *rest)
    return metrics


def run_of(folder, metrics, history, labels, logits, single, classes):
    """A made-up run."""
    arrays = {"labels": labels, "predictions": logits.argmax(1), "single": single}
    return Run(folder, metrics, history, **arrays, logits=logits, classes=classes)


def write(folder, *made):
    """Write a made-up run's report; what it says it is compared with is looked for beside it."""
    run = run_of(folder, *made[:-1])
    below = Found.read(folder.parent).below(run) if run.metrics["below"] else None
    write_report(run, below, made[-1])


def write_ladder(folder):
    """The ladder of a folder of reports, as a command writes it; its text."""
    reports = Found.read(folder)
    reports.check()
    return ladder.write_ladder(reports, ladder.read_ladder(reports))


def build_page(folder, **how):
    """The page of a folder of reports, as a command writes it; its path."""
    return page.build_page(Found.read(folder), **how)[1]


def own_runs(folder):
    """The levels' own runs."""
    return page.own_runs(Found.read(folder))


def tables(text):
    """Every Markdown table as a list of rows of unescaped cells, the header first."""
    blocks = re.findall(r"(?:^\|.*\|\n?)+", text, re.M)
    return [
        [
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for i, line in enumerate(block.strip().splitlines())
            if i != 1
        ]
        for block in blocks
    ]


def titled_tables(text):
    """The tables under each second-level heading, rows as dicts; "" is what stands before any."""
    parts = re.split(r"^## (.+)\n", text, flags=re.M)
    found = zip(["", *parts[1::2]], parts[::2], strict=True)
    return {
        title: [
            dict(zip(header, row, strict=True)) for header, *rows in tables(part) for row in rows
        ]
        for title, part in found
    }


def draw(figure):
    """Draw, so that positions are final; returns the canvas's renderer."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


class Reports:
    """A folder of reports, read again."""

    def __init__(self, folder):
        self.folder = folder

    def metrics(self, name):
        return json.loads((self.folder / name / "metrics.json").read_text(encoding="utf-8"))

    def history(self, name):
        return json.loads((self.folder / name / "history.json").read_text(encoding="utf-8"))

    def predictions(self, name):
        with np.load(self.folder / name / "predictions.npz", allow_pickle=False) as saved:
            return dict(saved)

    def rows(self):
        """The ladder's rows: cells by level."""
        text = (self.folder / "README.md").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if re.match(r"\| \[?level\d", line)]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return {re.search(r"level\d\w*", row[0])[0]: row for row in rows}

    def check_gain(self, name, below):
        """The gain over the level below is the difference of the two test accuracies."""
        own, other = self.metrics(name), self.metrics(below)
        suffix = re.compile(r"-seed\d+$")
        assert own["below"]["level"] == suffix.sub("", below)
        difference = own["test"]["correct"] - other["test"]["correct"]
        assert own["below"]["gain"] == difference / own["test"]["total"]
        assert own["test"]["accuracy"] - other["test"]["accuracy"] == pytest.approx(
            own["below"]["gain"], abs=1e-12
        )


def cells(figure):
    """A sheet of pictures: their pixels, what stands above and below each, and the rows' names."""
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.texts if text.get_rotation()]
    said = [text.get_text() for text in axes.texts if not text.get_rotation()]
    return [shown.get_array() for shown in axes.images], said[::2], said[1::2], names
