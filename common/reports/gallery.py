"""Test pictures that pages show: chosen from predictions, seen through the levels' networks.

The same pictures for every level, so that levels can be compared on them; at most 150.
"""

import base64
import hashlib
import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from sklearn.decomposition import PCA

from common.data import Batches, ImageSet
from common.data.splits import in_turn
from common.evaluation import gradcam
from common.models import StagedNetwork
from common.reports.figures import diagnostics, galleries
from common.reports.figures.style import short
from common.reports.restore import CPU, passed_over
from common.reports.schema import Run
from common.utils.errors import UserError
from common.utils.files import npz, read_npz, write_whole

log = logging.getLogger("rungs")

PICTURES = 150  # at most in a gallery
SHEETS = {"mistakes": 9, "fixed": 6, "broken": 3}  # of a kind in a level's sheets
GROUP = 12  # at most of one kind: a level's mistakes, what it fixed, what it broke
SHOWN = 6  # that stand side by side at every level
SIDE = 64  # px, at most, of a stored picture
PLANE = 400  # test pictures in the plane of last features
COLUMNS = 12  # of the page's sheet of thumbnails
MAP_SIDE = 16  # places, at most, of a map on the page


@dataclass(frozen=True)
class Gallery:
    """Chosen test pictures, and what each level makes of them.

    Attributes:
        runs: of the levels, from the lowest.
        positions: int64 (n,), rows of the test set, ascending.
        groups: what they were chosen for -> indices into them: "mistakes level1_baseline", ...
        images: uint8 (n, 3, h, w).
        maps: level -> uint8 (n, h, w), where it looked, for the levels whose network was there.
    """

    runs: Sequence[Run]
    positions: np.ndarray
    groups: dict[str, np.ndarray]
    images: np.ndarray
    maps: dict[str, np.ndarray]

    @property
    def answers(self) -> dict[str, np.ndarray]:
        """Level -> int (n,)."""
        return {run.level: run.predictions[self.positions] for run in self.runs}

    @property
    def confidence(self) -> dict[str, np.ndarray]:
        """Level -> the predicted class's probability, float64 (n,)."""
        return {run.level: run.probabilities[self.positions].max(1) for run in self.runs}


