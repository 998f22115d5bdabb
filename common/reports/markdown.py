"""What reports are written with: figures as words, and Markdown in which any text stays text."""

import html
import re
from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup


def escape(text: object) -> str:
    """Text as Markdown shows it literally, on one line, also inside a table.

    `Markup` is Markdown that was made here and stays as it is.
    """
    if isinstance(text, Markup):
        return text
    text = html.escape(" ".join(str(text).split()), quote=False)
    # An underscore inside a word is no emphasis, and level names stay readable.
    return re.sub(r"[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def probability(p: float) -> str:
    """A p-value: three decimals, or "< 0.001"; four near 0.05, so that it is seen on which side."""
    return "< 0.001" if p < 0.001 else f"{p:.4f}" if 0.0495 <= p < 0.0505 else f"{p:.3f}"


def points(difference: float) -> str:
    """A difference of two fractions in signed percentage points; 0.021 gives "+2.1".

    What one decimal would round away gets two: 0.0002 gives "+0.02".
    """
    if difference == 0:
        return "0.0"
    text = f"{100 * difference:+.1f}"
    return text if float(text) else f"{100 * difference:+.2f}"


def percent(fraction: float) -> str:
    """0.831 as "83.1 %"."""
    return f"{100 * fraction:.1f} %"


def duration(seconds: float) -> str:
    """12.3 as "12 s", 200 as "3 min 20 s", 3725 as "1 h 02 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def listing(mapping: dict) -> str:
    """ "cores 2, device cpu": a dict on one line, without what is not there."""
    return ", ".join(
        f"{key.replace('_gib', ' GiB')} {value}"
        for key, value in mapping.items()
        if value is not None
    )


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


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table for a terminal: plain text, columns padded to their widest cell."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in lines
    )


# Whatever a template prints is escaped, unless it is Markup; an unknown name is an error.
templates = Environment(
    finalize=escape,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
)
templates.globals |= {"bullets": bullets, "code": code, "table": table}
