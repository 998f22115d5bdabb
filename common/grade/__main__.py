"""Grade a project: recompute from its files what its reports claim, and judge it.

    python -m common.grade                         # this project
    python -m common.grade ~/handed_in/alice       # a copy of it, by this checkout's common/
    python -m common.grade LEVEL_DIR               # one level: accuracy and loss of its weights

DIR supplies levels, checkpoints and reports. Its `build_network` runs in a process of its own.
Status 0: every level passes; 1: some fail; 2: bad input.
"""

import argparse
import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import NoReturn

from common import cli, levels
from common.config import Benchmark, load_config
from common.config.schema import comparable
from common.data import load_splits
from common.evaluation import tta_of
from common.grade import retrain, sandbox
from common.grade.examine import CHECKS, DataCache, Grade, Options, examine
from common.grade.formats import FORMATS, printable
from common.grade.gains import compare_with_below
from common.grade.submission import Submission, gather, level_names, others, report_folders
from common.models import input_size
from common.reports.readers import read_settings
from common.runtime import start_runtime
from common.training.checkpoint import read_checkpoint
from common.utils import files, paths
from common.utils.errors import UserError, nearest
from common.utils.paths import expanded

log = logging.getLogger("rungs")


class Parser(argparse.ArgumentParser):
    """One whose errors are the user's to mend, in one line."""

    def error(self, message: str) -> NoReturn:
        unknown = next((word for word in message.split() if word.startswith("--")), "")
        known = [option for action in self._actions for option in action.option_strings]
        hint = nearest(unknown, known) if message.startswith("unrecognized") and unknown else ""
        raise UserError(f"command line: {message}{hint}")


def main() -> None:
    """Grade what the command line names."""
    arguments = _parser().parse_args()
    log.setLevel(logging.WARNING)
    for handler in log.handlers:  # stdout is the grade's
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stderr)
    options = Options(arguments.data_root, arguments.weights, arguments.timeout, arguments.retrain)
    if arguments.output:
        files.check_file("--output", expanded(arguments.output))
    place = expanded(arguments.dir) if arguments.dir else paths.PROJECT
    if not place.is_dir():  # a level's name, from any folder
        place = paths.PROJECT / place
    if (place / "run.py").is_file():
        _write(_score_level(place.resolve(), options, arguments.format), arguments.output)
        return
    if not place.is_dir() or not levels.find_levels(place):
        raise UserError(
            f"{place}: no project to grade: it needs level<N>_<name>/ with run.py and config.yaml"
        )
    grades, notes = grade_project(place.resolve(), arguments.reports, options)
    notes = [printable(note) for note in notes]
    _write(FORMATS[arguments.format](grades, notes), arguments.output)
    if not all(grade.passed for grade in grades):
        sys.exit(1)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m common.grade",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("dir", nargs="?", metavar="DIR", help="a project, or one level of it (default: this one)")
    add("--reports", metavar="DIR", help="the folder of reports (default: what has checkpoints)")
    add("--data-root", metavar="DIR", help="where the pictures are on this machine")
    add("--weights", metavar="FILE", help="the starting weights, where a report has a file's path")
    add("--format", choices=FORMATS, default="text", help="of the grade (default: text)")
    add("--output", metavar="FILE", help="write the grade there instead of printing it")
    add("--retrain", action="store_true", help="repeat each run in a copy, and compare")
    add(
        "--timeout",
        type=_seconds,
        default=3600,
        metavar="SECONDS",
        help="for a level's test logits, and at least that for a repeated run (default: 3600)",
    )
    return parser


def _seconds(value: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(value)) < 1e9:
            return seconds
    raise argparse.ArgumentTypeError(f"must be above 0, not {value}")


