"""Markdown in which any text stays text; and a run's report.md in it."""

import html
import re
import urllib.parse
from collections.abc import Sequence

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.reports.figures.album import ALBUM, left_out
from common.reports.html import HERE
from common.reports.lesson import lesson
from common.reports.schema import Run
from common.reports.text import Cell


def escape(text: object) -> str:
    """Text as Markdown shows it literally, on one line, also inside a table.

    `Markup` is Markdown that was made here and stays as it is; a `Cell` may be a link.
    """
    if isinstance(text, Markup):
        return text
    if isinstance(text, Cell) and text.href:
        return Markup(
            f"[{escape(text.text)}]({urllib.parse.quote(text.href, errors='surrogateescape')})"
        )
    text = html.escape(" ".join(str(text).split()), quote=False)
    # An underscore inside a word is no emphasis, and level names stay readable.
    return re.sub(r"[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def code(text: str, language: str = "") -> Markup:
    """A block of code, its fence longer than any run of backticks in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return Markup(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def table(header: Sequence[str], rows: Sequence[Sequence]) -> Markup:
    """A Markdown table; each cell is escaped."""
    lines = [header, [Markup("---")] * len(header), *rows]
    return Markup("\n".join("| " + " | ".join(map(escape, cells)) + " |" for cells in lines))


def bullets(items: Sequence[str]) -> Markup:
    """A Markdown list; each item is escaped."""
    return Markup("\n".join(f"- {escape(item)}" for item in items))


# Whatever a template prints is escaped, unless it is Markup; an unknown name is an error.
templates = Environment(
    loader=FileSystemLoader(HERE),
    finalize=escape,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
)
templates.globals |= {"bullets": bullets, "code": code, "table": table}


def report_page(run: Run, below: Run | None, pictures: dict[str, str]) -> str:
    """report.md of a run.

    Args:
        run: the run; below: the one of the level below, where it is compared with it.
        pictures: of those that lie beside the page, name in `ALBUM` -> file name.
    """
    shown = {picture.section: Markup() for picture in ALBUM.values()}
    for name, picture in ALBUM.items():
        if name in pictures:  # each with its caption and a line's distance to what follows
            parts = f"![{picture.title}]({pictures[name]})", picture.caption
            shown[picture.section] += Markup("".join(f"{part}\n\n" for part in parts if part))
    values = lesson(run, below) | {"shown": shown, "left_out": left_out(pictures)}
    return templates.get_template("report.md").render(values)
