"""The pictures of a report: what each is called, where it stands and what it says; and those that
its figures are enough for. Plotting libraries are imported where a picture is drawn.
"""

from collections.abc import Iterable
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

MOST_RATES = 10**6  # that are drawn
SUFFIXES = ".svg", ".webp", ".png"  # the last: of earlier reports


class Picture(NamedTuple):
    """Where a picture stands and what is written with it."""

    section: str
    title: str  # also its alternative text
    caption: str = ""


ALBUM = {  # file name, without its suffix -> picture
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
    "learning_rate": Picture("rate", "Learning rate of each part that trains, by epoch"),
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


OF_FIGURES = [  # that the figures of a run are enough for, its data and weights aside
    name for name, picture in ALBUM.items() if picture.section not in ("data", "pictures")
]


def left_out(pictures: Iterable[str]) -> str:
    """What a page says of the pictures of test images that are not among these; "" of none."""
    pictures = [*pictures]
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
    if any(not np.all(values == values[0]) for values in rates.values()):
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
    """Pictures as the files that they become, by file name."""
    from common.reports.figures.style import file_of

    drawn = {name: file_of(figure) for name, figure in pictures.items()}
    return {f"{name}{suffix}": content for name, (suffix, content) in drawn.items()}


def places(names: Iterable[str], folder: Path) -> list[Path]:
    """Where the files of pictures may lie in a folder."""
    return [folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES]


def save(pictures: dict[str, "Figure"], folder: Path, instead_of: Iterable[str] = ()) -> None:
    """Write pictures into a folder, instead of those of the same names and of further ones."""
    new = {folder / name: content for name, content in files(pictures).items()}
    write_together(new, instead_of=places([*pictures, *instead_of], folder))


def there(folder: Path) -> dict[str, str]:
    """The pictures that lie in a folder: name -> file name."""
    found = [file.name for file in places(ALBUM, folder) if file.is_file()]
    return {name.partition(".")[0]: name for name in reversed(found)}  # the first suffix last


def learning_rates(run: Run) -> tuple[dict[str, np.ndarray], int]:
    """The learning rate of each part that trains at each step of the epochs that were run, NaN
    where it is still frozen, the head first; and the steps of an epoch.

    Where the settings do not say, or they are too many to draw, no rates and 0.
    """
    train = run.metrics["settings"].get("train")
    steps = steps_per_epoch(run.metrics["data"]["train"], train["batch_size"]) if train else 0
    parts = run.metrics["trainable"]
    if not 0 < steps * len(run.history) * len(parts) <= MOST_RATES:
        return {}, 0
    try:
        schedule = build_schedule(train["schedule"], steps * train["epochs"])
    except UserError:  # one that this version does not know
        return {}, 0
    rates = {part: np.full(steps * len(run.history), np.nan) for part in reversed(parts)}
    for epoch in range(len(run.history)):
        schedule.see(run.history[:epoch])
        trained = schedule.unfrozen(parts, epoch + 1)
        factors = [schedule(epoch * steps + step) for step in range(steps)]
        for depth, part in enumerate(rates):
            if part in trained:
                peak = part == "head" and train.get("head_lr") or train["lr"]
                own = peak * schedule.layer_decay**depth * np.array(factors)
                rates[part][epoch * steps :][:steps] = own
    return rates, steps