def choose(runs: Sequence[Run]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows of the test set, and what each is shown for: see `Gallery`; confident answers first."""
    group = min(GROUP, (PICTURES - SHOWN) // (3 * len(runs) - 2))
    labels = runs[0].labels
    groups = {"shown": in_turn(torch.from_numpy(labels))[:SHOWN].numpy()}
    below = None
    for run in runs:
        right, sure = run.predictions == labels, run.probabilities.max(1)
        groups[f"mistakes {run.level}"] = _surest(~right, sure, group)
        if below is not None:
            groups[f"fixed {run.level}"] = _surest(right & ~below, sure, group)
            groups[f"broken {run.level}"] = _surest(~right & below, sure, group)
        below = right
    positions = np.unique(np.concatenate(list(groups.values())))
    return positions, {name: np.searchsorted(positions, rows) for name, rows in groups.items()}


def _surest(chosen: np.ndarray, confidence: np.ndarray, count: int) -> np.ndarray:
    rows = np.flatnonzero(chosen)
    return rows[np.argsort(-confidence[rows], kind="stable")][:count]


def collect(runs: Sequence[Run], test: ImageSet, networks: dict[str, StagedNetwork]) -> Gallery:
    """Choose pictures of the test set, and look at them through the networks that are there."""
    positions, groups = choose(runs)
    pictures, maps = test.subset(torch.from_numpy(positions)), {}
    for run in runs:
        with passed_over(f"where {run.level} looks"):
            answers = torch.from_numpy(run.predictions[positions])
            network = networks.get(run.level)
            found = network and _maps(network, pictures, answers)
            maps |= {} if found is None else {run.level: found}
    return Gallery(runs, positions, groups, _small(pictures.images), maps)


def _maps(network: StagedNetwork, pictures: ImageSet, answers: torch.Tensor) -> np.ndarray | None:
    found = []
    batches = Batches(pictures, network.weights, 32, CPU).epoch()
    for (images, _), classes in zip(batches, answers.split(32), strict=True):
        maps, _ = gradcam.activation_maps(network, images, classes)
        if maps is None:
            return None
        found.append(maps)
    return np.round(255 * torch.cat(found).numpy()).astype(np.uint8)


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


def source(runs: Sequence[Run]) -> str:
    """What a gallery was made from, as a hash of the levels' names, labels and logits."""
    digest = hashlib.sha256()
    for run in runs:
        digest.update(run.level.encode())
        for array in (run.labels, run.logits.astype(np.float16)):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save(gallery: Gallery, file: Path) -> None:
    """Write what the reports do not hold: pictures, and where each level looked."""
    maps = {f"maps/{level}": found for level, found in gallery.maps.items()}
    made_from = np.array(source(gallery.runs))
    arrays = {"positions": gallery.positions, "images": gallery.images, "source": made_from}
    write_whole(file, npz(**arrays, **maps))


def load(file: Path, runs: Sequence[Run]) -> Gallery | None:
    """A gallery that was made from these levels' predictions; None where there is none."""
    try:
        saved = read_npz(file)
    except UserError:
        return None
    positions, groups = choose(runs)
    own = str(saved.get("source")) == source(runs)
    own = own and np.array_equal(saved.get("positions"), positions)
    images, count = saved.get("images"), len(positions)
    if not own or not _is_sheet(images, count, 3):
        return None
    maps = {run.level: saved.get(f"maps/{run.level}") for run in runs}
    maps = {level: found for level, found in maps.items() if _is_sheet(found, count)}
    return Gallery(runs, positions, groups, images, maps)


def _is_sheet(array: np.ndarray | None, *shape: int) -> bool:
    """Whether an array holds bytes, and has this shape but for its last two sides, both small."""
    fine = array is not None and array.dtype == np.uint8 and array.shape[:-2] == shape
    return fine and 0 < max(array.shape[-2:]) <= SIDE


def sheets(gallery: Gallery) -> dict[str, dict[str, Figure]]:
    """The galleries' pictures for each level's report, by the names in `ALBUM`."""
    images, classes = gallery.images, gallery.runs[0].classes
    truths = np.array(classes)[gallery.runs[0].labels[gallery.positions]]
    lines = {}  # level -> what it says of each picture
    for level, sure in gallery.confidence.items():
        answers = np.array(classes)[gallery.answers[level]]
        words = [f"{short(n, 14)}, {100 * p:.0f} %" for n, p in zip(answers, sure, strict=True)]
        lines[level] = np.array(words)
    levels, found = list(lines), {}
    for i, level in enumerate(levels):
        own = found.setdefault(level, {})
        rows, *changes = (
            gallery.groups.get(f"{kind} {level}", [])[:count] for kind, count in SHEETS.items()
        )
        if len(rows):
            own["mistakes"] = galleries.answers(images[rows], truths[rows], lines[level][rows])
        if any(map(len, changes)):
            own["changes"] = galleries.changes(
                images, truths, {name: lines[name] for name in levels[i - 1 : i + 1]}, *changes
            )
        if level in gallery.maps:
            rows = gallery.groups["shown"]
            views = {
                other: (gallery.maps[other][rows] / 255, lines[other][rows])
                for other in levels[: i + 1]
                if other in gallery.maps
            }
            own["activation_maps"] = galleries.side_by_side(images[rows], truths[rows], views)
    return found


def close_ups(network: StagedNetwork, test: ImageSet) -> dict[str, Figure]:
    """What a network makes of pictures, stage by stage, by the names in `ALBUM`."""
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
    with CPU.arithmetic():
        features = [gradcam.penultimate(network, x) for x, _ in batches.epoch()]
    if len(some) > 2 and features[0] is not None:
        plane = PCA(2, random_state=0).fit_transform(torch.cat(features).numpy())
        found["feature_plane"] = diagnostics.feature_plane(plane, some.labels.numpy(), test.classes)
    return found


def uri(content: bytes, kind: str) -> str:
    """A file as an address that holds it: `kind` is "svg", "webp", "png"."""
    kind = {"svg": "svg+xml"}.get(kind, kind)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def webp(pixels: np.ndarray) -> str:
    """Pixels, uint8 (h, w, 3), as an address that holds them."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=85)
    return uri(buffer.getvalue(), "webp")


def gallery_json(gallery: Gallery) -> str:
    """What the page's script shows, as JSON that cannot end its script element."""
    run = gallery.runs[0]
    count, _, height, width = gallery.images.shape
    rows = -(-count // COLUMNS)
    sheet = np.zeros((rows * height, COLUMNS * width, 3), np.uint8)
    for i, image in enumerate(gallery.images):
        y, x = i // COLUMNS * height, i % COLUMNS * width
        sheet[y : y + height, x : x + width] = image.transpose(1, 2, 0)
    right = {other.level: other.predictions == run.labels for other in gallery.runs}
    colours = matplotlib.colormaps["inferno"](np.arange(256), bytes=True)[:, :3]
    content = {
        "sprite": webp(sheet),
        "columns": COLUMNS,
        "size": [width, height],
        "classes": list(run.classes),
        "truths": run.labels[gallery.positions].tolist(),
        "answers": {name: values.tolist() for name, values in gallery.answers.items()},
        "confidence": {name: v.round(3).tolist() for name, v in gallery.confidence.items()},
        "maps": {name: _bytes(maps) for name, maps in gallery.maps.items()},
        "colours": colours.tolist(),
        "total": len(run.labels),
        "changes": {
            f"{a} {b}": {
                "fixed": int((~right[a] & right[b]).sum()),
                "broken": int((right[a] & ~right[b]).sum()),
            }
            for a in right
            for b in right
        },
    }
    return json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")


def _bytes(maps: np.ndarray) -> dict:
    """Maps, uint8 (n, h, w), in base 64, thinned out where they are large."""
    step = -(-max(maps.shape[1:]) // MAP_SIDE)
    maps = np.ascontiguousarray(maps[:, ::step, ::step])
    text = base64.b64encode(maps.tobytes()).decode()
    return {"width": maps.shape[2], "height": maps.shape[1], "values": text}
