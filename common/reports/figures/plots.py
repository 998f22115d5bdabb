"""Charts of a level and of the ladder, from plain arrays: arrays in, a matplotlib Figure out."""

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from sklearn import metrics

from common.reports.figures.style import BLUE, FAINT, GREY, INK, STYLE, VERMILLION, broken
from common.reports.text import points

NUMBERED_CLASSES = 20  # up to here the confusion matrix has room for numbers in its cells
SHARES = (0, 1, 5, 10, 20, 40, 60, 80, 100)  # percent, where its next colour begins
DEPTHS = np.linspace(0.2, 1, len(SHARES) - 1)  # of its colours, so that rare confusions are seen
ON_DARK = 60  # percent: from here on, numbers are white on both grounds
NAMED_CLASSES = 25  # from here on it names every second, third ... class


@matplotlib.rc_context(STYLE)
def training_curves(history: list[dict], best_epoch: int) -> Figure:
    """Loss and accuracy by epoch, for train and val, the chosen epoch marked.

    Args:
        history: a dict an epoch with `epoch` (from 1), `train_loss`, `val_loss`,
            `train_accuracy` and `val_accuracy` (fractions; drawn in percent).
        best_epoch: the epoch that was kept, from 1.
    """
    figure = Figure(figsize=(8, 3.4))
    epochs = [row["epoch"] for row in history]
    size = 5 if len(epochs) <= 12 else 3
    panels = (("loss", "Loss", 1), ("accuracy", "Accuracy (%)", 100))
    for axes, (key, title, scale) in zip(figure.subplots(1, 2), panels, strict=True):
        label = f"chosen: epoch {best_epoch}"
        axes.axvline(best_epoch, color=GREY, linestyle=":", linewidth=1.4, label=label)
        for part, color, line in (("train", BLUE, "o-"), ("val", VERMILLION, "s--")):
            values = [scale * row[f"{part}_{key}"] for row in history]
            axes.plot(epochs, values, line, color=color, label=part, markersize=size)
        axes.set(title=title, xlabel="epoch", xlim=(min(epochs) - 0.5, max(epochs) + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles[1:] + handles[:1], names[1:] + names[:1], loc="outside upper center", ncols=3
    )
    return figure


@matplotlib.rc_context(STYLE)
def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]) -> Figure:
    """Of each true class (row) the percentage that was taken for each class (column).

    More than 20 classes have colours alone, and stand in an order that puts those beside each other
    that are confused.

    Args:
        labels: (N,) int, the truth; an index into `classes`.
        predictions: (N,) int.
        classes: C names, drawn whole: long ones are wrapped and the figure grows with them.
    """
    count = len(classes)
    counts = metrics.confusion_matrix(labels, predictions, labels=range(count))
    if count > NUMBERED_CLASSES:
        order = similar_first(counts)
        counts, classes = counts[np.ix_(order, order)], [classes[i] for i in order]
    percent = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    every = math.ceil(count / NAMED_CLASSES)
    names = [textwrap.fill(name, 32) or "(no name)" for name in classes]
    longest = max(len(line) for name in names[::every] for line in name.splitlines())
    lines = max(name.count("\n") + 1 for name in names)
    # in inches
    cell = max(0.35 if every == 1 else 7.5 / count, 0.16 * lines / every, 2.4 / count)
    side = cell * count + 0.085 * longest + 0.3
    figure = Figure(figsize=(side, side + (0.2 if count <= NUMBERED_CLASSES else 0.8)))
    axes = figure.subplots()
    axes.set(xlim=(0, count), ylim=(count, 0), aspect="equal")
    axes.spines[:].set(visible=True, color=FAINT)
    gap = 0.03 if every == 1 else 0.0
    for (low, high), depth in zip(pairwise(SHARES), DEPTHS, strict=True):
        cells = _squares(*np.nonzero((low < percent) & (percent <= high)), gap)
        shade = {"facecolor": (BLUE, depth), "linewidth": 0}
        axes.add_patch(
            PathPatch(cells, label=f"to {high} %" if low else f"under {high} %", **shade)
        )
    if count <= NUMBERED_CLASSES:
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = percent[row, column]
            axes.text(
                column + 0.5, row + 0.5, f"{share:.0f}" if share > 0.5 else "<1",
                color="white" if share > ON_DARK else INK, fontsize=9,
                ha="center", va="center_baseline",
            )  # fmt: skip
        axes.set_title("% of each true class; blank: never", fontsize=10, weight="normal")
    else:
        figure.legend(loc="outside lower center", ncols=4, fontsize=9, handlelength=1.2)
        axes.set_title("Of each true class; no colour: never", fontsize=10, weight="normal")
    ticks = np.arange(0, count, every)
    axes.set_xticks(ticks + 0.5, names[::every], rotation=90, fontsize=9)
    axes.set_yticks(ticks + 0.5, names[::every], rotation=0, fontsize=9)
    named = f" (1 of {every} named)" if every > 1 else ""
    axes.set_xlabel(f"predicted class{named}", labelpad=8)
    axes.set_ylabel(f"true class{named}", labelpad=8)
    return figure


