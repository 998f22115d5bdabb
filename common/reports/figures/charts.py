"""Pictures of what tools measure: speed, learning rates, systems beside each other."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from common.reports.figures.plots import BLUE, GREEN, GREY, STYLE, VERMILLION, broken


@matplotlib.rc_context(STYLE)
def speed(report: dict) -> Figure:
    """Seconds of both pipelines a level, and our seconds over the pictures' number and size.

    Args:
        report: bench.json, of which it reads `levels`, `image_size` and `growth`.
    """
    figure = Figure(figsize=(10, 3.6))
    compared, *grown = figure.subplots(1, 3, width_ratios=[1.6, 1, 1])
    names, rows = list(report["levels"]), list(report["levels"].values())
    y = np.arange(len(rows))
    for shift, key, color, hatch in ((-0.19, "plain", "0.75", "//"), (0.19, "ours", BLUE, "")):
        seconds = [row[f"{key}_s"] for row in rows]
        compared.barh(y + shift, seconds, 0.36, color=color, hatch=hatch, label=key, edgecolor="w")
    for i, row in enumerate(rows):
        text = f" {row['ratio']:.1f} times faster"
        compared.text(row["ours_s"], i + 0.19, text, va="center", color=BLUE, fontsize=9)
    compared.set_yticks(y, list(map(broken, names)))
    compared.set(title=f"Seconds a level, {report['image_size']} px", xlabel="s")
    compared.invert_yaxis()
    figure.legend(loc="outside lower left", ncols=2)
    panels = {"pictures": "training pictures", "image_size": "side, px"}
    for axes, (key, label) in zip(grown, panels.items(), strict=True):
        grown_by = report["growth"][key]
        axes.plot([p[key] for p in grown_by], [p["s"] for p in grown_by], "o-", color=BLUE)
        axes.set(title=f"Ours over {label}", xlabel=label, ylabel="s", ylim=(0, None))
        axes.set_xlim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(4))
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
    axes.legend(frameon=True, framealpha=1, edgecolor="none")  # the marks go below it
    axes.grid()
    return figure


@matplotlib.rc_context(STYLE)
def accuracy_over_time(rows: list[dict]) -> Figure:
    """Test accuracy over seconds, a point a row; rows that were not measured are left out.

    Args:
        rows: of comparison.json; `strategy` gives colour and marker.
    """
    figure = Figure(figsize=(8, 4.4))
    axes = figure.subplots()
    kinds = {"ladder": (BLUE, "o"), "scratch": (VERMILLION, "s"), "transfer": (GREEN, "^")}
    measured = [row for row in rows if row["test_accuracy"] is not None]
    points = [(row["seconds"], 100 * row["test_accuracy"]) for row in measured]
    for kind, (color, marker) in kinds.items():
        own = [p for p, row in zip(points, measured, strict=True) if row["strategy"] == kind]
        if own:
            axes.plot(*zip(*own, strict=True), marker, color=color, label=kind, linestyle="none")
    axes.set(title="Test accuracy (%) over time", xlabel="seconds", xscale="log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.15, y=0.12)
    axes.grid()
    if axes.lines:
        axes.legend(loc="lower right")
    figure.draw_without_rendering()  # so that names know where they stand
    centres = [axes.transData.transform(point) for point in points]
    taken = [Bbox([centre - 5, centre + 5]) for centre in centres]
    for row, point in zip(measured, points, strict=True):
        _name(axes, row["config"], point, taken)
    return figure


def _name(axes: Axes, name: str, point: tuple[float, float], taken: list[Bbox]) -> None:
    """Write a name beside its point, at the first of four places where it covers no other."""
    for x, y, side in ((6, 4, "left"), (6, -11, "left"), (-6, 4, "right"), (-6, -11, "right")):
        text = axes.annotate(name, point, (x, y), textcoords="offset points", fontsize=8, ha=side)
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
    panels[0].legend(loc="lower right", fontsize=9)
    return figure
