"""What every trained level answers for pictures of one's own, and where it looks.

    python -m common.predict photo.jpg more/       # pictures, folders of pictures
    python -m common.predict --serve               # a page on 127.0.0.1 to drop pictures on

The levels' best weights are those of runs/, of the data that was trained on last unless --runs
names another folder. Prints each level's top 3 with confidence, and saves a sheet of pictures.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common import cli
from common.utils.errors import UserError
from common.utils.files import check_file
from common.utils.paths import expanded

if TYPE_CHECKING:
    from common.predict.answers import Answers


def main() -> None:
    """Answer for the pictures on the command line, or serve the page."""
    parser = cli.Parser("predict", __doc__)
    parser.add_argument("pictures", nargs="*", metavar="PICTURE", help="a picture, or a folder")
    parser.add_argument("--runs", metavar="DIR", help="runs of one data set (default: the latest)")
    parser.add_argument("--output", metavar="FILE.png", help="the sheet (default: in the runs)")
    parser.add_argument("--serve", action="store_true", help="a page on 127.0.0.1 instead")
    parser.add_argument("--port", type=int, default=8008, help="of the page; 0: any free one")
    arguments = parser.parse_args()
    if bool(arguments.pictures) == arguments.serve:
        raise UserError("command line: name pictures, or give --serve")

    from common.predict.answers import Answers, latest_runs

    runs = expanded(arguments.runs) if arguments.runs else latest_runs()
    if arguments.serve:
        from common.predict.server import serve

        serve(Answers(runs), arguments.port)
        return
    files, sheet = list_pictures(arguments.pictures), runs / "predictions.png"
    if arguments.output:
        sheet = expanded(arguments.output)
        check_file("--output", sheet)
    _predict(files, Answers(runs), sheet)


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
    from common.predict.answers import SHEET
    from common.reports.figures import galleries, plots

    seen, said = [], []
    for file in files:
        try:
            picture, found = answers(file)
        except UnreadablePicture as error:
            raise UserError(f"{file}: not a readable picture ({error})") from error
        print(shown(file))
        for answer in found:
            top = "   ".join(f"{name} {100 * share:.1f} %" for name, share in answer.top)
            print(f"  {answer.level:22}{top}")
        if len(seen) < SHEET:
            seen.append(picture)
            said.append(found)
    columns = {}
    for i, level in enumerate(answers.levels):
        maps = [found[i].places for found in said]
        lines = [f"{found[i].top[0][0]} {100 * found[i].top[0][1]:.0f} %" for found in said]
        columns[level] = (None if maps[0] is None else np.stack(maps), lines)
    names = [shown(file.name) for file in files[: len(seen)]]
    try:
        sheet.write_bytes(plots.png(galleries.side_by_side(np.stack(seen), names, columns)))
    except OSError as error:
        raise UserError(f"--output: cannot write {sheet} ({error.strerror})") from error
    print(sheet)


if __name__ == "__main__":
    cli.command(main)
