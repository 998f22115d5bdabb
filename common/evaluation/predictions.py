"""Evaluation: logits of every picture, test-time augmentation, and what is counted from them."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.config import LevelConfig
from common.data import Batches, ImageSet, Splits
from common.data.augment.geometry import reflected
from common.data.loader import Transform
from common.models import FeatureBatches, StagedNetwork, Trunk

CLEAN_TRAIN = 2_500  # training pictures that are evaluated, without augmentation, after training


@dataclass(frozen=True)
class Predictions:
    """Logits float32 (N, C) and labels int64 (N,), on the CPU, in the image set's order."""

    logits: Tensor
    labels: Tensor

    @property
    def classes(self) -> Tensor:
        """Predicted classes, int64 (N,)."""
        return self.logits.argmax(1)

    def score(self) -> dict[str, float]:
        """Correct, total, accuracy (a fraction) and mean cross-entropy (nats)."""
        correct, total = int((self.classes == self.labels).sum()), len(self.labels)
        loss = float(F.cross_entropy(self.logits, self.labels))
        return {"correct": correct, "total": total, "accuracy": correct / total, "loss": loss}


@dataclass(frozen=True)
class Results:
    """What one evaluation after the last weight change found."""

    train: Predictions
    val: Predictions
    test: Predictions
    test_single: Predictions  # without test-time augmentation
    tta: str
    seconds: float  # all passes
    test_seconds: float  # test, by all its views
    single_seconds: float  # test, by a single pass


def mirrored(images: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) mirrored left-right."""
    return images.flip(3)


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Pictures (B, 3, H, W) moved by whole pixels; what enters is reflected."""
    for dimension, pixels in ((2, down), (3, right)):
        size = images.shape[dimension]
        places = reflected(torch.arange(size, device=images.device) - pixels, size)
        images = images.index_select(dimension, places)
    return images


def views(tta: str) -> list[Transform | None]:
    """The test-time views by name, the picture itself (None) first."""
    moves = ((1, 0), (-1, 0), (0, 1), (0, -1))
    shifts = [lambda images, _, m=move: shifted(images, *m) for move in moves]
    flip = [lambda images, _: mirrored(images)]
    flipped = [lambda images, _, m=move: shifted(mirrored(images), *m) for move in moves]
    both = [*shifts, *flip, *flipped]
    return [None, *{"none": [], "flip": flip, "shifts": shifts, "flip_shifts": both}[tta]]


def tta_of(config: LevelConfig, data: Splits) -> str:
    """The test-time augmentation of a run: a flip only where a mirrored picture keeps its label."""
    flips = config.test.tta in ("flip", "flip_shifts")
    return "shifts" if flips and not data.mirror else config.test.tta


@contextlib.contextmanager
def evaluating(network: StagedNetwork) -> Iterator[None]:
    """Eval mode for the block; then the mode that it was in."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


@torch.inference_mode()
def predict(network: StagedNetwork, batches: FeatureBatches) -> Predictions:
    """One pass in eval mode; the network's mode is restored.

    Of several processes each takes a part of the pictures, and all have the whole in the end.
    """
    runtime, images, logits, labels = batches.trunk.runtime, batches.batches.images, [], []
    forward = runtime.compiled(network.forward_suffix)
    with evaluating(network):
        for features, targets in batches.epoch():
            with runtime.arithmetic():
                logits.append(forward(features).float())
            labels.append(targets)
    if not logits:  # more processes than pictures
        logits, labels = [torch.empty(0, len(images.classes))], [images.labels[:0]]
    parts = torch.cat(logits).cpu(), torch.cat(labels).cpu()
    return Predictions(*(runtime.processes.all_gather(part, len(images)) for part in parts))


def evaluate(network: StagedNetwork, data: Splits, config: LevelConfig, trunk: Trunk) -> Results:
    """Score train, val and test, in that order, each in one pass; test also by TTA."""
    started = time.perf_counter()
    train = _run(network, clean_train(data.train), config, trunk)
    val = _run(network, data.val, config, trunk)
    ends = [time.perf_counter()]
    passes = []
    for single in test_passes(network, data, config, trunk):
        passes.append(single)
        ends.append(time.perf_counter())
    seconds = ends[-1] - started, ends[-1] - ends[0], ends[1] - ends[0]
    return Results(train, val, average_logits(passes), passes[0], tta_of(config, data), *seconds)


def test_passes(
    network: StagedNetwork, data: Splits, config: LevelConfig, trunk: Trunk
) -> Iterator[Predictions]:
    """The test pictures by each view of the configured test-time augmentation in turn."""
    for view in views(tta_of(config, data)):
        yield _run(network, data.test, config, trunk, view)


def average_logits(passes: list[Predictions]) -> Predictions:
    """The mean of several views' logits."""
    return Predictions(torch.stack([p.logits for p in passes]).mean(0), passes[0].labels)


def _run(
    network: StagedNetwork,
    images: ImageSet,
    config: LevelConfig,
    trunk: Trunk,
    view: Transform | None = None,
) -> Predictions:
    batches = Batches(images, network.weights, config.train.batch_size, trunk.runtime, view)
    return predict(network, FeatureBatches(batches, trunk, epochs=1))


def clean_train(train: ImageSet) -> ImageSet:
    """The fixed training pictures that are evaluated: the same whatever the seed."""
    if len(train) <= CLEAN_TRAIN:
        return train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return train.subset(order[:CLEAN_TRAIN].sort().values)
