"""What mutation testing found, counted and in Markdown: a part of reports/audit.md."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from helpers.mutations import Mutant

STORED = Path(__file__).resolve().parents[2] / "reports" / "audit_mutants.json"
JUDGES = "audit", "tests", "grader"
COUNTED = "mutants", *JUDGES, "hangs", "crash"


def summary(
    mutants: list[Mutant],
    equivalents: dict[str, str],
    find: Callable[[Mutant, str], dict | None],
) -> dict:
    """Counts of mutants by what caught them first: in all, by file, by check of the audit.

    Of those that hang it is not said who caught them: nobody waits for the end. The checks are
    counted over what is shown alone. `open`: mutants without a last word.
    """
    groups, files, checks, left_open = {}, {}, {}, 0
    counted = [mutant for mutant in mutants if mutant.id not in equivalents]
    for mutant in counted:
        entries = [find(mutant, judge) for judge in JUDGES]
        last = next((entry for entry in entries if entry and entry["caught"]), None)
        left_open += last is None and None in entries
        keys = ["mutants"]
        if last:
            keys.append("hangs" if last["caught"] == "hangs" else last["judge"])
            if last["judge"] == "audit" and last["crash"]:
                keys.append("crash")
            if last["judge"] == "audit" and not mutant.held_back:
                checks[last["caught"]] = checks.get(last["caught"], 0) + 1
        half = "held back" if mutant.held_back else "shown"
        for counts in (groups.setdefault(half, {}), files.setdefault(mutant.file, {})):
            for key in COUNTED:
                counts[key] = counts.get(key, 0) + (key in keys)
    return {
        "day": time.strftime("%Y-%m-%d"),
        "equivalent": len(mutants) - len(counted),
        "open": left_open,
        "groups": groups,
        "files": dict(sorted(files.items())),
        "checks": dict(sorted(checks.items(), key=lambda item: (-item[1], item[0]))),
    }


def _row(name: str, counts: dict[str, int]) -> str:
    total, audit, tests = counts["mutants"], counts["audit"], counts["audit"] + counts["tests"]
    anything = tests + counts["grader"] + counts["hangs"]
    shares = [f"{count / total:.0%}" for count in (audit, tests, anything)]
    cells = name, total, *shares, counts["crash"], counts["hangs"]
    return f"| {' | '.join(map(str, cells))} |"


def shares(content: dict) -> str:
    """The table of the shown and the held-back mutants."""
    heads = (
        "mutants",
        "the audit alone",
        "audit and tests",
        "anything",
        "audit, by a crash",
        "hangs",
    )
    rows = [_row(name, content["groups"][name]) for name in sorted(content["groups"])[::-1]]
    return "\n".join([f"| | {' | '.join(heads)} |", f"|{' --- |' * 7}", *rows])


def section(content: dict) -> str:
    """The part of reports/audit.md."""
    total = sum(counts["mutants"] for counts in content["groups"].values())
    heads, rule = shares(content).split("\n")[:2]
    return "\n".join(
        [
            "# What it catches of small changes",
            "",
            f"{total + content['equivalent']} mutants of the code, drawn by chance, each with one "
            "token or statement changed: an operator, a",
            f"constant, two arguments swapped, a call left out. {content['equivalent']} change no "
            f"result (`tests/helpers/equivalents.txt`); of the",
            f"other {total}, what is caught by the audit, then by the fast tests of the file's "
            "room, then by the grader.",
            "A third is held back: no check or test was written with a look at them. Judged on "
            f"{content['day']}, by the code of that day.",
            "",
            shares(content),
            "",
            heads.replace("| |", "| file |", 1),
            rule,
            *(_row(f"`{file}`", counts) for file, counts in content["files"].items()),
            "",
            "| first check to name it, of those shown | mutants |",
            "| --- | --- |",
            *(f"| {check} | {count} |" for check, count in content["checks"].items()),
            "",
            "Made by `make mutants` and `make mutants MUTANTS=--report`.",
            "",
        ]
    )


def stored_section() -> str:
    """The part of reports/audit.md from the summary that is kept; empty where there is none."""
    return section(json.loads(STORED.read_text(encoding="utf-8"))) if STORED.exists() else ""
