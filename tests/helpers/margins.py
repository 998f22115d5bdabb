"""How far the audit's clean figures stay from their bounds: `make margins` measures it.

The margin of a check is how often the figure that it sees on the code as it is fits into its bound.
"""

import json
import math
import tempfile
from pathlib import Path

from helpers.planted_bugs import PROJECT, audited

STORED = PROJECT / "reports" / "audit_margins.json"
LEVELS, SEEDS, DATA = (1, 2, 3, 4), (0, 1, 2), ("digits", "32 px", "48 px")
CAUTION = 3
LOOKED_AT = {  # why a smaller one is no cause for alarm
    "loss at start": "the bounds are half of and three times chance, between which no margin is 3",
    "pictures and labels belong together": "clean code has 3 where it does as the steps alone do",
    "train is shuffled": "the bound is 0.75, and an order that is none has 1",
    "the augmentation's steps in their order": "a share of which there is no more than all",
    "val has train's classes": "an exact count: a stratified split rounds by less than a picture",
}


def measure() -> dict[str, dict]:
    """The smallest margin of each check over levels, seeds and data sets, and where it was."""
    from common.audit.runner import find_bugs
    from helpers.makers import make_picture_folder

    smallest: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as place:
        for side in (32, 48):
            classes = ["cat", "dog", "eel", "fox"]
            make_picture_folder(Path(place) / f"{side} px", classes, 30, side)
        for level in LEVELS:
            for seed in SEEDS:
                for data in DATA:
                    options = ["--network.weights", "tiny-imagenet", "--seed", str(seed)]
                    if data != "digits":
                        options += ["--data.name", "folder", "--data.root", f"{place}/{data}"]
                    for finding in find_bugs(audited(str(level), options, Path(place))):
                        where = f"level {level}, seed {seed}, {data}"
                        if not finding.passed:
                            raise SystemExit(f"a false alarm at {where}: {finding.line()}")
                        old = smallest.get(finding.check)
                        if old is None or _of(finding.margin) < _of(old["margin"]):
                            smallest[finding.check] = {"margin": finding.margin, "at": where}
    return smallest


def _of(margin: float | None) -> float:
    """A margin, endless where a check compares exactly."""
    return math.inf if margin is None else margin


def section(smallest: dict[str, dict]) -> str:
    """The part of reports/audit.md."""
    rows = []
    for check, found in smallest.items():
        margin = found["margin"]
        if margin is None:
            continue
        shown = "over 100" if margin > 100 else f"{margin:.1f}"
        why = LOOKED_AT.get(check, "") if margin < CAUTION else ""
        rows.append(f"| {check} | {shown} | {found['at']} | {why} |")
    exact = [check for check, found in smallest.items() if found["margin"] is None]
    count = len(LEVELS) * len(SEEDS) * len(DATA)
    return "\n".join(
        [
            "# How far clean code stays from the bounds",
            "",
            f"The smallest margin over {count} clean audits: levels 1 to 4, seeds 0 to 2, digits "
            "and made pictures of 32 and 48 px.",
            "A margin is how often the figure seen fits into its bound.",
            "",
            "| check | smallest margin | where | if below 3 |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"The other {len(exact)} give no such figure (they compare exactly, within a small "
            "fixed tolerance, or by a statistical test): " + ", ".join(exact) + ".",
            "",
            "Made by `make margins`.",
            "",
        ]
    )


def stored_section() -> str:
    """The part of reports/audit.md from the figures that are kept; empty where there are none."""
    return section(json.loads(STORED.read_text(encoding="utf-8"))) if STORED.exists() else ""


if __name__ == "__main__":
    text = json.dumps(measure(), indent=2)
    STORED.write_text(text + "\n", encoding="utf-8")
