"""The ladder page over all reports of a folder: each level, its gain, what ingredients are worth.

Made from reports alone, without data or networks. A config whose name begins with `without_` is
its level less one ingredient; the page says what that ingredient is worth.
"""

import itertools
from pathlib import Path
from typing import NamedTuple

from common.evaluation.statistics import SIGNIFICANCE, wilson_interval
from common.reports.ingredients import (
    WITHOUT,
    Run,
    gain_cells,
    gain_now,
    ingredient_rows,
    label,
    link,
    seed_rows,
)
from common.reports.markdown import aligned, duration, listing, percent, templates
from common.reports.store import find_reports
from common.reports.tables import benchmark, facts
from common.utils.errors import UserError
from common.utils.files import write_whole

OTHERS, WORTH = "Other configs", "What each ingredient is worth"

# Columns that stand on the page only.
ON_PAGE = {"fixed / broken", "trained", "epochs", "without", "with"}

LADDER = """\
# The ladder on {{ given.data }}

![Test accuracy of each level with its 95 % interval](ladder.png)

{% for title, (header, rows) in tables.items() if rows %}
{% if title %}
## {{ title }}

{% endif %}
{{ table(header, rows) }}

{% endfor %}
## How to read it

- A level's row is one run, that of the lowest seed. Accuracy has Wilson's 95 % interval.
- A gain is the difference to the level it names, on the same test pictures, in percentage points,
  with Newcombe's paired 95 % interval (method 10). Of the pictures that only one of the two has
  right, the level fixed some and broke others; p is McNemar's exact test's on these.
- The verdict is `gain` or `loss` at p < {{ significance }}, else `not shown`. It is about these
  test pictures; what another seed would change, only several seeds show.
{% if tables[worth][1] %}
- What an ingredient is worth is measured like a gain: the level as it is over the level trained
  without it, with the same seed; for test-time augmentation, over a single pass of the same
  network. Its cost is time, with it instead of without. Nothing was chosen by these runs.
{% endif %}

## On what

{{ table(["what", "value"], given.items()) }}

## How to run it again

{{ code(commands) }}

{{ machines }}
"""


def write_ladder(reports: Path) -> str:
    """Write the ladder of a folder of reports: README.md and ladder.png.

    Where runs differ in data, weights or size, their row says how.

    Returns:
        The ladder as plain text for a terminal; its last line is the README's path.

    Raises:
        UserError: the folder holds no report.
    """
    from common.reports.figures import plots

    tables = read_tables(reports)
    plots.save(plots.ladder(tables.shown), reports / "ladder.png")
    titled = {title: _table(rows) for title, rows in tables.titled.items()}
    readme = reports / "README.md"
    page = templates.from_string(LADDER).render(
        tables=titled,
        significance=SIGNIFICANCE,
        worth=WORTH,
        given=tables.given,
        commands="\n".join(tables.commands),
        machines="Machine: " + "; ".join(tables.machines) + ".",
    )
    write_whole(readme, page)
    parts = [tables.titled[""] + tables.titled[OTHERS], tables.titled[WORTH]]
    texts = [aligned(*_table(_terse(cells))) for cells in parts if cells]
    return "\n\n".join(texts) + f"\n{readme}"


class Tables(NamedTuple):
    """What the pages of a folder of reports say of all of them.

    Attributes:
        titled: title -> rows, dicts of cells; the untitled rows are the ladder itself.
        shown: a dict a level for `plots.ladder`.
        given: what the reports share: data, weights ...
        commands, machines: what ran, and on what.
    """

    titled: dict[str, list[dict]]
    shown: list[dict]
    given: dict[str, str]
    commands: list[str]
    machines: list[str]


def read_tables(reports: Path) -> Tables:
    """The tables over all reports of a folder.

    Raises:
        UserError: the folder holds no report.
    """
    found = find_reports(reports)
    if not found:
        raise UserError(f"{reports}: no reports here; run a level first")
    own = [run for run in found if run[1]["config"] == "config"]
    given = facts((own or found)[0][1])
    groups = itertools.groupby(found, key=lambda run: (run[1]["level"], run[1]["config"]))
    rows = [_row(reports, list(runs), given) for _, runs in groups]
    ladder = [row for row in rows if row["config"] == "config"]
    whole = [row for row in rows if not row["config"].startswith(WITHOUT)]
    others = [row for row in whole if row["config"] != "config"]

    shown = ladder or others or rows
    for i, row in enumerate(shown):  # a gain over any other level than the one drawn before it
        if i and row["below"] and row["below"]["level"] == shown[i - 1]["level"]:
            row |= {key: row["below"][key] for key in ("gain", "verdict")}
    runs = [metrics for _, metrics in found]
    return Tables(
        {
            "": [row["cells"] for row in ladder],
            OTHERS: [row["cells"] for row in others],
            "Seeds": seed_rows(reports, found),
            WORTH: ingredient_rows(found),
        },
        shown,
        given,
        list(dict.fromkeys(metrics["command"] for metrics in runs)),
        list(dict.fromkeys(listing(metrics["machine"]) for metrics in runs)),
    )


def _table(rows: list[dict]) -> tuple[list[str], list[list]]:
    """Header and rows; columns in which nothing stands are left out."""
    names = [name for name in rows[0] if any(row[name] for row in rows)] if rows else []
    return names, [[row[name] for name in names] for row in rows]


def _terse(rows: list[dict]) -> list[dict]:
    """The same rows as plain text and without the columns that a terminal is too narrow for."""
    return [
        {name: getattr(cell, "plain", cell) for name, cell in row.items() if name not in ON_PAGE}
        for row in rows
    ]


def _row(reports: Path, runs: list[Run], given: dict[str, str]) -> dict:
    """A level's line of the ladder, from its runs with one config: the lowest seed's figures."""
    folder, m = runs[0]
    low, high = wilson_interval(m["test"]["correct"], m["test"]["total"])
    below = gain_now(reports, folder, m)
    notes = [] if m["seed"] == 0 else [f"seed {m['seed']}"]
    for own in (facts(run) for _, run in runs):
        if own["weights"] != given["weights"]:
            own.pop("weights' SHA-256")  # the name says it
        notes += [f"other {key}: {own[key][:20]}" for key in own if own[key] != given[key]]
    if (m["below"] or {}).get("gain") != (below or {}).get("gain"):
        notes.append("the level below has changed since this run")
    return {
        "level": m["level"],
        "config": m["config"],
        "accuracy": m["test"]["accuracy"],
        "benchmark": benchmark(m),
        "low": low,
        "high": high,
        "below": below,
        "cells": {
            "level": link(folder, label(m)),
            "test accuracy": percent(m["test"]["accuracy"]),
            "95 % interval": f"{100 * low:.1f} to {100 * high:.1f}",
            **gain_cells(below),
            "trained": ", ".join(m["trainable"]),
            "epochs": f"{m['epochs']} (best {m['best_epoch']})",
            "time": duration(m["seconds"]),
            "note": "; ".join(dict.fromkeys(notes)),
        },
    }
