"""A grade as a table for people, JSON, JUnit's XML, or Gradescope's results.json."""

import json
import textwrap
from collections.abc import Callable
from xml.etree import ElementTree

from common.grade.checks import Finding
from common.grade.examine import Grade
from common.reports.figures.plots import points
from common.reports.markdown import aligned, percent

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
        lines.append(grade.submission.level)
        for f in grade.findings:
            mark = {True: "ok  ", False: "FAIL", None: "--  "}[f.passed]
            lines.append(f"  {mark} {f.check}: {_words(f)}")
    return "\n".join([*lines, "", *notes, UNPROVEN.rstrip(), summary(grades)]) + "\n"


def _words(finding: Finding) -> str:
    expected = f"expected {finding.expected}; " if finding.expected else ""
    return printable(f"{expected}seen {finding.seen}" if expected else finding.seen)


def _row(grade: Grade) -> list[str]:
    row = [grade.submission.level, "pass" if grade.passed else "FAIL"]
    if not grade.test:
        return [*row, *[""] * 6]
    low, high = grade.test["interval"]
    row += [f"{100 * grade.test['accuracy']:.2f} %", f"{100 * low:.1f} to {percent(high)}"]
    row.append("none applies" if grade.bar is None else f"{grade.bar:g} %")
    if not grade.below:
        return [*row, "", "", ""]
    low, high = grade.below["interval"]
    ends = f"{points(low)} to {points(high)}"
    return [*row, points(grade.below["gain"]), ends, grade.below["verdict"]]


def as_json(grades: list[Grade], notes: list[str]) -> str:
    """Everything, with unrounded figures."""
    levels = [
        {
            "level": grade.submission.level,
            "report": printable(str(grade.submission.report or "")) or None,
            "passed": grade.passed,
            "test": grade.test,
            "benchmark": grade.bar,
            "below": grade.below,
            "checks": [
                {"check": f.check, "outcome": f.outcome}
                | {"expected": printable(f.expected), "seen": printable(f.seen)}
                for f in grade.findings
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
        outcomes = [f.outcome for f in grade.findings]
        counts = {"tests": len(outcomes), "failures": outcomes.count("failed")}
        counts |= {"errors": 0, "skipped": outcomes.count("not run")}
        attributes = {key: str(value) for key, value in counts.items()}
        suite = ElementTree.SubElement(root, "testsuite", name=grade.submission.level, **attributes)
        for f in grade.findings:
            case = ElementTree.SubElement(
                suite, "testcase", classname=grade.submission.level, name=f.check
            )
            words = _words(f)
            if f.passed:
                ElementTree.SubElement(case, "system-out").text = words
            else:
                kind = "failure" if f.passed is False else "skipped"
                ElementTree.SubElement(case, kind, message=words).text = words
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
            "name": f"{grade.submission.level}: {f.check}",
            "score": 1.0 if f.passed else 0.0,
            "max_score": 1.0,
            "status": "passed" if f.passed else "failed",
            "output": textwrap.shorten(_words(f), 2000),
        }
        for grade in grades
        for f in grade.findings
    ]
    output = "\n".join([summary(grades), *notes, UNPROVEN])
    return json.dumps({"output": output, "tests": tests}, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[list[Grade], list[str]], str]] = {
    "text": text,
    "json": as_json,
    "junit": junit,
    "gradescope": gradescope,
}
