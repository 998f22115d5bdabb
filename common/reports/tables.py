"""The tables of a run's report, and what every report shares: figures as plain text."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import confusion_matrix

from common.evaluation.statistics import BINS, wilson_interval
from common.reports.markdown import duration, listing, percent, points


class Table(NamedTuple):
    """A header and rows of cells, all plain text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Run(NamedTuple):
    """A report, read again.

    Attributes:
        metrics: metrics.json; history: history.json.
        labels, predictions: (N,) int, of the test pictures; classes: C names.
    """

    metrics: dict
    history: list[dict]
    labels: np.ndarray
    predictions: np.ndarray
    classes: Sequence[str]


def facts(m: dict) -> dict[str, str]:
    """What reports of one ladder should share."""
    return {
        "data": m["data"]["title"],
        "fingerprint": m["data"]["fingerprint"],
        "split": m["data"]["split"],
        "weights": m["weights"]["name"],
        "weights' SHA-256": m["weights"]["sha256"] or "none",
        "image size": f"{m['image_size']} px",
    }


def benchmark(m: dict) -> float | None:
    """The accuracy, a fraction, that the run's own config holds such a run to; None: nothing."""
    own = m["data"]["title"], m["weights"]["name"], m["image_size"]
    for row in m["settings"].get("benchmarks") or []:
        if (row["data"], row["weights"], row["image_size"]) == own:
            return row["accuracy"] / 100
    return None


def gain_text(gain: dict) -> str:
    """A gain with its interval in percentage points: "+2.1 (+1.3 to +2.9)"."""
    low, high = map(points, gain["interval"])
    return f"{points(gain['gain'])} ({low} to {high})"


def results(m: dict) -> Table:
    rows = []
    for name in ("train", "val", "test", "test_single"):
        part = m[name]
        low, high = wilson_interval(part["correct"], part["total"])
        seen = f"{part['correct']:,} of {part['total']:,}"
        ends = f"{100 * low:.1f} to {100 * high:.1f}"
        rows.append([name, percent(part["accuracy"]), ends, seen, f"{part['loss']:.4f}"])
    return Table(["on", "accuracy", "95 % interval", "right", "loss"], rows)


def detail(d: dict) -> Table:
    """What else is said of the test score; the temperature comes from val."""
    rows = [
        ["macro F1", f"{d['macro_f1']:.4f}", ""],
        *([["top-5 accuracy", percent(d["top5"]), ""]] if d["top5"] is not None else []),
        ["negative log-likelihood", f"{d['nll']:.4f}", f"{d['nll_scaled']:.4f}"],
        [f"expected calibration error ({BINS} bins)", f"{d['ece']:.4f}", f"{d['ece_scaled']:.4f}"],
    ]
    scaled = f"at temperature {d['temperature']:.2f}, fitted on val"
    return Table(["on test", "as it is", scaled], rows)


def network(stages: list[dict]) -> Table:
    """The stages and the head, as `summary.network_rows` gives them, and all together."""
    rows = []
    for stage in stages:
        total, trained = stage["parameters"], stage["trained_parameters"]
        some = "trains" if trained == total else f"{trained:,} parameters train"
        cells = [stage["name"], " × ".join(map(str, stage["output"]))]
        cells += [f"{total:,}", f"{stage['multiply_adds']:,}"]
        rows.append([*cells, some if stage["trains"] else "frozen"])
    sums = [f"{sum(row[key] for row in stages):,}" for key in ("parameters", "multiply_adds")]
    rows.append(["all", "", *sums, f"{sum(row['trained_parameters'] for row in stages):,} train"])
    header = ["stage", "output", "parameters", "multiply-adds a picture", "what trains"]
    return Table(header, rows)


def epochs(history: list[dict], best_epoch: int) -> Table:
    header = ["epoch", "rate", "train loss", "train accuracy", "val loss", "val accuracy", "time"]
    rows = []
    for epoch in history:
        chosen = " (chosen)" if epoch["epoch"] == best_epoch else ""
        row = [f"{epoch['epoch']}{chosen}", f"{epoch['lr']:g}"]
        for part in ("train", "val"):
            row += [f"{epoch[f'{part}_loss']:.4f}", percent(epoch[f"{part}_accuracy"])]
        row.append(f"{duration(epoch['seconds'])} ({epoch['pictures_per_second']:,.0f} pictures/s)")
        rows.append(row)
    return Table(header, rows)


def recall(run: Run) -> list[list[str]]:
    """A row a class that has test pictures, the worst first."""
    classes = run.classes
    counts = confusion_matrix(run.labels, run.predictions, labels=range(len(classes)))
    totals, right = counts.sum(1), counts.diagonal()
    wrong = counts - np.diag(right)
    rows = []
    for i in np.argsort(right / totals.clip(1), kind="stable"):
        j = wrong[i].argmax()
        mistake = f"{classes[j]} ({wrong[i, j]})" if wrong[i, j] else ""
        if totals[i]:
            rows.append([classes[i], str(totals[i]), percent(right[i] / totals[i]), mistake])
    return rows


def provenance(m: dict) -> Table:
    data = m["data"]
    counts = f"{data['train']:,} train, {data['val']:,} val, {data['test']:,} test"
    rows = [
        ["commit", m["commit"] or "unknown"],
        *(list(fact) for fact in facts(m).items()),
        ["pictures", f"{counts}; {data['classes']} classes"],
        ["seed", str(m["seed"])],
        ["config", m["config"]],
        ["time", duration(m["seconds"])],
        ["machine", listing(m["machine"])],
        ["versions", listing(m["versions"])],
    ]
    return Table(["what", "value"], rows)
