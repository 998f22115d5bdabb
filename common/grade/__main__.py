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

from common import cli, levels
from common.utils import files, paths
from common.utils.errors import UserError
from common.utils.paths import expanded

log = logging.getLogger("rungs")


def main() -> None:
    """Grade what the command line names."""
    arguments = _parser().parse_args()
    log.setLevel(logging.WARNING)
    for handler in log.handlers:  # stdout is the grade's
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stderr)
    if arguments.output:
        files.check_file("--output", expanded(arguments.output))
    place = expanded(arguments.dir) if arguments.dir else paths.PROJECT
    if not place.is_dir():  # a level's name, from any folder
        place = paths.PROJECT / place
    level = (place / "run.py").is_file()
    if not level and not (place.is_dir() and levels.find_levels(place)):
        raise UserError(
            f"{place}: no project to grade: it needs level<N>_<name>/ with run.py and config.yaml"
        )

    from common.grade import examine, formats, submission

    # runs and networks have other working folders
    here = (p and str(expanded(p).absolute()) for p in (arguments.data_root, arguments.weights))
    grader = submission.Grader(*here, arguments.timeout, arguments.retrain, arguments.run)
    if level:
        score = examine.score_level(place.resolve(), grader)
        _write(_shown(*score, arguments.format), arguments.output)
        return
    grades, notes = examine.grade_project(place.resolve(), arguments.reports, grader)
    _write(formats.FORMATS[arguments.format](grades, notes), arguments.output)
    if not all(grade.passed for grade in grades):
        sys.exit(1)


def _parser() -> cli.Parser:
    parser = cli.Parser("grade", __doc__)
    add = parser.add_argument
    add("dir", nargs="?", metavar="DIR", help="a project, or one level of it (default: this one)")
    add("--reports", metavar="DIR", help="the folder of reports (default: what has checkpoints)")
    add("--run", metavar="NAME", help="grade this run of its level, not the level's own")
    add("--data-root", metavar="DIR", help="where the pictures are on this machine")
    add("--weights", metavar="FILE", help="the starting weights, where a report has a file's path")
    formats = ("text", "json", "junit", "gradescope")
    add("--format", choices=formats, default="text", help="of the grade (default: text)")
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


def _shown(score: dict, others: list[Path], form: str) -> str:
    if form == "json":
        return json.dumps(score, indent=2, ensure_ascii=False) + "\n"
    accuracy, counts = 100 * score["accuracy"], f"{score['correct']} of {score['total']}"
    figures = f"test accuracy {accuracy:.2f} % ({counts}), loss {score['loss']:.6f}"
    more = "".join(f"\nalso there: {file}" for file in others)
    where = f"weights: {score['checkpoint']}{more}"
    return f"{score['level']} on {score['data']}: {figures}\n{where}\n"


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
