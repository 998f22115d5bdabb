"""Pictures of pictures: thumbnails from plain arrays, a matplotlib Figure out."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from common.reports.figures.style import PAPER, STYLE, broken, numbered, short

LINE, GAP, NAME = 0.15, 0.1, 0.3  # inches: a line of text, between pictures, a row's name

BOLD, SMALL = {"fontweight": "bold"}, {"fontsize": 8, "ha": "center"}
ON_PAPER = STYLE | {"figure.facecolor": PAPER}  # one ground on any page: its pixels have one ink


class Cell(NamedTuple):
    """A place in a grid: a picture, uint8 (H, W, 3) or grey float (H, W), and what is said of it.

    None leaves the place empty.
    """

    picture: np.ndarray | None = None
    above: str = ""
    below: str = ""


@matplotlib.rc_context(ON_PAPER)
def grid(
    rows: Sequence[Sequence[Cell]], size: tuple[float, float], names: Sequence[str] = ()
) -> Figure:
    """Rows of pictures, each `size` inches wide and high with its texts; `names` stand at the left.

    Rows may be of different lengths. All is drawn on one Axes, in inches: an Axes for each
    picture takes several times as long.
    """
    texts = [  # inches above and below the pictures of each row
        [
            LINE * max((text.count("\n") + 1 for text in side if text), default=0)
            for side in zip(*((cell.above, cell.below) for cell in row), strict=True)
        ]
        for row in rows
    ]
    side = min(size[0], size[1] - min(map(sum, texts))) - GAP
    left = NAME if any(names) else 0.0
    width = left + size[0] * max(map(len, rows))
    height = sum(map(sum, texts)) + len(rows) * (side + GAP)
    figure = Figure(figsize=(width, height), dpi=100, layout="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.set_axis_off()
    bottom = -GAP / 2
    for i, (row, (above, below)) in enumerate(zip(rows, texts, strict=True)):
        top = bottom + GAP + above
        bottom = top + side
        if i < len(names):
            at = left / 2, (top + bottom) / 2
            axes.text(*at, names[i], fontweight="bold", rotation=90, ha="center", va="center")
        for j, cell in enumerate(row):
            if cell.picture is None:
                continue
            middle = left + (j + 0.5) * size[0]
            tall, wide = cell.picture.shape[:2]
            scale = side / max(wide, tall) / 2
            x, y = wide * scale, tall * scale
            place = middle - x, middle + x, (top + bottom) / 2 + y, (top + bottom) / 2 - y
            smooth = "bicubic" if cell.picture.dtype == np.uint8 else "nearest"
            axes.imshow(cell.picture, "gray", aspect="auto", interpolation=smooth, extent=place)
            axes.text(middle, place[3] - GAP / 4, cell.above, BOLD, va="bottom", **SMALL)
            axes.text(middle, place[2] + GAP / 4, cell.below, va="top", **SMALL)
        bottom += below
    return figure


def _in_rows(cells: Sequence[Cell], columns: int) -> list[Sequence[Cell]]:
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]


def contact_sheet(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[str], columns: int = 8
) -> Figure:
    """Thumbnails with their labels below: do pictures and labels belong together?

    Args:
        images: uint8 (N, 3, H, W).
        labels: int (N,).
        classes: names by label.
    """
    names = [short(classes[label], 14) for label in labels]
    cells = map(Cell, images.transpose(0, 2, 3, 1), [""] * len(names), names)
    return grid(_in_rows(list(cells), columns), (1, 1.25))


def overlay(image: np.ndarray, places: np.ndarray | None, size: int) -> np.ndarray:
    """A picture with the places that speak for an answer lit up.

    Args:
        image: uint8 (3, H, W).
        places: float (h, w) between 0 and 1; None leaves the picture as it is.
        size: px, of the longer side of what is returned.

    Returns:
        uint8 (H', W', 3).
    """
    picture = Image.fromarray(image.transpose(1, 2, 0))
    scale = size / max(picture.size)
    side = tuple(max(1, round(x * scale)) for x in picture.size)
    pixels = np.asarray(picture.resize(side, Image.Resampling.BICUBIC), np.float32)
    if places is None:
        return pixels.astype(np.uint8)
    lit = Image.fromarray(np.asarray(places, np.float32)).resize(side, Image.Resampling.BILINEAR)
    lit = np.asarray(lit).clip(0, 1)
    heat = 255 * matplotlib.colormaps["inferno"](lit)[..., :3]
    share = 0.25 + 0.45 * lit[..., None]
    return ((1 - share) * pixels + share * heat).astype(np.uint8)


def answers(
    images: np.ndarray, truths: Sequence[str], lines: Sequence[str], columns: int = 3
) -> Figure:
    """Pictures, each with its true class above and what was answered below.

    Args:
        images: uint8 (N, 3, H, W).
        truths, lines: N texts.
    """
    cells = map(Cell, images.transpose(0, 2, 3, 1), map(short, truths), map(short, lines))
    return grid(_in_rows(list(cells), columns), (1.45, 1.85))


def changes(
    images: np.ndarray,
    truths: Sequence[str],
    levels: dict[str, Sequence[str]],
    fixed: Sequence[int],
    broken: Sequence[int],
    columns: int = 3,
) -> Figure:
    """What a level fixed, then what it broke: the truth above, below what each level says.

    Args:
        images: uint8 (N, 3, H, W).
        truths: N texts.
        levels: name -> N texts, of the level below and of the one that changed it.
        fixed, broken: indices of the pictures to show.
    """
    rows, names = [], []
    for name, chosen in (("fixed", fixed), ("broken", broken)):
        both = [
            "\n".join(f"{numbered(level)}: {lines[i]}" for level, lines in levels.items())
            for i in chosen
        ]
        pixels = [images[i].transpose(1, 2, 0) for i in chosen]
        cells = list(map(Cell, pixels, [short(truths[i]) for i in chosen], both))
        own = _in_rows(cells, columns)
        rows, names = rows + own, names + [name, *[""] * len(own)][: len(own)]
    rows[0] = [*rows[0], *[Cell()] * (columns - len(rows[0]))]  # as wide, also if they are few
    return grid(rows, (1.46, 1.95), names)


def side_by_side(
    images: np.ndarray,
    truths: Sequence[str],
    levels: dict[str, tuple[np.ndarray | None, Sequence[str]]],
) -> Figure:
    """The same pictures at every level: where each looked, and what it answered.

    Args:
        images: uint8 (N, 3, H, W).
        truths: N names.
        levels: name -> (maps, float (N, h, w) or None; N answers), from the lowest.
    """
    rows = []
    for i, image in enumerate(images):
        row = [Cell(overlay(image, None, 96), "" if i else "picture", short(truths[i]))]
        for name, (maps, lines) in levels.items():
            lit = overlay(image, None if maps is None else maps[i], 96)
            said = "\n".join(map(short, lines[i].split("\n")))
            row.append(Cell(lit, "" if i else broken(name), said))
        rows.append(row)
    return grid(rows, (1.45, 1.6))


def feature_maps(image: np.ndarray, stages: dict[str, np.ndarray]) -> Figure:
    """A picture, and below it a row a stage: the stage's most active channels for the picture.

    Args:
        image: uint8 (3, H, W).
        stages: name -> float (k, h, w), k at most 6.
    """
    rows = [[Cell(image.transpose(1, 2, 0))], *(list(map(Cell, m)) for m in stages.values())]
    return grid(rows, (1.2, 1.2), ["picture", *stages])


def filters(weights: np.ndarray) -> Figure:
    """The first layer's filters as colours, each on its own scale: float (C, 3, k, k), C to 64."""
    shown = weights[:64].transpose(0, 2, 3, 1)
    low, high = (end(shown, axis=(1, 2, 3), keepdims=True) for end in (np.min, np.max))
    cells = list(map(Cell, (shown - low) / np.maximum(high - low, 1e-12)))
    return grid(_in_rows(cells, 16), (0.42, 0.45))
