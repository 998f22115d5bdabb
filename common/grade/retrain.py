"""Trains a submission's levels again, in a copy of it, and compares."""

from pathlib import Path

from common import levels
from common.config import yaml_files
from common.evaluation import statistics
from common.grade import sandbox
from common.grade.checks import logits_of
from common.grade.submission import CheckResult, Grade, checkpoints_of
from common.reports.text import points
from common.utils.errors import UserError, line

LEFT_OUT = "common", "runs", "data", "reports"  # of the copy to run again in


def check_trained_again(grade: Grade) -> CheckResult:
    """The run, repeated in a copy of the project, ends with the same test predictions."""
    equal = grade.same and grade.metrics["machine"].get("gpu") is None
    near = "an accuracy within 1 point, or no difference shown"
    expected = "the same predictions" if equal else near
    allowed = max(grade.grader.timeout, 10 * grade.metrics["seconds"])
    try:
        test, _ = logits_of(grade, run_again(grade, allowed))
    except UserError as error:
        return CheckResult(False, expected, str(error))
    first, second = grade.predictions.classes, test.classes
    differ, total = int((first != second).sum()), len(first)
    change = statistics.compare(test.labels.numpy(), first.numpy(), second.numpy())
    seen = f"{differ} of {total} differ, {points(change['gain'])} points"
    near = abs(change["gain"]) <= 0.01 or change["verdict"] == "not shown"
    return CheckResult(not differ if equal else near, expected, seen)


def run_again(grade: Grade, timeout: float) -> Path:
    """Train a level again in a copy of the project, beside our `common/`; its best.pt.

    Raises:
        UserError: it cannot be copied, it crashed, or took too long.
    """
    place, level = grade.grader.copy, grade.level
    if not place.exists():
        parts = [part for part in grade.project.iterdir() if part.name not in LEFT_OUT]
        try:
            levels.copy_code([part for part in parts if not part.name.startswith(".")], place)
        except OSError as error:  # what is no file, say
            raise UserError(f"{grade.project}: cannot be copied ({line(error)})") from error
    # as the level's own, by whose name the next level looks for the run that it starts from
    own = place / level / "config.yaml"
    own.write_text(yaml_files.write(grade.config.settings()), encoding="utf-8")
    command = [str(place / level / "run.py"), "--reports", str(place / "reports")]
    sandbox.run(command, place, timeout)
    found = checkpoints_of(level, place)
    if not found:
        raise UserError("it ended without a checkpoint")
    return max(found, key=lambda file: file.stat().st_mtime)
