"""What the trained levels say of a picture."""

import logging
import threading
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from common import levels
from common.data import Batches, ImageSet
from common.data.decode import FORMATS, UnreadablePicture, read_picture
from common.evaluation import views
from common.evaluation.gradcam import activation_maps
from common.reports.restore import CPU, load_trained
from common.utils import paths
from common.utils.errors import UserError

log = logging.getLogger("rungs")

TOP = 3
LARGEST = 40  # megapixels
SHEET = 24  # pictures, at most, on the sheet


class Answer(NamedTuple):
    """What a level says of a picture.

    Attributes:
        level: its name.
        top: (class, probability), the most probable first.
        places: float (h, w) between 0 and 1, what speaks for the first; None: it has no places.
    """

    level: str
    top: list[tuple[str, float]]
    places: np.ndarray | None


class Answers:
    """The trained levels of one data set, ready to answer.

    Args:
        runs: the folder of its runs, with a best.pt a level.
    Raises:
        UserError: no level has been trained there, or its checkpoint cannot be used.
    """

    def __init__(self, runs: Path):
        self.trained = {}
        for level in levels.find_levels():
            place = runs / level.name / "best.pt"
            if place.is_file():
                self.trained[level.name] = load_trained(level, place)
        if not self.trained:
            raise UserError(f"{runs}: no trained level here (level*/best.pt); run one first")
        self._lock = threading.Lock()

    @property
    def levels(self) -> list[str]:
        return list(self.trained)

    def __call__(self, picture: Path) -> tuple[np.ndarray, list[Answer]]:
        """The picture as the levels see it, uint8 (3, S, S), and their answers.

        Raises:
            UnreadablePicture: no picture, a broken one, or one of more than 40 megapixels.
        """
        check_size(picture)
        seen, answers = None, []
        with self._lock, torch.inference_mode(False):
            for name, (network, content) in self.trained.items():
                pixels = read_picture(picture, content["stored_size"])
                seen = pixels if seen is None else seen
                answers.append(_answer(name, network, content, pixels))
        return seen, answers


def _answer(name: str, network: torch.nn.Module, content: dict, pixels: np.ndarray) -> Answer:
    classes = tuple(content["classes"])
    picture = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    images = ImageSet(picture, torch.zeros(1).long(), torch.zeros(1).long(), classes)
    inputs = []
    for view in views(content["tta"]):  # the picture itself first
        inputs += [x for x, _ in Batches(images, network.weights, 1, CPU, view).epoch()]
    with torch.no_grad():
        shares = torch.stack([network(x) for x in inputs]).mean(0).softmax(1)[0]
    order = shares.argsort(descending=True)[:TOP]
    maps, _ = activation_maps(network, inputs[0], order[:1])
    top = [(classes[i], float(shares[i])) for i in order]
    return Answer(name, top, None if maps is None else maps[0].numpy())


def check_size(picture: Path) -> None:
    """Raise UnreadablePicture for a picture that is too large, before it is decoded."""
    try:
        with Image.open(picture, formats=FORMATS) as image:
            width, height = image.size
    except Exception:  # not a picture: read_picture says how
        return
    if width * height > LARGEST * 1e6:
        raise UnreadablePicture(
            f"{width} x {height} pixels are more than {LARGEST} megapixels; make it smaller"
        )


def latest_runs() -> Path:
    """The folder of runs in which a level was trained last.

    Raises:
        UserError: nothing has been trained yet.
    """
    places = list(paths.PROJECT.glob("runs/*/level*/best.pt"))
    if not places:
        raise UserError("nothing is trained yet (runs/*/level*/best.pt); run `make quickstart`")
    return max(places, key=lambda place: place.stat().st_mtime).parents[1]
