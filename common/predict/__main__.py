"""What every trained level answers for pictures of one's own, and where it looks.

    python -m common.predict photo.jpg more/       # pictures, folders of pictures
    python -m common.predict --serve               # a page on 127.0.0.1 to drop pictures on

The levels' best weights are those of runs/, or of the folder that --runs names, of the data that
was trained on last; --runs may name one data set's folder instead, and the page lets one choose.
Prints each level's top 3 with confidence, and saves a sheet of pictures; a file that cannot be read
is skipped and counted.

An answer is "not sure" below the probability from which on 95 % of the answers on val were right. A
picture is "none of these classes, perhaps" where what the last layer reads of it lies farther from
the training pictures' than 95 % of val's do. Both are measured once, and kept beside the run.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common import cli
from common.utils.errors import UserError
from common.utils.files import check_file
from common.utils.paths import expanded

if TYPE_CHECKING:
    from common.predict.answers import Answer, Answers

log = logging.getLogger("rungs")


def main() -> None:
    """Answer for the pictures on the command line, or serve the page."""
    parser = cli.Parser("predict", __doc__)
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="a picture, or a folder")
    parser.add_argument("--runs", metavar="DIR", help="where all runs are, or one data set's")
    parser.add_argument("--output", metavar="FILE.png", help="the sheet (default: in the runs)")
    parser.add_argument("--serve", action="store_true", help="a page on 127.0.0.1 instead")
    parser.add_argument("--port", type=int, default=8008, help="of the page; 0: any free one")
    arguments = parser.parse_args()
    if bool(arguments.pictures) == arguments.serve:
        raise UserError("command line: name pictures, or give --serve")

    from common.predict.places import all_runs

    runs, *others = all_runs(expanded(arguments.runs) if arguments.runs else None)
    if arguments.serve:
        from common.predict.choices import Choices
        from common.predict.server import serve

        serve(Choices([runs, *others]), arguments.port)
        return
    if others:
        log.info("levels of %s; of %d more data sets with --runs", runs, len(others))
    from common.predict.answers import Answers

    files, sheet = list_pictures(arguments.pictures), runs / "predictions.png"
    if arguments.output:
        sheet = expanded(arguments.output)
        check_file("--output", sheet)
    answers = Answers(runs)
    answers.measure(quick=True)
    for trained in answers.trained:
        if trained.why:
            log.info("%s: when to doubt it is left out: %s", trained.level, trained.why)
    _predict(files, answers, sheet)


def list_pictures(named: list[str]) -> list[Path]:
    """The files that are named, and the pictures of folders that are.

    Raises:
        UserError: something that is not there, or a folder without pictures.
    """
    from common.data.decode import FORMATS, is_picture

    files = []
    for name in named:
        place = expanded(name)
        if place.is_dir():
            found = sorted(p for p in place.rglob("*") if is_picture(p))
            if not found:
                raise UserError(f"{name}: no pictures in this folder ({', '.join(FORMATS)})")
            files += found
        elif place.is_file():
            files.append(place)
        else:
            raise UserError(f"{name}: no such file or folder")
    return files


def shown(text: object) -> str:
    """A file's name as text, also where it is not UTF-8."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def _predict(files: list[Path], answers: "Answers", sheet: Path) -> None:
    from common.data.decode import UnreadablePicture
    from common.predict.answers import SHEET, verdict
    from common.reports.figures import galleries
    from common.reports.figures.style import png

    seen, said, names, unreadable = [], [], [], []
    for file in files:
        try:
            picture, found = answers(file)
        except UnreadablePicture as error:
            unreadable.append(f"{shown(file)}: not a readable picture ({error})")
            continue
        print(shown(file))
        for answer in found:
            print(f"  {answer.level:22}{_line(answer)}")
        if doubt := verdict(found):
            print(f"  {doubt}")
        if len(seen) < SHEET:
            seen.append(picture)
            said.append(found)
            names.append(shown(file.name))
    if not seen:
        others = f"; nor are {len(unreadable) - 1} others" if unreadable[1:] else ""
        raise UserError(unreadable[0] + others)
    if unreadable:
        log.warning("skipped: %d of %d pictures", len(unreadable), len(files))
        for text in unreadable:
            log.warning("  %s", text)
    columns = {}
    for i, level in enumerate(answers.levels):
        maps = [found[i].places for found in said]
        lines = [_first(found[i]) for found in said]
        columns[level] = (None if maps[0] is None else np.stack(maps), lines)
    try:
        sheet.write_bytes(png(galleries.side_by_side(np.stack(seen), names, columns)))
    except OSError as error:
        raise UserError(f"--output: cannot write {sheet} ({error.strerror})") from error
    print(sheet)


def _line(answer: "Answer") -> str:
    """A level's first answers, and whether they are to be doubted."""
    words = [f"{name} {100 * share:.1f} %" for name, share in answer.top]
    words += ["not sure"] if answer.sure is False else []
    words += ["none of these classes, perhaps"] if answer.far else []
    return "   ".join(words)


def _first(answer: "Answer") -> str:
    """Its first answer and its doubts, in as few words as the sheet has room for."""
    name, share = answer.top[0]
    doubt = "\nperhaps none" if answer.far else "\nnot sure" if answer.sure is False else ""
    return f"{name} {100 * share:.0f} %{doubt}"


if __name__ == "__main__":
    cli.command(main)
