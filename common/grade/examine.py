"""Grades a project: every check of each level, lowest first; or scores one level alone."""

import logging
import tempfile
from pathlib import Path

from common import levels
from common.data import load_splits
from common.evaluation import tta_of
from common.grade import retrain, sandbox
from common.grade.checks import CHECKS
from common.grade.formats import printable
from common.grade.submission import (
    CheckResult,
    Grade,
    Grader,
    checkpoints_of,
    gather,
    report_folders,
    reports_in,
)
from common.models import input_size
from common.reports.restore import read_settings
from common.runtime import start_runtime
from common.training.checkpoint import read_checkpoint
from common.utils.errors import UserError, line
from common.utils.paths import expanded

log = logging.getLogger("rungs")


def grade_project(
    project: Path, reports: str | None, grader: Grader
) -> tuple[list[Grade], list[str]]:
    """The grade of every level that the project or this checkout has, or of the run that was named,
    and what else to say.

    Raises:
        UserError: a folder of reports that is none.
    """
    found, notes = report_folders(project), []
    folder = found[0] if found else None
    if reports:
        places = [project / expanded(reports), expanded(reports)]
        folder = next((place.resolve() for place in places if place.is_dir()), None)
        if folder is None:
            raise UserError(f"--reports: no folder {places[0]}")
    grades = grader.grades = gather(project, folder, grader)
    if folder:
        notes.append(f"Graded: the reports in {folder}, by the levels of {project}.")
        own = [grade.report for grade in grades]
        if left := [report.name for report in reports_in(folder) if report not in own]:
            notes.append(f"Not graded (--run NAME does): {', '.join(left)}.")
        if rest := [str(f) for f in found if f.resolve() != folder.resolve()]:
            notes.append(f"Other reports (--reports chooses): {', '.join(rest)}.")
    with tempfile.TemporaryDirectory(prefix="grade-") as place:
        grader.copy = Path(place) / "project"
        for grade in grades:
            log.warning("grading %s", grade.level)
            number = levels.number(grade.level)
            lower = [other for other in grades if levels.number(other.level) < number]
            grade.below = lower[-1] if lower else None
            _examine(grade)
    return grades[-1:] if grader.run else grades, [printable(note) for note in notes]


def _examine(grade: Grade) -> None:
    """Run the checks, in their order, as far as there is what they need."""
    checks, results = dict(CHECKS), grade.results
    if grade.grader.retrain:
        checks["trained again"] = retrain.check_trained_again, "predictions"
    try:
        for name, (check, *needs) in checks.items():
            if all(getattr(grade, need) is not None for need in needs):
                results[name] = check(grade)
    except Exception as error:  # files made to break a reader must not end the others' grade
        log.warning("%s: cannot be examined", grade.level, exc_info=True)
        text = f"{type(error).__name__}: {line(error)}"
        results = {"report": CheckResult(False, "a report that can be examined", text)}
        grade.predictions = grade.test = None
    first = next((name for name, result in results.items() if not result.passed), "")
    missing = CheckResult(None, "", f"not run: see {first}")
    grade.results = {name: results.get(name, missing) for name in checks}


def score_level(level: Path, grader: Grader) -> tuple[dict, list[Path]]:
    """Test score of a level's saved weights, without training, and which they are.

    Returns:
        level, data, tta, checkpoint, correct, total, accuracy and loss; and its other checkpoints.
    Raises:
        UserError: there are none, or they cannot be run here.
    """
    found = checkpoints_of(level.name, level.parent)
    if not found:
        raise UserError(f"{level}: no saved weights (runs/*/{level.name}/best.pt); run it first")
    path = max(found, key=lambda file: (file.parent.name == level.name, file.stat().st_mtime))
    settings = read_checkpoint(path)["settings"]
    config = read_settings(settings, level.parent, grader.data_root, grader.weights, path)
    data = load_splits(config.data, input_size(config.network))
    machine = start_runtime(config.train, config.fast)
    log.warning("%s of %d test pictures on %s", path, len(data.test), machine.device)
    test, _ = sandbox.test_logits(level, config, path, data, grader.timeout)
    facts = {"level": level.name, "data": data.title, "tta": tta_of(config, data)}
    facts |= {"checkpoint": str(path)}
    return facts | test.score(), [file for file in found if file != path]
