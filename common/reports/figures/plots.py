"""Every picture, from plain arrays: arrays in, a matplotlib Figure out, nothing on screen.

One visual language: Okabe and Ito's colours, which colour-blind readers tell apart; every line
also has its own marker and dash, so that it survives a grey printer. A Figure is made directly,
without pyplot's global state, and made a file by `png`.
"""

import io
import math
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np
import seaborn
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from sklearn import metrics

from common.reports.text import points

# Okabe & Ito, "Color Universal Design", 2008
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#595959"
ORANGE, SKY = "#E69F00", "#56B4E9"
STYLE = {
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "font.size": 10,
    "grid.color": "0.9",
    "legend.frameon": False,
    "legend.handlelength": 3.2,  # room for dashes
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a class may be called "$5 note$"
}
NUMBERED_CLASSES = 20  # up to here the confusion matrix has room for numbers in its cells
SHARES = (0, 1, 5, 10, 20, 40, 60, 80, 100)  # percent, named on its scale of colours
NAMED_CLASSES = 25  # from here on it names every second, third ... class


def short(name: str, length: int = 20) -> str:
    """A name that takes less than `length` characters."""
    return name if len(name) < length else f"{name[: length - 2]}…"


def broken(level: str) -> str:
    """A level's name on two lines: its number, and what it is about."""
    return level.replace("_", "\n", 1).replace("_", " ")


def png(figure: Figure) -> bytes:
    """A figure as a PNG of 256 colours: a third of the size, with no difference to see."""
    drawn, content = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn)
    with Image.open(drawn) as image:
        colours = image.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT, dither=0)
        colours.save(content, "PNG", optimize=True)
    return content.getvalue()


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

    Colours follow the square root of the percentage, so that rare confusions are seen too. More
    than 20 classes stand in an order that puts those beside each other that are confused.

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
    cell = max(0.42 if every == 1 else 8 / count, 0.16 * lines / every, 2.4 / count)
    side = cell * count + 0.085 * longest + 0.6
    figure = Figure(figsize=(side + 1.0, side + 0.3))
    axes = figure.subplots()
    numbered = count <= NUMBERED_CLASSES
    numbers = np.where(counts > 0, np.char.mod("%.0f", percent), "")
    seaborn.heatmap(
        percent,
        ax=axes,
        cmap="Blues",
        norm=PowerNorm(0.5, 0, 100),
        square=True,
        annot=numbers if numbered else False,
        fmt="",
        annot_kws={"size": 9},
        linewidths=0.5 if every == 1 else 0,
        cbar_kws={"label": "% of the true class", "shrink": 0.8, "ticks": SHARES},
    )
    ticks = np.arange(0, count, every)
    axes.set_xticks(ticks + 0.5, names[::every], rotation=90, fontsize=9)
    axes.set_yticks(ticks + 0.5, names[::every], rotation=0, fontsize=9)
    named = f" (1 of {every} named)" if every > 1 else ""
    axes.set_xlabel(f"predicted class{named}", labelpad=8)
    axes.set_ylabel(f"true class{named}", labelpad=8)
    if numbered:
        axes.set_title(
            "in %; 0: less than half a percent; blank: none", fontsize=9, weight="normal"
        )
    return figure


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
            absent: not comparable, nothing is written) and with it `verdict`: only what is a
            "gain" or a "loss" is coloured as one. `benchmark`: a fraction that is asked for, None
            or absent where nothing is.
    """
    figure = Figure(figsize=(max(4.6, 1.5 + 1.7 * len(rows)), 3.8))
    axes = figure.subplots()
    x = np.arange(len(rows))
    accuracy, low, high = (
        100 * np.array([r[key] for r in rows]) for key in ("accuracy", "low", "high")
    )
    axes.plot(x, accuracy, "-", color="0.75", linewidth=1.2, zorder=1)
    axes.vlines(x, low, high, color=BLUE, linewidth=1.8, label="95 % interval")
    axes.plot(x, accuracy, "o", color=BLUE, markersize=6, label="test accuracy")
    asked = [(x[i], 100 * r["benchmark"]) for i, r in enumerate(rows) if r.get("benchmark")]
    for i, (place, value) in enumerate(asked):
        label = "benchmark" if i == 0 else None
        axes.hlines(value, place - 0.3, place + 0.3, color=ORANGE, linestyle="--", label=label)
    for i, row in enumerate(rows):
        axes.annotate(
            f"{accuracy[i]:.1f}", (x[i], high[i]), (0, 4), textcoords="offset points", ha="center"
        )
        if i and row.get("gain") is not None:
            axes.text(
                x[i] - 0.5,
                (accuracy[i - 1] + accuracy[i]) / 2,
                points(row["gain"]) + ("\nnot shown" if row["verdict"] == "not shown" else ""),
                color={"gain": GREEN, "loss": VERMILLION}.get(row["verdict"], GREY),
                fontweight="normal" if row["verdict"] == "not shown" else "bold",
                ha="center",
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
            )
    axes.set_xticks(x, [broken(row["level"]) for row in rows])
    gains = any(row.get("gain") is not None for row in rows[1:])
    title = "Test accuracy (%)" + (", and the gain in points" if gains else "")
    axes.set(title=title, xlim=(-0.5, len(rows) - 0.5))
    axes.margins(y=0.18)
    axes.grid(axis="y")
    if asked:
        axes.legend(loc="lower right", fontsize=9)
    return figure
