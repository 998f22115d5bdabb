"""All runs of a folder of reports as one table that can be sorted: cells as text and as value."""

import json
from pathlib import Path

from common.reports.markdown import duration, percent, points
from common.reports.store import find_reports

Cell = tuple[str, float | str | None]  # text, and what it is sorted by
HEADER = ["run", "seed", "test accuracy", "95 % interval", "train accuracy", "gap, points"]
HEADER += ["gain, points", "calibration error", "trained parameters", "epochs", "time"]


def table_of_runs(reports: Path) -> tuple[list[str], list[list[Cell]]]:
    """Header and rows; the values are metrics.json's own."""
    rows = [row_of(m) for _, m in find_reports(reports)]
    for name in _not_measured(reports):
        cells: list[Cell] = [(name, name), ("", None), ("not measured here", None)]
        rows.append(cells + [("", None)] * (len(HEADER) - len(cells)))
    return HEADER, rows


def row_of(m: dict) -> list[Cell]:
    """A run's cells."""
    name = m["level"] if m["config"] == "config" else f"{m['level']}-{m['config']}"
    test, train = m["test"]["accuracy"], m["train"]["accuracy"]
    low, high = m["detail"]["interval"]
    gain = m["below"]["gain"] if m["below"] else None
    over = f" over {m['below']['level'].split('_')[0]}" if m["below"] else ""
    return [
        (name, name),
        (str(m["seed"]), m["seed"]),
        (percent(test), test),
        (f"{100 * low:.1f} to {100 * high:.1f}", low),
        (percent(train), train),
        (points(train - test), train - test),
        ("" if gain is None else points(gain) + over, gain),
        (f"{m['detail']['ece']:.4f}", m["detail"]["ece"]),
        (f"{m['trained_parameters']:,}", m["trained_parameters"]),
        (str(m["epochs"]), m["epochs"]),
        (duration(m["seconds"]), m["seconds"]),
    ]


def _not_measured(reports: Path) -> list[str]:
    """Configs that a comparison could not run here."""
    try:
        content = json.loads((reports / "comparison.json").read_text(encoding="utf-8"))
        return [row["config"] for row in content["rows"] if row["test_accuracy"] is None]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