def _squares(rows: np.ndarray, columns: np.ndarray, gap: float) -> Path:
    """Cells of a table, `gap` less on every side, as one path: a file of thousands stays small."""
    corners = np.array([(gap, gap), (1 - gap, gap), (1 - gap, 1 - gap), (gap, 1 - gap), (gap, gap)])
    places = np.stack([columns, rows], 1)[:, None] + corners
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(places.reshape(-1, 2), codes * len(places))


def similar_first(counts: np.ndarray) -> np.ndarray:
    """An order (C,) of classes that puts those beside each other that are taken for each other.

    Leaves of an average-linkage tree over shared confusions, in optimal order (Bar-Joseph et al.,
    2001).

    Args:
        counts: (C, C) int, a confusion matrix.
    """
    share = counts / counts.sum(1, keepdims=True).clip(1)
    apart = 1 - (share + share.T) / 2
    np.fill_diagonal(apart, 0)
    condensed = squareform(apart, checks=False)
    return leaves_list(linkage(condensed, "average", optimal_ordering=True))


@matplotlib.rc_context(STYLE)
def ladder(rows: list[dict]) -> Figure:
    """Accuracy by level, each with its interval; between two levels what the upper one gained.

    Args:
        rows: a dict a level, from the lowest: `level` (its name), `accuracy`, `low` and `high`
            (fractions; the interval's ends), `gain` (a fraction over the row before; None or
            absent: not comparable, nothing is written) and with it `verdict`: only a "gain" or a
            "loss" is in bold. `benchmark`: a fraction that is asked for, None or absent where
            nothing is.
    """
    figure = Figure(figsize=(max(4.6, 1 + 0.93 * len(rows)), 3.4))
    axes = figure.subplots()
    x = np.arange(len(rows))
    accuracy, low, high = (
        100 * np.array([r[key] for r in rows]) for key in ("accuracy", "low", "high")
    )
    axes.vlines(x, low, high, color=BLUE, linewidth=1.8, label="95 % interval")
    axes.plot(x, accuracy, "o", color=BLUE, markersize=6, label="test accuracy")
    asked = [(x[i], 100 * r["benchmark"]) for i, r in enumerate(rows) if r.get("benchmark")]
    for i, (place, value) in enumerate(asked):
        label = "benchmark" if i == 0 else None
        axes.hlines(value, place - 0.3, place + 0.3, color=GREY, linestyle="--", label=label)
    for i in range(len(rows)):
        axes.annotate(
            f"{accuracy[i]:.1f}", (x[i], high[i]), (0, 4), textcoords="offset points", ha="center"
        )
    for i, (lower, upper) in enumerate(pairwise(accuracy)):
        gain, way = rows[i + 1].get("gain"), np.array([0.0, 1.0])
        far = 0.12 if gain is not None and rows[i + 1]["verdict"] == "not shown" else 0.27
        ends = [way] if gain is None else [way[:1] + (0, far), way[1:] - (far, 0)]
        for part in ends:  # a line with room for the gain
            axes.plot(
                i + part, lower + part * (upper - lower), color=FAINT, linewidth=1.2, zorder=1
            )
        if gain is not None:
            doubt = rows[i + 1]["verdict"] == "not shown"
            axes.text(
                i + 0.5, (lower + upper) / 2, points(gain) + ("\nnot shown" if doubt else ""),
                color=GREY if doubt else INK, fontweight="normal" if doubt else "bold",
                ha="center", va="center",
            )  # fmt: skip
    axes.set_xticks(x, [broken(row["level"]) for row in rows])
    gains = any(row.get("gain") is not None for row in rows[1:])
    title = "Test accuracy (%)" + (", and the gain in points" if gains else "")
    axes.set(title=title, xlim=(-0.5, len(rows) - 0.5))
    axes.margins(y=0.18)
    axes.grid(axis="y")
    if asked:
        axes.legend(loc="lower right", fontsize=9)
    return figure
