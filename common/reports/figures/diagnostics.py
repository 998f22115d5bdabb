"""Pictures of one run beyond its accuracy: calibration, classes, rates, features."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.evaluation.statistics import BINS, compare
from common.reports.figures.plots import BLUE, GREEN, GREY, ORANGE, SKY, STYLE, VERMILLION

FEW = 10  # pictures: a share of fewer says little
SHOWN_CLASSES = 20  # up to here every class has a bar, else the ten at either end
MARKERS = "os^Dv<>pX*"
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, SKY)


@matplotlib.rc_context(STYLE)
def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Figure:
    """How often the network is right where it says how sure it is, and how often it says so.

    Guo et al., 2017, https://arxiv.org/abs/1706.04599.

    Args:
        confidence: (N,) the predicted class's probability.
        correct: (N,) bool.
        bins: of equal width between 0 and 1.
    """
    figure = Figure(figsize=(4.6, 4.6), dpi=120, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    said, right = (
        np.bincount(which, values, bins) / counts.clip(1) for values in (confidence, correct)
    )
    filled, centres = counts > 0, (np.arange(bins) + 0.5) / bins
    upper.plot([0, 1], [0, 1], ":", color=GREY, label="as sure as right")
    shades = [SKY if count >= FEW else "0.85" for count in counts[filled]]
    bars = upper.bar(centres[filled], right[filled], 0.9 / bins, color=shades)
    bars[-1].set_label(f"right (grey: of fewer than {FEW} pictures)")
    upper.plot(said[filled], right[filled], "o", color=BLUE, markersize=4, label="mean confidence")
    upper.set(title="Reliability", ylabel="share right", ylim=(0, 1.02))
    figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    lower.bar(centres, counts, 0.9 / bins, color="0.6")
    lower.set(xlabel="confidence", ylabel="pictures", xlim=(0, 1))
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
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
    figure = Figure(figsize=(6, 0.9 + 0.27 * len(order)), dpi=120, layout="constrained")
    axes, y = figure.subplots(), np.arange(len(order))
    axes.barh(y, gains, 0.65, color=np.where(gains < 0, VERMILLION, GREEN))
    axes.hlines(y, low, high, color="0.25", linewidth=1.2)
    axes.axvline(0, color="0.25", linewidth=1)
    axes.set_yticks(y, [_short(classes[c]) for c in order], fontsize=9)
    axes.set(title=f"Gain over {level} by class", xlabel="points, with 95 % intervals")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    return figure


@matplotlib.rc_context(STYLE)
def rates(values: np.ndarray, steps: int) -> Figure:
    """The learning rate of the head at each step.

    Args:
        values: (n,) one a step.
        steps: of an epoch.
    """
    figure = Figure(figsize=(5, 2.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot((np.arange(len(values)) + 1) / steps, values, color=BLUE)
    axes.set(title="Learning rate", xlabel="epoch", ylim=(0, None))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9")
    return figure


@matplotlib.rc_context(STYLE)
def feature_plane(features: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Figure:
    """Test pictures where their last features lie, in the plane of largest variance (PCA).

    Args:
        features: (N, 2) float; labels: (N,) int; classes: names by label.
    """
    figure = Figure(figsize=(6, 4.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for i in np.unique(labels)[:SHOWN_CLASSES]:
        own = features[labels == i]
        axes.plot(
            *own.T, MARKERS[i % len(MARKERS)], color=COLOURS[i % len(COLOURS)], markersize=3,
            alpha=0.5, label=_short(classes[i]), linestyle="none",
        )  # fmt: skip
    axes.set(title="Test pictures by their last features", xticks=[], yticks=[])
    axes.set(xlabel="first principal component", ylabel="second")
    figure.legend(loc="outside right center", fontsize=8, markerscale=2)
    return figure


def _short(name: str) -> str:
    return name if len(name) < 24 else f"{name[:22]}…"
