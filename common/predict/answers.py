"""What the trained levels say of a picture."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image

from common.data import Batches, ImageSet, Splits
from common.data.decode import FORMATS, UnreadablePicture, read_picture
from common.data.loader import as_pixels
from common.evaluation import views
from common.evaluation.doubt import mahalanobis
from common.evaluation.gradcam import activation_maps, logits_and_penultimate
from common.models import StagedNetwork
from common.predict.doubts import Doubts, kept, measure
from common.predict.places import checkpoints
from common.reports.restore import CPU, load_trained, splits_of
from common.utils.errors import UserError, line

log = logging.getLogger("rungs")

TOP = 3
LARGEST = 40  # megapixels
SHEET = 24  # pictures, at most, on the sheet
QUICK = 64  # px: up to here a level is measured within seconds


class Answer(NamedTuple):
    """What a level says of a picture.

    Attributes:
        level: its name.
        shares: (class, probability), the most probable first.
        places: float (h, w) between 0 and 1, what speaks for the first; None: it has no places.
        input: uint8 (3, S, S), the pixels that the network was given.
        sure: whether the first is sure; None: not measured.
        far: whether the picture is perhaps none of the classes; None: not measured.
    """

    level: str
    shares: list[tuple[str, float]]
    places: np.ndarray | None
    input: np.ndarray
    sure: bool | None
    far: bool | None

    @property
    def top(self) -> list[tuple[str, float]]:
        return self.shares[:TOP]


@dataclass(eq=False)
class Trained:
    """A level's best network, with what is known of it.

    Attributes:
        place: its best.pt; `content` is that.
        doubts: when its answers are to be doubted; None: not measured, or not yet.
        why: why they are not and will not be measured, in words.
    """

    level: str
    place: Path
    network: StagedNetwork
    content: dict
    doubts: Doubts | None = None
    why: str = ""

    @property
    def pending(self) -> bool:
        """Whether its doubts are still to be measured."""
        return self.doubts is None and not self.why


class Answers:
    """The trained levels of one data set, ready to answer.

    Args:
        runs: the folder of its runs, with a best.pt a level.
    Raises:
        UserError: no level has been trained there, or its checkpoint cannot be used.
    """

    def __init__(self, runs: Path):
        self.trained = []
        for level, place in checkpoints(runs):
            network, content = load_trained(level, place)
            measured = kept(place)
            self.trained.append(Trained(level.name, place, network, content, measured))
        self._lock, self._asking, self._left = threading.Lock(), 0, False

    @property
    def levels(self) -> list[str]:
        return [trained.level for trained in self.trained]

    def __call__(self, picture: Path) -> tuple[np.ndarray, list[Answer]]:
        """The picture as the levels see it, uint8 (3, S, S), and their answers.

        Raises:
            UnreadablePicture: no picture, a broken one, or one of more than 40 megapixels.
        """
        check_size(picture)
        sizes = {trained.content["stored_size"] for trained in self.trained}
        pixels = {size: read_picture(picture, size) for size in sizes}
        self._asking += 1
        try:
            with self._lock, torch.inference_mode(False):
                found = [_answer(t, pixels[t.content["stored_size"]]) for t in self.trained]
        finally:
            self._asking -= 1
        return pixels[self.trained[0].content["stored_size"]], found

    def warm_up(self) -> None:
        """Let what the first answer alone would wait for be done before it is asked for."""
        with self._lock:
            for trained in self.trained:
                size = trained.content["stored_size"]
                _answer(trained, np.zeros((3, size, size), np.uint8))

    def measure(self, quick: bool = False) -> None:
        """Measure on val when to doubt the levels, where that was not done and can be done here.

        Answers go first meanwhile. `quick` leaves out what takes minutes.
        """
        known: dict[str, tuple[Splits | None, str]] = {}
        for trained in self.trained:
            if not trained.pending or self._left:
                continue
            content, side = trained.content, trained.network.weights.image_size
            if quick and side > QUICK:
                trained.why = "not measured yet: --serve does it, in minutes."
                continue
            try:
                facts = content["settings"], side, content["fingerprint"]
                key = repr((content["settings"].get("data"), *facts[1:]))
                if key not in known:
                    known[key] = splits_of(*facts)
                data, trained.why = known[key]
                if data is not None and data.split != content["split"]:
                    trained.why = "the pictures here are split in another way than the run's."
                if not trained.why:
                    log.info("%s: measuring on val when to doubt it, once", trained.level)
                    trained.doubts = measure(
                        trained.network, content, data, trained.place, self._turn
                    )
            except _Left:
                return
            except (UserError, RuntimeError, MemoryError, OSError) as error:
                trained.why = f"it could not be measured ({line(error)})."

    def leave(self) -> None:
        """Let a measurement that is at work stop at its next pictures."""
        self._left = True

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """For a measurement: the networks, while nobody asks them."""
        while self._asking and not self._left:
            time.sleep(0.005)
        if self._left:
            raise _Left
        with self._lock, torch.inference_mode(False):
            yield


class _Left(Exception):
    """Nobody needs the measurement any more."""


def _answer(trained: Trained, pixels: np.ndarray) -> Answer:
    network, content, measured = trained.network, trained.content, trained.doubts
    classes = tuple(content["classes"])
    picture = torch.from_numpy(np.ascontiguousarray(pixels))[None]
    images = ImageSet(picture, torch.zeros(1).long(), torch.zeros(1).long(), classes)
    inputs = []
    for view in views(content["tta"]):  # the picture itself first
        inputs += [x for x, _ in Batches(images, network.weights, 1, CPU, view).epoch()]
    logits, features = logits_and_penultimate(network, torch.cat(inputs))
    shares = logits.mean(0).softmax(0)
    order = shares.argsort(descending=True)
    maps, _ = activation_maps(network, inputs[0], order[:1])
    ranked = [(classes[i], float(shares[i])) for i in order]
    sure = far = None
    if measured:
        threshold = measured.sure.threshold
        sure = threshold is not None and float(shares[order[0]]) >= threshold
        if measured.far is not None:
            far = bool(mahalanobis(features[:1].numpy(), measured.gaussians)[0] > measured.far)
    places = None if maps is None else maps[0].numpy()
    seen = as_pixels(inputs[0], network.weights)[0].numpy()
    return Answer(trained.level, ranked, places, seen, sure, far)


def verdict(answers: list[Answer]) -> str:
    """What all levels together leave in doubt, in words; empty where nothing is."""
    said = []
    if far := [answer.level for answer in answers if answer.far]:
        asked = sum(answer.far is not None for answer in answers)
        said.append(f"Not one of these classes, perhaps: so say {len(far)} of {asked} levels.")
    if not any(answer.sure for answer in answers) and any(a.sure is False for a in answers):
        said.append("No level is sure.")
    return " ".join(said)


def check_size(picture: Path) -> tuple[int, int] | None:
    """An upright picture's width and height, before it is decoded; None where it is none, as
    `read_picture` will say.

    Raises:
        UnreadablePicture: it is too large.
    """
    size = turned = None
    with contextlib.suppress(Exception), Image.open(picture, formats=FORMATS) as image:
        size = image.size
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) > 4  # it lies on its side
    if size is None:
        return None
    width, height = reversed(size) if turned else size
    if width * height > LARGEST * 1e6:
        raise UnreadablePicture(
            f"{width} x {height} pixels are more than {LARGEST} megapixels; make it smaller"
        )
    return width, height
