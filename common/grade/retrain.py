"""Trains a submission's levels again, in a copy of it, and compares."""

import shutil
import tempfile
from pathlib import Path

from common.config import LevelConfig, yaml_files
from common.evaluation import statistics, tta_of
from common.grade import sandbox
from common.grade.checks import Finding
from common.grade.examine import Grade, Options
from common.reports.figures.plots import points
from common.utils import paths
from common.utils.errors import UserError

CHECK = "trained again"
LEFT_OUT = ("common", "runs", "data", "reports", "__pycache__")  # of a copy to run again in


def train_again(grades: list[Grade], options: Options) -> None:
    """Repeat each run in a copy of the submission, and compare test predictions."""
    with tempfile.TemporaryDirectory(prefix="grade-") as place:
        for grade in grades:
            if grade.predictions is not None:
                grade.findings.append(_train_again(grade, Path(place), options))


def _train_again(grade: Grade, place: Path, options: Options) -> Finding:
    submission, config = grade.submission, grade.config
    level, project = submission.level, submission.project
    equal = grade.same and submission.metrics["machine"].get("gpu") is None
    expected = (
        "the same predictions" if equal else "an accuracy within 1 point, or no difference shown"
    )
    claimed = submission.metrics.get("seconds")
    allowed = max(options.timeout, 10 * claimed if isinstance(claimed, int | float) else 0)
    tta = tta_of(config, grade.data)
    try:
        checkpoint = run_again(project, place, level, config, allowed)
        test, _ = sandbox.test_logits(
            project / level, config, checkpoint, grade.data.test, tta, options.timeout
        )
    except UserError as error:
        return Finding(CHECK, False, expected, str(error))
    first, second = grade.predictions.classes, test.classes
    differ, total = int((first != second).sum()), len(first)
    change = statistics.compare(test.labels.numpy(), first.numpy(), second.numpy())
    seen = f"{differ} of {total} differ, {points(change['gain'])} points"
    near = abs(change["gain"]) <= 0.01 or change["verdict"] == "not shown"
    return Finding(CHECK, not differ if equal else near, expected, seen)


def run_again(project: Path, place: Path, level: str, config: LevelConfig, timeout: float) -> Path:
    """Train a level again in `place`, a copy of the submission with our `common/`; its best.pt.

    Raises:
        UserError: it crashed, or took too long.
    """
    if not (place / "common").exists():
        _copy_project(project, place)
    file = place / ".settings" / level / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(yaml_files.write(config.settings()), encoding="utf-8")
    reports = place / "reports"
    line = [str(place / level / "run.py"), "--config", str(file), "--reports", str(reports)]
    sandbox.run(line, place, timeout)
    found = [f for f in place.glob("runs/*/*/best.pt") if f.parent.name.split("-")[0] == level]
    if not found:
        raise UserError("it ended without a checkpoint")
    return max(found, key=lambda f: f.stat().st_mtime)


def _copy_project(project: Path, place: Path) -> None:
    left_out = shutil.ignore_patterns(".*", *LEFT_OUT)
    shutil.copytree(project, place, ignore=left_out, dirs_exist_ok=True)
    own = paths.PROJECT
    without_weights = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(own / "common", place / "common", ignore=without_weights)
    (place / "common/weights").symlink_to(own / "common/weights")
    (own / "data").mkdir(exist_ok=True)
    (place / "data").symlink_to(own / "data")
