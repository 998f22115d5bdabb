"""What a directory hands in, and what is found out about it.

Its levels' reports and checkpoints are read and never trusted: nothing here runs code that was
handed in, and nothing is unpickled.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from common import levels
from common.config import Benchmark, LevelConfig, load_config
from common.data import Splits
from common.evaluation import Predictions
from common.models import Weights
from common.reports.schema import read_arrays, read_history, read_metrics
from common.runtime import Runtime
from common.training.checkpoint import read_checkpoint
from common.utils import paths
from common.utils.errors import UserError, nearest
from common.utils.paths import run_place, runs_root


class CheckResult(NamedTuple):
    """One check's outcome; `passed` is None where it could not be run."""

    passed: bool | None
    expected: str
    seen: str

    @property
    def outcome(self) -> str:
        return {True: "passed", False: "failed", None: "not run"}[self.passed]


@dataclass
class Grader:
    """What all levels are graded with: the command line's options (`run`: a run by its report's
    name, instead of its level's own), and what was read so far.

    Attributes:
        grades: of all levels, lowest first.
        copy: of the project, where runs are repeated.
        data: the pictures, by what the config says of them.
    """

    data_root: str | None = None
    weights: str | None = None
    timeout: float = 3600
    retrain: bool = False
    run: str | None = None
    grades: list["Grade"] = field(default_factory=list)
    copy: Path | None = None
    data: dict[str, Splits] = field(default_factory=dict)


@dataclass(kw_only=True)
class Grade:
    """A level's submission, what is recomputed from it, and what each check says.

    What could not be read or computed is None.

    Attributes:
        benchmarks: of this checkout's own config, or of the submission's for a level of its own.
        problems: of "report" and "checkpoint", those that are not whole -> why.
        below: the next lower level's grade.
        config: the run's, for this machine.
        start: tensors that the run may have started from, by their names in its network.
        predictions, single: of test, by the checkpoint's network, with and without augmentation.
        test: correct, total, accuracy and loss of `predictions`, with the accuracy's `interval`.
        same: whether the run's own predictions are due to the bit, by machine and versions.
        bar: the benchmark that applies, in percent.
        gain: what `statistics.compare` gives against the level below, with its name as `level`.
    """

    project: Path
    level: str
    report: Path | None = None
    checkpoint_path: Path | None = None
    metrics: dict | None = None
    history: list[dict] | None = None
    arrays: dict[str, np.ndarray] | None = None
    checkpoint: dict[str, Any] | None = None
    benchmarks: list[Benchmark] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    grader: Grader = field(default_factory=Grader)
    below: "Grade | None" = None
    results: dict[str, CheckResult] = field(default_factory=dict)
    config: LevelConfig | None = None
    runtime: Runtime | None = None
    data: Splits | None = None
    weights: Weights | None = None
    start: list[dict[str, Tensor]] | None = None
    predictions: Predictions | None = None
    single: Predictions | None = None
    test: dict | None = None
    same: bool = False
    bar: float | None = None
    gain: dict | None = None

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.results.values())


def gather(project: Path, reports: Path | None, grader: Grader) -> list[Grade]:
    """Every level that the project or this checkout has: its own config's report, lowest seed.
    Where a run was named, that run's and the level below it alone.

    Raises:
        UserError: a run was named that has no report here.
    """
    found = [*levels.find_levels(project), *levels.find_levels()]
    names = {level.name for level in found}
    ordered = sorted(names, key=lambda name: (levels.number(name), name))
    there = [report.name for report in (reports_in(reports) if reports else [])]
    if grader.run and grader.run not in there:
        hint = nearest(grader.run, there) if there else "; there are none"
        raise UserError(f"--run: no report '{grader.run}' in {reports or project}{hint}")
    if grader.run:
        ordered = ordered[: ordered.index(_level_of(Path(grader.run))) + 1][-2:]
    return [_read(project, reports, name, grader) for name in ordered]


def report_folders(project: Path) -> list[Path]:
    """Folders below a project that hold reports, those with most checkpoints first.

    Reports of the same number go by the time of their last change, the newest first.
    """
    places = [*_runs(project).glob("*/reports"), project / "reports", *project.glob("reports/*")]

    def worth(folder: Path) -> tuple[int, float]:
        found = reports_in(folder)
        changed = max(report.stat().st_mtime for report in found)
        return sum(_has_checkpoint(project, report) for report in found), changed

    return sorted((folder for folder in places if reports_in(folder)), key=worth, reverse=True)


def reports_in(folder: Path) -> list[Path]:
    """Folders in it that are, or should be, reports of levels."""
    files = [*folder.glob("level*/metrics.json"), *folder.glob("level*/predictions.npz")]
    return sorted({f.parent for f in files if levels.number(_level_of(f.parent)) is not None})


def checkpoints_of(level: str, project: Path) -> list[Path]:
    """The best checkpoints of a level's runs, on any data and of any config."""
    return [file for file in _runs(project).glob("*/*/best.pt") if _level_of(file.parent) == level]


def _runs(project: Path) -> Path:
    """Where a project's runs stand: this one's may be elsewhere."""
    return runs_root() if project == paths.PROJECT else project / "runs"


def _level_of(run: Path) -> str:
    return run.name.split("-")[0]


def _read(project: Path, reports: Path | None, level: str, grader: Grader) -> Grade:
    own = [r for r in reports_in(reports) if _level_of(r) == level] if reports else []
    own = [r for r in own if r.name == grader.run] or own
    report = min(own, key=_preference, default=None)
    grade = Grade(project=project, level=level, report=report, grader=grader)
    problems = grade.problems
    if not (project / level / "run.py").is_file():
        problems["report"] = f"no {level}/run.py in {project}"
    elif report is None:
        problems["report"] = f"no report of {level} in {reports or project}"
    else:
        readers = {"metrics": read_metrics, "history": read_history, "arrays": read_arrays}
        for name, read in readers.items():
            try:
                setattr(grade, name, read(report))
            except UserError as error:
                problems.setdefault("report", str(error))
    if grade.metrics is not None:
        grade.checkpoint_path = _checkpoint_place(project, report, grade.metrics)
        try:
            grade.checkpoint = read_checkpoint(grade.checkpoint_path)
        except UserError as error:
            problems["checkpoint"] = str(error)
    ours = paths.PROJECT / level / "config.yaml"
    try:
        config = load_config(ours if ours.is_file() else project / level / "config.yaml")
        grade.benchmarks = config.benchmarks
    except UserError as error:
        problems.setdefault("report", str(error))
    return grade


def _preference(report: Path) -> tuple[bool, int, str]:
    """The level's own config before others, then the lowest seed."""
    seed = re.search(r"-seed(\d+)$", report.name)
    stem = report.name.removesuffix(seed[0]) if seed else report.name
    return "-" in stem, int(seed[1]) if seed else 0, report.name


def _has_checkpoint(project: Path, report: Path) -> bool:
    try:
        return _checkpoint_place(project, report, read_metrics(report)).is_file()
    except UserError:
        return False


def _checkpoint_place(project: Path, report: Path, metrics: dict) -> Path:
    return run_place(_runs(project), metrics) / report.name / "best.pt"
