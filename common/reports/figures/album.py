"""The pictures of a report: what each is called, where it stands, and what it says."""

from collections.abc import Sequence
from typing import NamedTuple


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
    "confusion_matrix": Picture(
        "classes",
        "Of each true class, what it was taken for",
    ),
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
