"""What a directory hands in: its levels, their reports and checkpoints, read and never trusted.

Nothing here runs code that was handed in, and nothing is unpickled.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.levels import find_levels
from common.reports.readers import read_arrays, read_history, read_metrics
from common.training.checkpoint import read_checkpoint
from common.utils.errors import UserError
from common.utils.paths import slug


@dataclass
class Submission:
    """One level of a submission; what could not be read is None, and `problems` says why."""

    project: Path
    level: str
    report: Path | None
    checkpoint_path: Path | None = None
    metrics: dict | None = None
    history: list[dict] | None = None
    predictions: dict[str, np.ndarray] | None = None
    checkpoint: dict[str, Any] | None = None
    problems: dict[str, str] = field(default_factory=dict)


def report_folders(project: Path) -> list[Path]:
    """Folders below a project that hold reports, those with most checkpoints first.

    Reports of the same number go by the time of their last change, the newest first.
    """
    places = [*project.glob("runs/*/reports"), project / "reports", *project.glob("reports/*")]

    def worth(folder: Path) -> tuple[int, float]:
        reports = _reports(folder)
        there = [_checkpoint_place(project, report) for report in reports]
        changed = max(report.stat().st_mtime for report in reports)
        return sum(place is not None and place.is_file() for place in there), changed

    return sorted((folder for folder in places if _reports(folder)), key=worth, reverse=True)


def gather(project: Path, reports: Path | None, names: list[str]) -> list[Submission]:
    """The submission for each of the named levels: its own config's report of the lowest seed."""
    return [_gather_level(project, reports, name) for name in names]


def level_names(*projects: Path) -> list[str]:
    """The levels that any of the projects has, lowest first."""
    names = {level.name for project in projects for level in find_levels(project)}
    return sorted(names, key=lambda name: (int(re.match(r"level(\d+)", name)[1]), name))


def others(reports: Path, graded: list[Submission]) -> list[str]:
    """Names of the reports in the folder that are not graded."""
    own = {submission.report for submission in graded}
    return [report.name for report in _reports(reports) if report not in own]


def _reports(folder: Path) -> list[Path]:
    """Folders that are, or should be, reports of levels."""
    files = [*folder.glob("level*/metrics.json"), *folder.glob("level*/predictions.npz")]
    return sorted({file.parent for file in files if re.match(r"level\d+_\w", file.parent.name)})


def _preference(report: Path) -> tuple[bool, int, str]:
    """The level's own config before others, then the lowest seed."""
    seed = re.search(r"-seed(\d+)$", report.name)
    stem = report.name.removesuffix(seed[0]) if seed else report.name
    return "-" in stem, int(seed[1]) if seed else 0, report.name


def _gather_level(project: Path, reports: Path | None, level: str) -> Submission:
    own = [r for r in _reports(reports) if r.name.split("-")[0] == level] if reports else []
    report = min(own, key=_preference, default=None)
    submission = Submission(project, level, report)
    if not (project / level / "run.py").is_file():
        submission.problems["report"] = f"no {level}/run.py in {project}"
    elif report is None:
        submission.problems["report"] = f"no report of {level} in {reports or project}"
    else:
        _read_report(submission)
        _read_checkpoint(submission)
    return submission


def _read_report(submission: Submission) -> None:
    readers = {"metrics": read_metrics, "history": read_history, "predictions": read_arrays}
    for name, read in readers.items():
        try:
            setattr(submission, name, read(submission.report))
        except UserError as error:
            submission.problems.setdefault("report", str(error))


def _read_checkpoint(submission: Submission) -> None:
    if submission.metrics is None:
        return
    place = submission.checkpoint_path = _checkpoint_place(submission.project, submission.report)
    try:
        submission.checkpoint = read_checkpoint(place)
    except UserError as error:
        submission.problems["checkpoint"] = str(error)


def _checkpoint_place(project: Path, report: Path) -> Path | None:
    try:
        title = read_metrics(report)["data"]["title"]
    except UserError:
        return None
    return project / "runs" / slug(title) / report.name / "best.pt"
