"""Pictures of one run beyond its accuracy: calibration, classes, rates, features."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.evaluation import statistics
from common.evaluation.statistics import BINS, compare
from common.reports.figures.style import BLUE, FAINT, GREEN, GREY, INK, STYLE, VERMILLION, short

FEW = 10  # pictures: a share of fewer says little
SHOWN_CLASSES = 20  # up to here every class has a bar, else the ten at either end
MARKERS = "os^Dv<>pX*"
LINES = "-", "--", "-.", ":"
COLOURS = (  # ten that have contrast on white and on black, the darker of a like pair first
    *(BLUE, VERMILLION, GREEN, "#8B62D9", "#B07D00"),
    *("#2F8FC8", "#E0457B", "#7D8C1F", "#8C6D5A", "#808080"),
)


@matplotlib.rc_context(STYLE)
def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Figure:
    """How often the network is right where it says how sure it is, and how often it says so.

    Guo et al., 2017, https://arxiv.org/abs/1706.04599. Takes what `statistics.reliability` takes.
    """
    confidence, right, counts = statistics.reliability(probabilities, labels, bins)
    figure = Figure(figsize=(4.6, 4.6))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    edges = np.linspace(0, 1, bins + 1)
    bars = {"x": (edges[1:] + edges[:-1]) / 2, "bins": list(edges), "shrink": 0.9, "linewidth": 0}
    few = f"right, of fewer than {FEW} pictures"
    parts = (counts >= FEW, BLUE, 0.6, "right"), (counts < FEW, *FAINT, few)
    for chosen, color, alpha, label in parts:
        heights = np.where(chosen & (counts > 0), right, 0)
        seaborn.histplot(**bars, weights=heights, color=color, alpha=alpha, label=label, ax=upper)
    seaborn.histplot(**bars, weights=counts, color=INK, alpha=0.5, ax=lower)
    upper.plot([0, 1], [0, 1], ":", color=GREY, label="as sure as right")
    upper.plot(confidence, right, "o", color=INK, markersize=4, label="mean confidence")
    upper.set(title="Reliability", ylabel="share right", ylim=(0, 1.02))
    lower.set(xlabel="confidence", ylabel="pictures", xlim=(0, 1))
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    return figure


@matplotlib.rc_context(STYLE)
def class_gains(
    labels: np.ndarray, below: np.ndarray, own: np.ndarray, classes: Sequence[str], level: str
) -> Figure:
    """What a level gained over the one below, class by class, with paired 95 % intervals.

    Args:
        labels: (N,) int.
        below, own: (N,) int, both levels' predictions.
        classes: names by label.
        level: the level below, for the title.
    """
    present = np.unique(labels)
    found = {c: compare(labels[labels == c], below[labels == c], own[labels == c]) for c in present}
    order = sorted(found, key=lambda c: found[c]["gain"])
    if len(order) > SHOWN_CLASSES:
        order = order[: SHOWN_CLASSES // 2] + order[-SHOWN_CLASSES // 2 :]
    gains = 100 * np.array([found[c]["gain"] for c in order])
    low, high = 100 * np.array([found[c]["interval"] for c in order]).T
    figure = Figure(figsize=(4.6, 0.9 + 0.27 * len(order)))
    axes, y = figure.subplots(), np.arange(len(order))
    colours = [VERMILLION if gain < 0 else GREEN for gain in gains]
    axes.barh(y, gains, 0.65, color=colours)
    axes.hlines(y, low, high, color=INK, linewidth=1.2)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(y, [short(classes[c], 24) for c in order], fontsize=9)
    axes.set(title=f"Gain over {level} by class", xlabel="points, with 95 % intervals")
    axes.grid(axis="x")
    return figure


@matplotlib.rc_context(STYLE)
def rates(parts: dict[str, np.ndarray], steps: int) -> Figure:
    """The learning rate at each step: a line for each of the parts that have the same.

    Args:
        parts: name -> (n,) one a step, NaN where it does not train.
        steps: of an epoch.
    """
    alike: dict[bytes, list[str]] = {}
    for name, values in parts.items():
        alike.setdefault(values.tobytes(), []).append(name)
    figure = Figure(figsize=(4.6, 2.8))
    axes = figure.subplots()
    for i, names in enumerate(alike.values()):
        values = parts[names[0]]
        label = ", ".join(names if len(names) < 3 else [f"{names[0]} to {names[-1]}"])
        look = {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i % len(LINES)]}
        axes.plot((np.arange(len(values)) + 1) / steps, values, label=label, **look)
    axes.set(title="Learning rate", xlabel="epoch", ylim=(0, None))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid()
    figure.legend(loc="outside upper right", ncols=min(len(alike), 3), fontsize=9)
    return figure


@matplotlib.rc_context(STYLE)
def feature_plane(features: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Test pictures where their last features lie, in the plane of largest variance (PCA).

    Ten classes have a colour and a marker each; of more, those that stand beside each other in the
    order of labels share one.

    Args:
        features: (N, 2) float; labels: (N,) int; classes: names by label.
    """
    figure = Figure(figsize=(7.2, 4.8))
    axes = figure.subplots()
    for i, group in enumerate(np.array_split(np.unique(labels), len(COLOURS))):
        if not len(group):
            continue
        names = [short(classes[c], 24) for c in group]
        axes.plot(
            *features[np.isin(labels, group)].T, MARKERS[i], color=COLOURS[i], markersize=4,
            alpha=0.9, markeredgewidth=0, linestyle="none",
            label=names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}",
        )  # fmt: skip
    axes.set(title="Test pictures by their last features", xticks=[], yticks=[])
    axes.set(xlabel="first principal component", ylabel="second")
    figure.legend(loc="outside right center", fontsize=9, markerscale=1.6, handlelength=1)
    return figure
