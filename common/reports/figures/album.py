"""The pictures of a report: what each is called, where it stands and what it says; and those that
its figures are enough for. Plotting libraries are imported where a picture is drawn.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common.data.loader import steps_per_epoch
from common.reports.schema import Run
from common.training.schedules import build_schedule
from common.utils.errors import UserError
from common.utils.files import write_together

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_STEPS = 10**6  # of a learning rate that is drawn


class Picture(NamedTuple):
    """Where a picture stands and what is written with it."""

    section: str
    title: str  # also its alternative text
    caption: str = ""


ALBUM = {  # file name, without .png -> picture
    "contact_sheet": Picture(
        "data",
        "Training pictures with their classes",
        "As they come from the data: do pictures and classes belong together?",
    ),
    "training_curves": Picture(
        "results",
        "Loss and accuracy by epoch",
        "Train is measured while it trains, augmentation and dropout included; val after each "
        "epoch. The epoch with the highest val accuracy was kept and tested.",
    ),
    "learning_rate": Picture("rate", "Learning rate of the head by epoch"),
    "reliability": Picture(
        "confidence",
        "How often it is right, by how sure it is",
        "Bars below the dotted line: surer than right. The temperature is not applied here.",
    ),
    "confusion_matrix": Picture("classes", "Of each true class, what it was taken for"),
    "class_gains": Picture("classes", "Gain over the level below, class by class"),
    "mistakes": Picture(
        "pictures",
        "Its most confident mistakes",
        "Above each picture its true class; below it the answer, with its confidence.",
    ),
    "changes": Picture(
        "pictures",
        "What it fixed, then what it broke",
        "Pictures that the level below had wrong and this one has right, then the other way round: "
        "the surest answers of each.",
    ),
    "activation_maps": Picture(
        "pictures",
        "The same pictures at every level: where it looks, and what it answers",
        "Grad-CAM on the stages that the head reads: bright places speak for the answer.",
    ),
    "feature_maps": Picture(
        "pictures",
        "What each stage makes of one picture: its most active channels",
    ),
    "filters": Picture(
        "pictures",
        "The first layer's filters",
        "Each on its own scale of colours; a black one is zero everywhere.",
    ),
    "feature_plane": Picture(
        "pictures",
        "Test pictures by their last features, in the plane of largest variance (PCA)",
    ),
}


def left_out(pictures: Sequence[str]) -> str:
    """What a page says of the pictures of test images that are not among these; "" of none."""
    if not any(ALBUM[name].section == "pictures" for name in pictures):
        where = "they are made where the pictures and the run's weights are"
        return f"Pictures of test images are left out: {where}."
    if {"feature_maps", "filters"} & {*pictures} and "feature_plane" not in pictures:
        return "The plane of last features is left out: the head has no linear layer to show it of."
    return ""


def draw(
    run: Run, below: Run | None, examples: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, "Figure"]:
    """The pictures of `ALBUM` that a run's figures are enough for.

    Args:
        run: with labels, predictions and logits.
        below: the run that it is compared with.
        examples: some training pictures, uint8 (n, 3, H, W), and their classes, (n,) int.
    """
    from common.reports.figures import diagnostics, galleries, plots

    classes = run.classes
    pictures = {
        "training_curves": plots.training_curves(run.history, run.metrics["best_epoch"]),
        "confusion_matrix": plots.confusion_matrix(run.labels, run.predictions, classes),
        "reliability": diagnostics.reliability(run.probabilities, run.labels),
    }
    rates, steps = learning_rates(run)
    if steps:
        pictures["learning_rate"] = diagnostics.rates(rates, steps)
    if below:
        answers = below.predictions, run.predictions
        pictures["class_gains"] = diagnostics.class_gains(
            run.labels, *answers, classes, below.level
        )
    if examples:
        pictures["contact_sheet"] = galleries.contact_sheet(*examples, classes)
    return pictures


def files(pictures: dict[str, "Figure"]) -> dict[str, bytes]:
    """Pictures as the files that they become, each a PNG of its name."""
    from common.reports.figures import plots

    return {f"{name}.png": plots.png(figure) for name, figure in pictures.items()}


def save(pictures: dict[str, "Figure"], folder: Path) -> None:
    """Write pictures into a folder."""
    write_together({folder / name: content for name, content in files(pictures).items()})


def there(folder: Path) -> list[str]:
    """The names of the pictures that lie in a folder."""
    return [name for name in ALBUM if (folder / f"{name}.png").is_file()]


def learning_rates(run: Run) -> tuple[np.ndarray, int]:
    """The head's learning rate at each step of the epochs that were run, and the steps of one.

    Where the settings do not say, or they are too many to draw, no rates and 0.
    """
    train, rates = run.metrics["settings"].get("train"), []
    steps = steps_per_epoch(run.metrics["data"]["train"], train["batch_size"]) if train else 0
    if not 0 < steps * len(run.history) <= MOST_STEPS:
        return np.zeros(0), 0
    try:
        schedule = build_schedule(train["schedule"], steps * train["epochs"])
    except UserError:  # one that this version does not know
        return np.zeros(0), 0
    peak = train.get("head_lr") or train["lr"]
    for epoch in range(len(run.history)):
        schedule.see(run.history[:epoch])
        rates += [peak * schedule(epoch * steps + step) for step in range(steps)]
    return np.array(rates), steps
