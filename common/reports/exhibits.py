"""Test pictures that pages show: chosen from predictions, seen through the levels' networks.

The same pictures for every level, so that levels can be compared on them; at most 150.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.special import softmax
from sklearn.decomposition import PCA

from common.data import Batches, ImageSet
from common.data.splits import in_turn
from common.evaluation import gradcam
from common.models import StagedNetwork
from common.reports.tables import Run
from common.runtime import Runtime
from common.utils.errors import UserError
from common.utils.files import read_npz

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("rungs")

PICTURES = 150  # at most in a gallery
GROUP = 12  # at most of one kind: a level's mistakes, what it fixed, what it broke
SHOWN = 6  # that stand side by side at every level
SIDE = 64  # px, at most, of a stored picture
PLANE = 1000  # test pictures in the plane of last features
CPU = Runtime(torch.device("cpu"), torch.float32)


class Level(NamedTuple):
    """A level's own run, as exhibits need it.

    Attributes:
        name: the level; run: its report.
        logits: float (N, C) of the test pictures; confidence: (N,) the predicted class's.
    """

    name: str
    run: Run
    logits: np.ndarray

    @property
    def confidence(self) -> np.ndarray:
        return softmax(self.logits.astype(np.float64), 1).max(1)


class Gallery(NamedTuple):
    """Chosen test pictures, and what each level makes of them.

    Attributes:
        positions: int64 (n,), rows of the test set, ascending.
        images: uint8 (n, 3, h, w).
        groups: what they were chosen for -> indices into them: "mistakes level1_baseline", ...
        answers: level -> int64 (n,); confidence: level -> float (n,).
        maps: level -> float (n, h, w) between 0 and 1, for the levels whose network was there.
        source: of the predictions that all this was made from.
    """

    positions: np.ndarray
    images: np.ndarray
    groups: dict[str, np.ndarray]
    answers: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    source: str


def choose(levels: Sequence[Level]) -> dict[str, np.ndarray]:
    """Rows of the test set by what they are shown for; confident answers first."""
    group = min(GROUP, (PICTURES - SHOWN) // (3 * len(levels) - 2))
    labels = levels[0].run.labels
    groups = {"shown": in_turn(torch.from_numpy(labels))[:SHOWN].numpy()}
    below = None
    for level in levels:
        right, sure = level.run.predictions == labels, level.confidence
        groups[f"mistakes {level.name}"] = _surest(~right, sure, group)
        if below is not None:
            groups[f"fixed {level.name}"] = _surest(right & ~below, sure, group)
            groups[f"broken {level.name}"] = _surest(~right & below, sure, group)
        below = right
    return groups


def _surest(chosen: np.ndarray, confidence: np.ndarray, count: int) -> np.ndarray:
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(-confidence[rows], kind="stable")][:count]


def source(levels: Sequence[Level]) -> str:
    """What a gallery was made from, as a hash of the levels' names, labels and logits."""
    digest = hashlib.sha256()
    for level in levels:
        digest.update(level.name.encode())
        for array in (level.run.labels, level.logits.astype(np.float16)):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def collect(levels: Sequence[Level], test: ImageSet, networks: dict[str, StagedNetwork]) -> Gallery:
    """Choose pictures of the test set, and look at them through the networks that are there."""
    chosen = choose(levels)
    positions = np.unique(np.concatenate(list(chosen.values())))
    pictures = test.subset(torch.from_numpy(positions))
    maps = {}
    for level in levels:
        if level.name in networks:
            answers = torch.from_numpy(level.run.predictions[positions])
            found = _maps(networks[level.name], pictures, answers)
            if found is not None:
                maps[level.name] = found
    return Gallery(
        positions,
        _small(pictures.images),
        {name: np.searchsorted(positions, rows) for name, rows in chosen.items()},
        {level.name: level.run.predictions[positions] for level in levels},
        {level.name: level.confidence[positions] for level in levels},
        maps,
        source(levels),
    )


def _maps(network: StagedNetwork, pictures: ImageSet, answers: torch.Tensor) -> np.ndarray | None:
    found = []
    batches = Batches(pictures, network.weights, 32, CPU).epoch()
    for (images, _), classes in zip(batches, answers.split(32), strict=True):
        maps, _ = gradcam.activation_maps(network, images, classes)
        if maps is None:
            return None
        found.append(maps)
    return torch.cat(found).numpy()


