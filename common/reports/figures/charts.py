"""Pictures of what tools measure: speed, learning rates, systems beside each other."""

import itertools
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from matplotlib.transforms import Bbox

from common.reports.figures.style import BLUE, FAINT, GREEN, GREY, STYLE, VERMILLION, broken


@matplotlib.rc_context(STYLE)
def speed(report: dict) -> Figure:
    """Seconds of both pipelines a level, and our seconds over the pictures' number and size.

    Args:
        report: bench.json, of which it reads `levels`, `image_size` and `growth`.
    """
    figure = Figure(figsize=(9.6, 3.8))
    compared, *grown = figure.subplots(1, 3, width_ratios=[1.6, 1, 1])
    names, rows = list(report["levels"]), list(report["levels"].values())
    y = np.arange(len(rows))
    looks = {"plain": {"color": FAINT}, "ours": {"color": BLUE}}
    for shift, (key, look) in zip((-0.19, 0.19), looks.items(), strict=True):
        compared.barh(y + shift, [row[f"{key}_s"] for row in rows], 0.34, label=key, **look)
    for i, row in enumerate(rows):
        text, end = f"{row['ratio']:.1f} times faster", (row["ours_s"], i + 0.19)
        compared.annotate(text, end, (4, 0), textcoords="offset points", va="center", fontsize=9)
    compared.set_yticks(y, list(map(broken, names)))
    compared.set(title=f"Each level at {report['image_size']} px", xlabel="seconds")
    compared.invert_yaxis()
    figure.legend(loc="outside upper left", ncols=2)
    level = broken(report["growth"]["level"]).split("\n")[0]
    panels = {"pictures": "training pictures", "image_size": "side of a picture, px"}
    for axes, (key, label) in zip(grown, panels.items(), strict=True):
        grown_by = report["growth"][key]
        axes.plot([p[key] for p in grown_by], [p["s"] for p in grown_by], "o-", color=BLUE)
        axes.set(title=f"Ours, {level}", xlabel=label, ylabel="seconds", ylim=(0, None))
        axes.set_xlim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.grid()
    return figure


@matplotlib.rc_context(STYLE)
def learning_rates(rates: np.ndarray, losses: np.ndarray, chosen: float, now: float) -> Figure:
    """Loss over a growing learning rate, the steepest place and the configured rate marked."""
    figure = Figure(figsize=(6, 3.4))
    axes = figure.subplots()
    axes.semilogx(rates, losses, color=BLUE)
    marks = ((chosen, GREEN, "--", "steepest"), (now, GREY, ":", "configured"))
    for rate, color, line, name in marks:
        axes.axvline(rate, color=color, linestyle=line, label=f"{name}: {rate:.1e}")
    axes.set(title="Loss while the rate grows", xlabel="learning rate", ylabel="smoothed loss")
    axes.xaxis.set_major_formatter("{x:.0e}")
    figure.legend(loc="outside upper right", ncols=2, fontsize=9)
    axes.grid()
    return figure


@matplotlib.rc_context(STYLE)
def accuracy_over_time(rows: list[dict]) -> Figure:
    """Test accuracy over seconds, a point a row; rows that were not measured are left out.

    Args:
        rows: of comparison.json; `strategy` gives colour and marker. A line joins the ladder's.
    """
    figure = Figure(figsize=(8, 4.6))
    axes = figure.subplots()
    kinds = {"ladder": (BLUE, "o-"), "scratch": (VERMILLION, "s"), "transfer": (GREEN, "^")}
    measured = [row for row in rows if row["test_accuracy"] is not None]
    points = [(row["seconds"], 100 * row["test_accuracy"]) for row in measured]
    climbed = []
    for kind, (color, look) in kinds.items():
        own = [p for p, row in zip(points, measured, strict=True) if row["strategy"] == kind]
        climbed = own if kind == "ladder" else climbed
        if own:
            axes.plot(*zip(*own, strict=True), look, color=color, label=kind, linewidth=1)
    axes.set(title="Test accuracy (%) over time", xscale="log")
    axes.set_xlabel("seconds, with those of the runs that one starts from")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter("")
    axes.margins(x=0.15, y=0.12)
    axes.grid()
    if axes.lines:
        figure.legend(loc="outside upper right", ncols=3, handlelength=2)
    figure.draw_without_rendering()  # so that names know where they stand
    taken = [Bbox([centre - 6, centre + 6]) for centre in axes.transData.transform(points)]
    for ends in pairwise(axes.transData.transform(climbed)):
        taken += [Bbox([place - 2, place + 2]) for place in np.linspace(*ends, 40)]
    for row, point in zip(measured, points, strict=True):
        _name(axes, row["config"], point, taken)
    return figure


def _name(axes: Axes, name: str, point: tuple[float, float], taken: list[Bbox]) -> None:
    """Write a name beside its point, at the nearest place where it covers nothing."""
    sides = ((1, 0, "left"), (0, 1, "center"), (0, -1, "center"), (-1, 0, "right"))
    for away, (x, y, side) in itertools.product((8, 14, 22, 32), sides):
        place = {"xytext": (x * away, y * away), "textcoords": "offset points", "ha": side}
        text = axes.annotate(name, point, fontsize=9, va="center", **place)
        box = text.get_window_extent()
        if not any(box.overlaps(other) for other in taken):
            break
        text.remove()
    else:
        axes.add_artist(text)
    taken.append(box)


@matplotlib.rc_context(STYLE)
def gaps(rows: list[dict], histories: list[list[dict]]) -> Figure:
    """Accuracy by epoch on train and val, a panel a run, and the gap that each was left with.

    Args:
        rows: a dict a run: `config`, `train_accuracy`, `test_accuracy` (fractions).
        histories: a list an epoch a run, as `plots.training_curves` takes them.
    """
    figure = Figure(figsize=(9, 3.8))
    panels = figure.subplots(1, len(rows), sharey=True)
    titles = ("Without augmentation", "With augmentation")
    for axes, title, row, history in zip(panels, titles, rows, histories, strict=True):
        epochs = [entry["epoch"] for entry in history]
        for part, color, line in (("train", BLUE, "o-"), ("val", VERMILLION, "s--")):
            values = [100 * entry[f"{part}_accuracy"] for entry in history]
            label = f"{part}, while it trains" if part == "train" else part
            axes.plot(epochs, values, line, color=color, label=label, markersize=4)
        train, test = 100 * row["train_accuracy"], 100 * row["test_accuracy"]
        x = epochs[-1] + 0.06 * len(epochs)
        axes.annotate("", (x, test), (x, train), arrowprops={"arrowstyle": "<->", "color": GREY})
        text = f"train {train:.1f}\ntest {test:.1f}\ngap {train - test:.1f}"
        axes.text(x + 0.03 * len(epochs), (train + test) / 2, text, va="center", fontsize=9)
        axes.set(title=title, xlabel="epoch", xlim=(0.5, epochs[-1] + 0.35 * len(epochs)))
        ticks = MaxNLocator(6, integer=True).tick_values(1, epochs[-1])
        axes.set_xticks([tick for tick in ticks if 1 <= tick <= epochs[-1]])
        axes.grid(axis="y")
    panels[0].set_ylabel("accuracy, %")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=2, fontsize=9)
    return figure
