"""Pictures of pictures: thumbnails from plain arrays, a matplotlib Figure out."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from common.reports.figures.plots import STYLE


@matplotlib.rc_context(STYLE)
def contact_sheet(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[str], columns: int = 8
) -> Figure:
    """Thumbnails with their labels below: do pictures and labels belong together?

    Args:
        images: uint8 (N, 3, H, W).
        labels: int (N,).
        classes: names by label.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(columns, 1.25 * rows), dpi=110, layout="constrained")
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set(xticks=[], yticks=[], frame_on=False)
        if i < len(images):
            axes.imshow(images[i].transpose(1, 2, 0), interpolation="nearest")
            name = classes[labels[i]]
            axes.set_xlabel(name if len(name) < 14 else f"{name[:12]}…", fontsize=8)
    return figure


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


@matplotlib.rc_context(STYLE)
def answers(
    images: np.ndarray, truths: Sequence[str], lines: Sequence[str], columns: int = 6
) -> Figure:
    """Pictures, each with its true class above and what was answered below.

    Args:
        images: uint8 (N, 3, H, W).
        truths, lines: N texts.
    """
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.9 * rows), dpi=100, layout="constrained")
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set(xticks=[], yticks=[], frame_on=False)
        if i < len(images):
            axes.imshow(images[i].transpose(1, 2, 0), interpolation="nearest")
            axes.set_title(_fits(truths[i]), fontsize=8, loc="center", fontweight="normal")
            axes.set_xlabel(_fits(lines[i]), fontsize=8)
    return figure


@matplotlib.rc_context(STYLE)
def changes(
    images: np.ndarray,
    truths: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    fixed: Sequence[int],
    broken: Sequence[int],
    columns: int = 6,
) -> Figure:
    """What a level fixed, then what it broke: the truth above, both answers below.

    Args:
        images: uint8 (N, 3, H, W).
        truths, before, after: N texts.
        fixed, broken: indices of the pictures to show.
    """
    parts = {"fixed": list(fixed), "broken": list(broken)}
    cells = []  # rows of columns, each part on rows of its own
    for name, rows in parts.items():
        for start in range(0, len(rows), columns):
            cells.append((name if start == 0 else "", rows[start : start + columns]))
    shape = len(cells), columns
    figure = Figure(figsize=(1.55 * columns, 2.05 * len(cells)), dpi=100, layout="constrained")
    for (name, rows), line in zip(cells, figure.subplots(*shape, squeeze=False), strict=True):
        line[0].set_ylabel(name, fontsize=10, fontweight="bold")
        for j, axes in enumerate(line):
            axes.set(xticks=[], yticks=[], frame_on=False)
            if j < len(rows):
                i = rows[j]
                axes.imshow(images[i].transpose(1, 2, 0), interpolation="nearest")
                axes.set_title(_fits(truths[i]), fontsize=8, loc="center")
                axes.set_xlabel(f"{_fits(before[i])}\n{_fits(after[i])}", fontsize=8)
    return figure


@matplotlib.rc_context(STYLE)
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
    shape = len(images), 1 + len(levels)
    figure = Figure(figsize=(1.45 * shape[1], 1.6 * shape[0]), dpi=100, layout="constrained")
    for i, row in enumerate(figure.subplots(*shape, squeeze=False)):
        for j, axes in enumerate(row):
            name, (maps, lines) = ("", (None, truths)) if j == 0 else list(levels.items())[j - 1]
            axes.imshow(overlay(images[i], None if maps is None else maps[i], 96))
            axes.set(xticks=[], yticks=[], frame_on=False)
            axes.set_xlabel(_fits(lines[i]), fontsize=8)
            if i == 0:
                title = name.replace("_", "\n", 1).replace("_", " ") or "picture"
                axes.set_title(title, fontsize=8, loc="center")
    return figure


@matplotlib.rc_context(STYLE)
def feature_maps(image: np.ndarray, stages: dict[str, np.ndarray]) -> Figure:
    """The most active channels of each stage for one picture, a row a stage.

    Args:
        image: uint8 (3, H, W).
        stages: name -> float (k, h, w), k at most 6.
    """
    columns = 1 + max(len(maps) for maps in stages.values())
    figure = Figure(figsize=(1.2 * columns, 1.25 * len(stages)), dpi=100, layout="constrained")
    rows = figure.subplots(len(stages), columns, squeeze=False)
    for i, (row, (name, maps)) in enumerate(zip(rows, stages.items(), strict=True)):
        for axes in row:
            axes.set(xticks=[], yticks=[], frame_on=False)
        if i == 0:
            row[0].imshow(image.transpose(1, 2, 0))
        row[0].set_xlabel(name, fontsize=9)
        for axes, channel in zip(row[1:], maps, strict=False):
            axes.imshow(channel, cmap="gray", interpolation="nearest")
    return figure


@matplotlib.rc_context(STYLE)
def filters(weights: np.ndarray) -> Figure:
    """The first layer's filters as colours, each on its own scale: float (C, 3, k, k), C to 64."""
    count, columns = min(len(weights), 64), 16
    rows = -(-count // columns)
    figure = Figure(figsize=(0.42 * columns, 0.45 * rows + 0.3), dpi=120, layout="constrained")
    figure.suptitle("First layer's filters", fontsize=10, x=0.01, ha="left", fontweight="bold")
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.set(xticks=[], yticks=[], frame_on=False)
        if i < count:
            low, high = weights[i].min(), weights[i].max()
            axes.imshow((weights[i].transpose(1, 2, 0) - low) / max(high - low, 1e-12))
    return figure


def _fits(text: str) -> str:
    return text if len(text) < 20 else f"{text[:18]}…"