def _small(images: torch.Tensor) -> np.ndarray:
    """Pictures of at most `SIDE` px: uint8 (n, 3, h, w)."""
    scale = SIDE / max(images.shape[2:])
    if scale < 1:
        size = [max(1, round(side * scale)) for side in images.shape[2:]]
        images = torch.nn.functional.interpolate(
            images.float(), size, mode="bilinear", antialias=True
        )
        images = images.round().clamp(0, 255).to(torch.uint8)
    return images.numpy()


def save(gallery: Gallery, file: Path) -> None:
    """Write a gallery; maps and confidences to one part in 255."""
    arrays = {"positions": gallery.positions, "images": gallery.images}
    for kind in ("groups", "answers", "confidence", "maps"):
        for name, values in getattr(gallery, kind).items():
            whole = kind in ("confidence", "maps")
            arrays[f"{kind}/{name}"] = (
                np.round(255 * values).astype(np.uint8) if whole else values.astype(np.int32)
            )
    np.savez_compressed(file, source=np.array(gallery.source), **arrays)


def load(file: Path, levels: Sequence[Level]) -> Gallery | None:
    """A gallery that was made from these levels' predictions; None where there is none."""
    try:
        saved = read_npz(file)
        if str(saved["source"]) != source(levels):
            return None
        kinds: dict[str, dict] = {k: {} for k in ("groups", "answers", "confidence", "maps")}
        for key, values in saved.items():
            kind, _, name = key.partition("/")
            if kind in kinds and name:
                whole = kind in ("confidence", "maps")
                kinds[kind][name] = values / 255 if whole else values.astype(np.int64)
        return Gallery(saved["positions"], saved["images"], **kinds, source=str(saved["source"]))
    except (KeyError, UserError):
        return None


def sheets(gallery: Gallery, levels: Sequence[Level]) -> dict[str, dict[str, "Figure"]]:
    """The galleries' pictures for each level's report, by the names in `ALBUM`."""
    from common.reports.figures import galleries

    labels, classes = levels[0].run.labels[gallery.positions], levels[0].run.classes
    truths = [classes[i] for i in labels]

    def lines(level: str) -> list[str]:
        sure = gallery.confidence[level]
        return [
            f"{classes[i]} {100 * p:.0f} %"
            for i, p in zip(gallery.answers[level], sure, strict=True)
        ]

    def answers(rows: np.ndarray, level: str) -> "Figure":
        return galleries.answers(
            gallery.images[rows], [truths[i] for i in rows], [lines(level)[i] for i in rows]
        )

    found: dict[str, dict[str, Figure]] = {}
    for i, level in enumerate(levels):
        name, own = level.name, found.setdefault(level.name, {})
        mistakes = gallery.groups[f"mistakes {name}"]
        if len(mistakes):
            own["mistakes"] = answers(mistakes, name)
        changes = [gallery.groups.get(f"{kind} {name}", []) for kind in ("fixed", "broken")]
        if any(map(len, changes)):
            own["changes"] = galleries.changes(
                gallery.images, truths, lines(levels[i - 1].name), lines(name), *changes
            )
        seen = [other.name for other in levels[: i + 1] if other.name in gallery.maps]
        if name in seen:
            rows = gallery.groups["shown"]
            views = {
                other: (gallery.maps[other][rows], [lines(other)[j] for j in rows])
                for other in seen
            }
            own["activation_maps"] = galleries.side_by_side(
                gallery.images[rows], [truths[j] for j in rows], views
            )
    return found


def close_ups(network: StagedNetwork, test: ImageSet) -> dict[str, "Figure"]:
    """What a network makes of pictures, stage by stage, by the names in `ALBUM`.

    The plane of last features is left out where the head has no linear layer.
    """
    from common.reports.figures import diagnostics, galleries

    first = test.subset(in_turn(test.labels)[:1])
    ((picture, _),) = Batches(first, network.weights, 1, CPU).epoch()
    found = {}
    stages = {k: v.numpy() for k, v in gradcam.stage_maps(network, picture[0]).items()}
    if stages:
        found["feature_maps"] = galleries.feature_maps(first.images[0].numpy(), stages)
    weights = gradcam.first_filters(network)
    if weights is not None:
        found["filters"] = galleries.filters(weights.numpy())
    some = test.subset(in_turn(test.labels)[:PLANE])
    batches = Batches(some, network.weights, 64, CPU)
    features = [gradcam.penultimate(network, x) for x, _ in batches.epoch()]
    if features[0] is not None and len(some) > 2:
        plane = PCA(2, random_state=0).fit_transform(torch.cat(features).numpy())
        found["feature_plane"] = diagnostics.feature_plane(plane, some.labels.numpy(), test.classes)
    return found
