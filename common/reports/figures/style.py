"""How every picture looks, and the file that it becomes.

One visual language: Okabe and Ito's colours, which colour-blind readers tell apart; every line
also has its own marker and dash, so that it survives a grey printer. A Figure is made directly,
without pyplot's global state.

A chart becomes an SVG that shows on a light and on a dark ground: it has none of its own, its ink
is `currentColor`, which follows the reader's scheme, and its colours have contrast on both. Its
text stays text, a third of the size of outlines, and readers' fonts know more letters than
matplotlib's. A sheet of pictures becomes a WebP of all colours, on a ground of its own.
"""

import io
import re

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

# Okabe & Ito, "Color Universal Design", 2008: those that have contrast on white and on black
BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, LIGHT_INK, PAPER = "#1b1f24", "#e8eaed", "#f5f6f8"  # on light, on dark, below pictures
GREY, FAINT = (INK, 0.7), (INK, 0.25)  # lighter on light, darker on dark
STYLE = {
    "figure.dpi": 120,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "font.size": 10,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    "legend.handlelength": 3.2,  # room for dashes
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a class may be called "$5 note$"
}
RULES = (  # of every SVG
    f"svg{{color:{INK}}}@media(prefers-color-scheme:dark){{svg{{color:{LIGHT_INK}}}}}"
    "text{font-family:'DejaVu Sans',Verdana,sans-serif}"
)
AS_FILE = {"svg.fonttype": "none", "svg.hashsalt": "rungs"}  # the same figure gives the same bytes
NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # no XML may hold them
QUALITY = 90  # of a WebP


def short(name: str, length: int = 20) -> str:
    """A name that takes less than `length` characters."""
    return name if len(name) < length else f"{name[: length - 2]}…"


def broken(level: str) -> str:
    """A level's name on two lines: its number, and what it is about."""
    return level.replace("_", "\n", 1).replace("_", " ")


def numbered(level: str) -> str:
    """A level's number alone: "level 3" of level3_fusion."""
    return re.sub(r"^level(\d+)_.*", r"level \1", level)


def file_of(figure: Figure) -> tuple[str, bytes]:
    """The file that a figure becomes, as its suffix and its content: a WebP of what holds pictures,
    an SVG of a chart.
    """
    holds_pictures = any(axes.images for axes in figure.axes)
    return (".webp", webp(figure)) if holds_pictures else (".svg", svg(figure))


@matplotlib.rc_context(AS_FILE)
def svg(figure: Figure) -> bytes:
    """A chart as an SVG without a ground, in the ink of the reader's scheme."""
    drawn = io.BytesIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(drawn, format="svg", metadata=metadata)
    text = NO_XML.sub("\ufffd", drawn.getvalue().decode())
    text = re.sub(r"<!DOCTYPE[^>]*>", "", text)
    classes: dict[str, str] = {}
    text = re.sub(r"<[^<>]+>", lambda tag: _shorter(tag[0], classes), text)
    rules = "".join(f".{name}{{{style}}}" for style, name in classes.items())
    return re.sub(r">\s+<", "><", text.replace("</style>", f"{RULES}{rules}</style>", 1)).encode()


def _shorter(tag: str, classes: dict[str, str]) -> str:
    """A tag in the reader's ink, at half the size: its style becomes one of `classes`, its places
    are told to a hundredth of a point.
    """

    def class_of(style: re.Match) -> str:
        name = classes.setdefault(style[1].strip("; "), f"c{len(classes)}")
        return f'class="{name}"'

    tag = re.sub(r"font-family: [^;\"]*;?", "", tag.replace(INK, "currentColor"))
    tag = re.sub(r'style="([^"]*)"', class_of, tag)
    tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    tag = re.sub(r"(\.\d\d)\d+", r"\1", tag)
    return re.sub(r"\s*\n\s*(?=[MLCQz\"])", "", tag)


def webp(figure: Figure) -> bytes:
    """A sheet of pictures as a WebP; without loss where that is smaller, as of plain squares."""
    pixels = _pixels(figure)
    found = []  # the second at little effort: a third of the time for 3 % more bytes
    for how in ({"quality": QUALITY}, {"lossless": True, "quality": 60, "method": 1}):
        content = io.BytesIO()
        pixels.save(content, "WEBP", **how)
        found.append(content.getvalue())
    return min(found, key=len)


def png(figure: Figure) -> bytes:
    """A sheet of pictures as a PNG of all colours, which every program opens."""
    content = io.BytesIO()
    _pixels(figure).save(content, "PNG", optimize=True)
    return content.getvalue()


def _pixels(figure: Figure) -> Image.Image:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return Image.open(drawn).convert("RGB")
