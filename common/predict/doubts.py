"""When a level's answers are to be doubted: measured once on its val pictures, kept beside the run.

What is measured, and why so, says common/evaluation/doubt.py.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.data import Batches, ImageSet, Splits
from common.evaluation import views
from common.evaluation.doubt import (
    Gaussians,
    Sure,
    alarm_rate,
    alarm_threshold,
    fit_gaussians,
    mahalanobis,
    sure_threshold,
)
from common.evaluation.gradcam import logits_and_penultimate
from common.models import StagedNetwork
from common.reports.restore import CPU
from common.utils.errors import UserError
from common.utils.files import file_hash, npz, read_npz, write_whole

log = logging.getLogger("rungs")

FILE = "doubts.npz"
LEARNT = 2_000  # training pictures, at most, that are looked at
PICTURES = 1_000  # of val, at most
FEATURES = 2_048  # at most: a covariance has their square
PIXELS = 2**16  # that go through a network at a time: whoever asks meanwhile waits for no more

Turn = Callable[[], contextlib.AbstractContextManager]


@dataclass(frozen=True, eq=False)
class Doubts:
    """What val says of a level's answers.

    Attributes:
        pictures: how many of val's.
        sure: from which probability on an answer is sure.
        far: the distance above which a picture is perhaps none of the classes; None: such a rule
            cannot be had of this network or of so few pictures.
        alarms: the share of val's pictures above it.
        held_out: the same, each half of val by the threshold of the other; None: too few.
        gaussians: of the training pictures' features.
    """

    pictures: int
    sure: Sure
    far: float | None = None
    alarms: float | None = None
    held_out: float | None = None
    gaussians: Gaussians | None = None


def kept(checkpoint: Path) -> Doubts | None:
    """What was measured of this checkpoint; None where it was not, or of another one."""
    try:
        arrays = read_npz(checkpoint.with_name(FILE))
        if str(arrays["checkpoint"]) != file_hash(checkpoint):
            return None
        return _doubts(arrays)
    except (UserError, OSError, KeyError, ValueError, TypeError):  # none, or a damaged one
        return None


def measure(
    network: StagedNetwork, content: dict, data: Splits, checkpoint: Path, turn: Turn
) -> Doubts:
    """Look at training and val pictures, and keep what is found beside the checkpoint.

    Args:
        network, content: of `load_trained`.
        data: the pictures of its run.
        turn: a block in which a few pictures go through a network.
    """
    train, val = _some(data.train, LEARNT), _some(data.val, PICTURES)
    logits, features = _look(network, val, content["tta"], turn)
    shares = logits.softmax(1).max(1)
    arrays = {
        "checkpoint": np.array(file_hash(checkpoint)),
        "confidence": shares.values.double().numpy(),
        "right": (shares.indices == val.labels).numpy(),
    }
    if features is not None and features.shape[1] <= FEATURES:
        _, learnt = _look(network, train, "none", turn)
        with contextlib.suppress(ValueError):  # too few pictures, or they all look the same
            gaussians = fit_gaussians(learnt.numpy(), train.labels.numpy())
            gaussians = Gaussians(*(part.astype(np.float32) for part in gaussians))
            distances = mahalanobis(features.numpy(), gaussians)
            arrays |= {**gaussians._asdict(), "distance": distances}
    try:
        write_whole(checkpoint.with_name(FILE), npz(**arrays))
    except OSError as error:
        log.warning("%s: measured, but cannot be kept (%s)", checkpoint.parent, error.strerror)
    return _doubts(arrays)


def _doubts(arrays: dict[str, np.ndarray]) -> Doubts:
    """Raises KeyError, ValueError or TypeError where they are not as `measure` writes them."""
    confidence, right = arrays["confidence"], arrays["right"]
    count = len(confidence)
    if confidence.shape != right.shape or right.shape != (count,) or right.dtype != bool:
        raise ValueError("not a probability and an outcome for each picture")
    found = Doubts(count, sure_threshold(confidence, right))
    if "distance" not in arrays:
        return found
    distances, gaussians = arrays["distance"], Gaussians(arrays["means"], arrays["precision"])
    width = gaussians.precision.shape[-1]
    fine = distances.shape == (count,) and gaussians.precision.shape == (width, width)
    fine &= gaussians.means.shape[1:] == (width,)
    if not fine or not all(np.isfinite(part).all() for part in (confidence, distances, *gaussians)):
        raise ValueError("not a distance for each picture")
    far = alarm_threshold(distances)
    if far is None:
        return found
    alarms = float((distances > far).mean())
    return Doubts(count, found.sure, far, alarms, alarm_rate(distances), gaussians)


def _some(images: ImageSet, count: int) -> ImageSet:
    """A fixed sample of the pictures: the same for all levels."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.subset(order[:count].sort().values)


def _look(
    network: StagedNetwork, images: ImageSet, tta: str, turn: Turn
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits, the mean over the test-time views, (N, C); features of the pictures themselves,
    (N, D), None where there are none.
    """
    passes, features = [], []
    size = max(1, PIXELS // network.weights.image_size**2)
    for view in views(tta):
        logits = []
        batches = Batches(images, network.weights, size, CPU, view)
        for step in _in_turn(batches.epoch(), turn):
            scores, last = logits_and_penultimate(network, step)
            logits.append(scores)
            if view is None:
                features.append(last)
        passes.append(torch.cat(logits))
    there = features and features[0] is not None
    return torch.stack(passes).mean(0), torch.cat(features) if there else None


def _in_turn(batches: Iterator, turn: Turn) -> Iterator[torch.Tensor]:
    """Each batch's pictures, inside a turn of its own."""
    for images, _ in batches:
        with turn():
            yield images
