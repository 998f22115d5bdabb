"""Pictures of what tools measure: speed, learning rates, systems beside each other."""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.plots import BLUE, GREEN, GREY, STYLE, VERMILLION


@matplotlib.rc_context(STYLE)
def speed(report: dict) -> Figure:
    """Seconds of both pipelines a level, and our seconds over the pictures' number and size.

    Args:
        report: bench.json, of which it reads `levels`, `image_size` and `growth`.
    """
    figure = Figure(figsize=(10, 3.6), dpi=110, layout="constrained")
    compared, *grown = figure.subplots(1, 3, width_ratios=[1.6, 1, 1])
    names, rows = list(report["levels"]), list(report["levels"].values())
    y = np.arange(len(rows))
    for shift, key, color, hatch in ((-0.19, "plain", "0.75", "//"), (0.19, "ours", BLUE, "")):
        seconds = [row[f"{key}_s"] for row in rows]
        compared.barh(y + shift, seconds, 0.36, color=color, hatch=hatch, label=key, edgecolor="w")
    for i, row in enumerate(rows):
        text = f" {row['ratio']:.1f} times faster"
        compared.text(row["ours_s"], i + 0.19, text, va="center", color=BLUE, fontsize=9)
    compared.set_yticks(y, [name.replace("_", "\n", 1).replace("_", " ") for name in names])
    compared.set(title=f"Seconds a level, {report['image_size']} px", xlabel="s")
    compared.invert_yaxis()
    compared.legend(loc="lower right")
    panels = {"pictures": "training pictures", "image_size": "side, px"}
    for axes, (key, label) in zip(grown, panels.items(), strict=True):
        grown_by = report["growth"][key]
        axes.plot([p[key] for p in grown_by], [p["s"] for p in grown_by], "o-", color=BLUE)
        axes.set(title=f"Ours over {label}", xlabel=label, ylabel="s", ylim=(0, None))
        axes.set_xlim(0, None)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
    return figure


@matplotlib.rc_context(STYLE)
def learning_rates(rates: np.ndarray, losses: np.ndarray, chosen: float, now: float) -> Figure:
    """Loss over a growing learning rate, the steepest place and the configured rate marked."""
    figure = Figure(figsize=(6, 3.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.semilogx(rates, losses, color=BLUE)
    marks = ((chosen, GREEN, "--", "steepest"), (now, GREY, ":", "configured"))
    for rate, color, line, name in marks:
        axes.axvline(rate, color=color, linestyle=line, label=f"{name}: {rate:.1e}")
    axes.set(title="Loss while the rate grows", xlabel="learning rate", ylabel="smoothed loss")
    axes.legend()
    axes.grid(color="0.9")
    return figure


@matplotlib.rc_context(STYLE)
def accuracy_over_time(rows: list[dict]) -> Figure:
    """Test accuracy over seconds, a point a row; rows that were not measured are left out.

    Args:
        rows: of comparison.json; `strategy` gives colour and marker.
    """
    figure = Figure(figsize=(8, 4.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    kinds = {"ladder": (BLUE, "o"), "scratch": (VERMILLION, "s"), "transfer": (GREEN, "^")}
    for kind, (color, marker) in kinds.items():
        own = [r for r in rows if r["strategy"] == kind and r["test_accuracy"] is not None]
        for i, row in enumerate(own):
            x, y = row["seconds"], 100 * row["test_accuracy"]
            label = kind if i == 0 else None
            axes.plot(x, y, marker, color=color, label=label, linestyle="none")
            axes.annotate(row["config"], (x, y), (5, 4), textcoords="offset points", fontsize=8)
    axes.set(title="Test accuracy (%) over time", xlabel="seconds", xscale="log")
    axes.margins(x=0.15, y=0.1)
    axes.grid(color="0.9")
    if axes.lines:
        axes.legend(loc="lower right")
    return figure
