"""Pictures of pictures: thumbnails from plain arrays, a matplotlib Figure out."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from common.plots import STYLE


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