def grade_project(
    project: Path, reports: str | None, options: Options
) -> tuple[list[Grade], list[str]]:
    """The grade of every level that the project or this checkout has, and what else to say.

    Raises:
        UserError: a folder of reports that is none.
    """
    found = report_folders(project)
    notes = []
    if reports:
        places = [project / expanded(reports), expanded(reports)]
        folder = next((place.resolve() for place in places if place.is_dir()), None)
        if folder is None:
            raise UserError(f"--reports: no folder {places[0]}")
    else:
        folder = found[0] if found else None
    names = level_names(project, paths.PROJECT)
    graded = gather(project, folder, names)
    if folder:
        notes.append(f"Graded: the reports in {folder}, by the levels of {project}.")
        if left := others(folder, graded):
            notes.append(f"Not graded: {', '.join(left)}.")
        if rest := [str(f) for f in found if f.resolve() != folder.resolve()]:
            notes.append(f"Other reports (--reports chooses): {', '.join(rest)}.")
    cache, grades = DataCache(), []
    for submission in graded:
        log.warning("grading %s", submission.level)
        rows, whose = _benchmarks(submission), _owner(submission, graded)
        grades.append(examine(submission, rows, options, cache, whose))
    compare_with_below(grades)
    if options.retrain:
        retrain.train_again(grades, options)
    for grade in grades:
        grade.fill([*CHECKS, *([retrain.CHECK] if options.retrain else [])])
    return grades, notes


def _owner(submission: Submission, graded: list[Submission]) -> str:
    """The other level that the checkpoint's settings belong to, or ""."""
    if submission.checkpoint is None:
        return ""
    settings = comparable(submission.checkpoint["settings"])
    if settings == comparable(submission.metrics["settings"]):
        return ""
    known = [other for other in graded if other.metrics is not None and other is not submission]
    found = (o.level for o in known if comparable(o.metrics["settings"]) == settings)
    return next(found, "")


def _benchmarks(submission: Submission) -> list[Benchmark]:
    """Of this checkout's own config, or of the submission's for a level of its own."""
    own = paths.PROJECT / submission.level / "config.yaml"
    file = own if own.is_file() else submission.project / submission.level / "config.yaml"
    try:
        return load_config(file).benchmarks
    except UserError as error:
        submission.problems.setdefault("report", str(error))
        return []


def _score_level(level: Path, options: Options, form: str) -> str:
    """Test accuracy and loss of a level's saved weights, without training.

    Raises:
        UserError: there are none, or they cannot be run here.
    """
    found = [f for f in level.parent.glob("runs/*/*/best.pt") if _of_level(f, level.name)]
    if not found:
        raise UserError(f"{level}: no saved weights (runs/*/{level.name}/best.pt); run it first")
    path = max(found, key=lambda file: (file.parent.name == level.name, file.stat().st_mtime))
    content = read_checkpoint(path)
    paths = options.data_root, options.weights
    config = read_settings(content["settings"], level.parent, *paths, place=path)
    data = load_splits(config.data, input_size(config.network))
    machine = start_runtime(config.train, config.fast)
    log.warning("%s of %d test pictures on %s", path, len(data.test), machine.device)
    tta = tta_of(config, data)
    test, _ = sandbox.test_logits(level, config, path, data.test, tta, options.timeout)
    score = test.score()
    if form == "json":
        facts = {"level": level.name, "data": data.title, "tta": tta, "checkpoint": str(path)}
        return json.dumps(facts | score, indent=2, ensure_ascii=False) + "\n"
    accuracy, counts = 100 * score["accuracy"], f"{score['correct']} of {score['total']}"
    figures = f"test accuracy {accuracy:.2f} % ({counts}), loss {score['loss']:.6f}"
    others = "".join(f"\nalso there: {file}" for file in found if file != path)
    return f"{level.name} on {data.title}: {figures}\nweights: {path}{others}\n"


def _of_level(checkpoint: Path, name: str) -> bool:
    return checkpoint.parent.name.split("-")[0] == name


def _write(grade: str, output: str | None) -> None:
    if output is None:
        print(grade, end="", flush=True)
        return
    try:
        expanded(output).write_text(grade, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output: cannot write {output} ({error.strerror})") from error


if __name__ == "__main__":
    cli.command(main)
