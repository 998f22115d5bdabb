"""Rows for the ladder page: what several seeds gave, and what each ingredient is worth.

A config whose name begins with `without_` is its level less one ingredient.
"""

import itertools
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from markupsafe import Markup

from common.evaluation.statistics import compare, summarise
from common.reports.markdown import duration, escape, percent, probability
from common.reports.store import gain_over_below, identity, read_predictions
from common.reports.tables import facts, gain_text

WITHOUT = "without_"

Run = tuple[Path, dict]  # a report's folder and its metrics


class Link(Markup):
    """A link to a report in Markdown, which a terminal shows as its plain text."""

    plain: str


def link(folder: Path, text: str) -> Link:
    """A text, linked to the report in a folder."""
    made = Link(f"[{escape(text)}]({urllib.parse.quote(folder.name)}/report.md)")
    made.plain = text
    return made


def label(m: dict) -> str:
    """A run's level, and its config where that is not the level's own."""
    return m["level"] if m["config"] == "config" else f"{m['level']}-{m['config']}"


def gain_cells(gain: dict | None, name: str = "gain, points") -> dict[str, str]:
    """The cells that a comparison fills; "level" in it says over which level."""
    if not gain:
        return dict.fromkeys((name, "fixed / broken", "p", "verdict"), "")
    over = f" over {gain['level'].split('_')[0]}" if "level" in gain else ""
    return {
        name: gain_text(gain) + over,
        "fixed / broken": f"{gain['fixed']:,} / {gain['broken']:,}",
        "p": probability(gain["p_value"]),
        "verdict": gain["verdict"],
    }


def gain_now(reports: Path, folder: Path, m: dict) -> dict | None:
    """The gain over the level below as its report is now, which may be newer than this run's."""
    saved = read_predictions(folder)
    if not saved:
        return m["below"]
    return gain_over_below(reports, *identity(m), m, saved["labels"], saved["predictions"])


def seed_rows(reports: Path, found: list[Run]) -> list[dict]:
    """A line a level that ran with several seeds: every figure, their mean and deviation."""
    rows = []
    for _, runs in itertools.groupby(found, key=lambda run: (run[1]["level"], run[1]["config"])):
        runs = list(runs)
        if len(runs) < 2:
            continue
        summary = summarise([run["test"]["accuracy"] for _, run in runs])
        gains = [gain_now(reports, *run) for run in runs]
        rows.append(
            {
                "level": link(runs[0][0], label(runs[0][1])),
                "seeds": ", ".join(str(run["seed"]) for _, run in runs),
                "test accuracy, %": ", ".join(f"{100 * value:.2f}" for value in summary["values"]),
                "mean, %": f"{100 * summary['mean']:.2f}",
                "sd, points": f"{100 * summary['sd']:.2f}",
                "gain, points": _in_turn(gains, lambda gain: f"{100 * gain['gain']:+.2f}"),
                "verdict": _in_turn(gains, lambda gain: gain["verdict"]),
            }
        )
    return rows


def _in_turn(gains: list[dict | None], words: Callable[[dict], str]) -> str:
    """Something of every gain, a dash where there is none; nothing where there is none at all."""
    return ", ".join(words(gain) if gain else "-" for gain in gains) if any(gains) else ""


def ingredient_rows(found: list[Run]) -> list[dict]:
    """A line an ingredient and seed: the level as it is against the level without it."""
    wholes = {
        (m["level"], m["seed"]): (folder, m) for folder, m in found if m["config"] == "config"
    }
    rows = []
    for folder, m in found:
        if m["config"].startswith(WITHOUT):
            rows.append(_ablation_row((folder, m), wholes.get((m["level"], m["seed"]))))
        elif m["tta"] != "none" and (saved := read_predictions(folder)):
            seconds = m["detail"]["seconds"]
            rows.append(
                {
                    "ingredient": link(folder, f"test-time augmentation ({m['tta']})"),
                    "level": label(m),
                    "seed": str(m["seed"]),
                    "without": percent(m["test_single"]["accuracy"]),
                    "with": percent(m["test"]["accuracy"]),
                    **_worth(compare(saved["labels"], saved["single"], saved["predictions"])),
                    "cost": f"{seconds['test']:.1f} s instead of {seconds['test_single']:.1f} s "
                    "of testing",
                }
            )
    return rows


def _ablation_row(run: Run, whole: Run | None) -> dict:
    """It says only `without` where the whole level did not run on the same data and weights."""
    folder, m = run
    row = {
        "ingredient": link(folder, m["config"].removeprefix(WITHOUT).replace("_", " ")),
        "level": m["level"],
        "seed": str(m["seed"]),
        "without": percent(m["test"]["accuracy"]),
        "with": "",
        **_worth(None),
        "cost": "",
    }
    if whole and facts(whole[1]) == facts(m):
        saved, full = read_predictions(folder), read_predictions(whole[0])
        if saved and full and np.array_equal(saved["labels"], full["labels"]):
            row["with"] = percent(whole[1]["test"]["accuracy"])
            row |= _worth(compare(full["labels"], saved["predictions"], full["predictions"]))
            if whole[1]["machine"] == m["machine"]:  # threads and all, else times say nothing
                times = [duration(run["seconds"]) for run in (whole[1], m)]
                row["cost"] = " instead of ".join(times)
    return row


def _worth(gain: dict | None) -> dict[str, str]:
    return gain_cells(gain, "worth, points")
