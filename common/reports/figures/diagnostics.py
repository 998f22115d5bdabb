"""Pictures of one run beyond its accuracy: calibration, classes, rates, features."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import seaborn
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.evaluation import statistics
from common.evaluation.statistics import BINS, compare
from common.reports.figures.plots import BLUE, GREEN, GREY, ORANGE, SKY, STYLE, VERMILLION, short

FEW = 10  # pictures: a share of fewer says little
SHOWN_CLASSES = 20  # up to here every class has a bar, else the ten at either end
MARKERS = "os^Dv<>pX*"
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, SKY)


@matplotlib.rc_context(STYLE)
def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Figure:
    """How often the network is right where it says how sure it is, and how often it says so.

    Guo et al., 2017, https://arxiv.org/abs/1706.04599. Takes what `statistics.reliability` takes.
    """
    confidence, right, counts = statistics.reliability(probabilities, labels, bins)
    figure = Figure(figsize=(4.6, 4.6))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    edges = np.linspace(0, 1, bins + 1)
    bars = {"x": (edges[1:] + edges[:-1]) / 2, "bins": list(edges), "shrink": 0.9, "edgecolor": "w"}
    few = f"right, of fewer than {FEW} pictures"
    for chosen, color, label in ((counts >= FEW, SKY, "right"), (counts < FEW, "0.85", few)):
        heights = np.where(chosen & (counts > 0), right, 0)
        seaborn.histplot(**bars, weights=heights, color=color, alpha=1, label=label, ax=upper)
    seaborn.histplot(**bars, weights=counts, color="0.6", alpha=1, ax=lower)
    upper.plot([0, 1], [0, 1], ":", color=GREY, label="as sure as right")
    upper.plot(confidence, right, "o", color=BLUE, markersize=4, label="mean confidence")
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
    figure = Figure(figsize=(6, 0.9 + 0.27 * len(order)))
    axes, y = figure.subplots(), np.arange(len(order))
    colours = [VERMILLION if gain < 0 else GREEN for gain in gains]
    seaborn.barplot(
        x=gains, y=y, hue=y, palette=colours, orient="h", native_scale=True,
        saturation=1, width=0.65, dodge=False, legend=False, ax=axes,
    )  # fmt: skip
    axes.hlines(y, low, high, color="0.25", linewidth=1.2)
    axes.axvline(0, color="0.25", linewidth=1)
    axes.set_yticks(y, [short(classes[c], 24) for c in order], fontsize=9)
    axes.set(title=f"Gain over {level} by class", xlabel="points, with 95 % intervals")
    axes.grid(axis="x")
    return figure


@matplotlib.rc_context(STYLE)
def rates(values: np.ndarray, steps: int) -> Figure:
    """The learning rate of the head at each step.

    Args:
        values: (n,) one a step.
        steps: of an epoch.
    """
    figure = Figure(figsize=(5, 2.6))
    axes = figure.subplots()
    axes.plot((np.arange(len(values)) + 1) / steps, values, color=BLUE)
    axes.set(title="Learning rate", xlabel="epoch", ylim=(0, None))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid()
    return figure


@matplotlib.rc_context(STYLE)
def feature_plane(features: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Test pictures where their last features lie, in the plane of largest variance (PCA).

    Args:
        features: (N, 2) float; labels: (N,) int; classes: names by label.
    """
    figure = Figure(figsize=(6, 4.4))
    axes = figure.subplots()
    present = np.unique(labels)
    for i in present[:SHOWN_CLASSES]:
        own = features[labels == i]
        axes.plot(
            *own.T, MARKERS[i % len(MARKERS)], color=COLOURS[i % len(COLOURS)], markersize=3,
            alpha=0.5, label=short(classes[i], 24), linestyle="none",
        )  # fmt: skip
    some = f", {SHOWN_CLASSES} of {len(present)} classes" if len(present) > SHOWN_CLASSES else ""
    axes.set(title=f"Test pictures by their last features{some}", xticks=[], yticks=[])
    axes.set(xlabel="first principal component", ylabel="second")
    figure.legend(loc="outside right center", fontsize=8, markerscale=2)
    return figure
