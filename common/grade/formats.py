"""A grade as a table for people, JSON, JUnit's XML, or Gradescope's results.json."""

import json
import textwrap
from collections.abc import Callable
from xml.etree import ElementTree

from common.grade.submission import CheckResult, Grade
from common.reports.text import aligned, percent, points

UNPROVEN = """\
Files cannot prove what a checkpoint was trained on, nor that a level's own code looks at pictures
alone: it ran as a process of its own and was given no labels, but could read a disk. val's figures
are compared with history.json, train's with nothing. --retrain repeats each run.
"""


def summary(grades: list[Grade]) -> str:
    """ "4 of 5 levels pass"."""
    passed = sum(grade.passed for grade in grades)
    return f"{passed} of {len(grades)} levels pass"


def text(grades: list[Grade], notes: list[str]) -> str:
    """The table, then each level's checks."""
    header = ["level", "result", "test accuracy", "95 % interval", "benchmark", "gain, points"]
    header += ["95 % interval", "verdict"]
    lines = [aligned(header, [_row(grade) for grade in grades]), ""]
    for grade in grades:
        lines.append(grade.level)
        for check, r in grade.results.items():
            mark = {True: "ok  ", False: "FAIL", None: "--  "}[r.passed]
            lines.append(f"  {mark} {check}: {_words(r)}")
    return "\n".join([*lines, "", *notes, UNPROVEN.rstrip(), summary(grades)]) + "\n"


def _words(result: CheckResult) -> str:
    expected = f"expected {result.expected}; " if result.expected else ""
    return printable(f"{expected}seen {result.seen}" if expected else result.seen)


def _row(grade: Grade) -> list[str]:
    row = [grade.level, "pass" if grade.passed else "FAIL"]
    if not grade.test:
        return [*row, *[""] * 6]
    low, high = grade.test["interval"]
    row += [f"{100 * grade.test['accuracy']:.2f} %", f"{100 * low:.1f} to {percent(high)}"]
    row.append("none applies" if grade.bar is None else f"{grade.bar:g} %")
    if not grade.gain:
        return [*row, "", "", ""]
    low, high = grade.gain["interval"]
    ends = f"{points(low)} to {points(high)}"
    return [*row, points(grade.gain["gain"]), ends, grade.gain["verdict"]]


def as_json(grades: list[Grade], notes: list[str]) -> str:
    """Everything, with unrounded figures."""
    levels = [
        {
            "level": grade.level,
            "report": printable(str(grade.report or "")) or None,
            "passed": grade.passed,
            "test": grade.test,
            "benchmark": grade.bar,
            "below": grade.gain,
            "checks": [
                {"check": check, "outcome": r.outcome}
                | {"expected": printable(r.expected), "seen": printable(r.seen)}
                for check, r in grade.results.items()
            ],
        }
        for grade in grades
    ]
    passed = all(grade.passed for grade in grades)
    content = {"passed": passed, "levels": levels, "notes": [*notes, UNPROVEN.strip()]}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def junit(grades: list[Grade], notes: list[str]) -> str:
    """A suite a level, a case a check."""
    root = ElementTree.Element("testsuites", name="grade")
    for grade in grades:
        outcomes = [r.outcome for r in grade.results.values()]
        counts = {"tests": len(outcomes), "failures": outcomes.count("failed")}
        counts |= {"errors": 0, "skipped": outcomes.count("not run")}
        attributes = {key: str(value) for key, value in counts.items()}
        suite = ElementTree.SubElement(root, "testsuite", name=grade.level, **attributes)
        for check, r in grade.results.items():
            case = ElementTree.SubElement(suite, "testcase", classname=grade.level, name=check)
            kind = {True: "system-out", False: "failure", None: "skipped"}[r.passed]
            words = _words(r)
            ElementTree.SubElement(case, kind, {} if r.passed else {"message": words}).text = words
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=True) + "\n"


def printable(words: str) -> str:
    """Words without control characters, which a submission may hold: a terminal would obey them."""
    return "".join(c if c.isprintable() else "?" for c in words)


def gradescope(grades: list[Grade], notes: list[str]) -> str:
    """results.json: a point a check; the sum of the tests' scores is the score.

    https://gradescope-autograders.readthedocs.io/en/latest/specs/
    """
    tests = [
        {
            "name": f"{grade.level}: {check}",
            "score": 1.0 if r.passed else 0.0,
            "max_score": 1.0,
            "status": "passed" if r.passed else "failed",
            "output": textwrap.shorten(_words(r), 2000),
        }
        for grade in grades
        for check, r in grade.results.items()
    ]
    output = "\n".join([summary(grades), *notes, UNPROVEN])
    return json.dumps({"output": output, "tests": tests}, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[list[Grade], list[str]], str]] = {
    "text": text,
    "json": as_json,
    "junit": junit,
    "gradescope": gradescope,
}
