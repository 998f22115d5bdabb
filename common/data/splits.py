"""Data sets as bytes: load_splits gives the train, val and test pictures of any of them.

Each reader below turns one kind of data set into one array of pictures with labels; what follows
(limit, split, hashes) is the same for all. The test set is the official one, and never touched.
"""

import hashlib
import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.transforms.functional import resize

from common.config import DataConfig
from common.data.cifar import TITLES, archive_root, read_archive
from common.data.digits import pixel_hash, read_digits
from common.data.image_folder import check_classes, read_folder
from common.utils import paths
from common.utils.errors import UserError
from common.utils.paths import expanded, is_text

log = logging.getLogger("rungs")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled pictures: some rows of an array that several sets may share.

    Attributes:
        source: uint8 (M, 3, H, W), RGB; may be a memory-mapped file, and must not be written to
        rows: int64 (N,), this set's pictures in source, ascending
        labels: int64 (N,)
        classes: names by label
        names: path of each picture below the data's folder, where there is one
    """

    source: Tensor
    rows: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, positions: Tensor) -> "ImageSet":
        """The pictures at these positions (int64) of this set, as a set over the same array."""
        names = self.names and [self.names[position] for position in positions]
        rows, labels = self.rows[positions], self.labels[positions]
        return ImageSet(self.source, rows, labels, self.classes, names)

    @property
    def images(self) -> Tensor:
        """The pictures, gathered into memory: uint8 (N, 3, H, W)."""
        return self.source[self.rows]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.source.shape[-2], self.source.shape[-1]


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set's three parts, and what a report says of it.

    Attributes:
        name, title: the data set in the config and in reports
        fingerprint: sha256 hex of the data (see `load_splits`)
        split: sha256 hex of val's rows followed by train's, as little-endian int64
        mirror: whether a mirrored picture keeps its label
        skipped: unreadable pictures left out
    """

    train: ImageSet
    val: ImageSet
    test: ImageSet
    name: str
    title: str
    fingerprint: str
    split: str
    mirror: bool
    skipped: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label."""
        return self.train.classes


@dataclass(frozen=True, eq=False)
class _Pictures:
    """A data set before its split; train and test are rows of source: int64 arrays, ascending."""

    source: Tensor
    labels: np.ndarray
    classes: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray
    fingerprint: str
    names: Sequence[str] | None = None
    skipped: int = 0


def in_turn(labels: Tensor) -> Tensor:
    """Positions (N,) of labels (N,) such that the classes take turns, each in its own order."""
    seen: dict[int, int] = {}
    turns = []
    for label in labels.tolist():
        turns.append(seen.get(label, 0))
        seen[label] = turns[-1] + 1
    return torch.tensor(turns).argsort(stable=True)


def load_splits(config: DataConfig, image_size: int) -> Splits:
    """Load a data set and split its training pictures into train and val, stratified.

    The split depends on `split_seed` (and `limit`) alone. The fingerprint is the SHA-256 of the
    pixels, training pictures first, as uint8 (N, 3, H, W); of a folder, of each file's relative
    path (utf-8) followed by its bytes, in sorted order: test/... before train/...

    Args:
        config: which data, and how it is split
        image_size: side in pixels of the network's input, at which a folder's pictures are
            stored if they have no common size and the config names none

    Raises:
        NoNetwork: a data set that is not here and cannot be downloaded.
        UserError: a folder that is no data set, an unreadable picture, too few pictures.
    """
    title = title_of(config)
    if config.name == "folder":
        data = _read_folder(config, image_size)
    else:
        data = _Pictures(*read_digits()) if config.name == "digits" else _read_cifar(config)
    source = data.source
    if config.stored_size and config.stored_size != source.shape[-1]:
        side = [config.stored_size] * 2
        try:
            source = torch.cat([resize(part, side, antialias=True) for part in source.split(1024)])
        except (RuntimeError, MemoryError) as error:  # torch's words for memory that runs out
            raise UserError(f"data.stored_size: no memory for pictures of {side[0]} px") from error
    train, test = data.train, data.test
    if config.limit is not None:
        if config.limit < len(data.classes):
            raise UserError(
                f"data.limit {config.limit} is less than a picture for each of the "
                f"{len(data.classes)} classes of {title}; raise it"
            )
        train = _choose(train, data.labels, config.limit, config.split_seed)
        test = _choose(test, data.labels, config.limit, seed=0)
    train, val = _split(train, data, config, title)

    def part(rows: np.ndarray) -> ImageSet:
        names = data.names and [data.names[row] for row in rows]
        labels = torch.from_numpy(data.labels[rows])
        return ImageSet(source, torch.from_numpy(rows), labels, data.classes, names)

    return Splits(
        train=part(train),
        val=part(val),
        test=part(test),
        name=config.name,
        title=title,
        fingerprint=data.fingerprint,
        split=hashlib.sha256(np.concatenate([val, train]).astype("<i8")).hexdigest(),
        mirror=config.name != "digits" if config.mirror is None else config.mirror,
        skipped=data.skipped,
    )


def _choose(rows: np.ndarray, labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """At most `limit` of the rows, by chance: of each class its share, and at least one."""
    rows = np.random.RandomState(seed).permutation(rows)
    place = np.empty(len(rows))  # within the class: 0 for its first picture, near 1 for its last
    for label in np.unique(labels[rows]):
        members = np.flatnonzero(labels[rows] == label)
        place[members] = np.arange(len(members)) / len(members)
    return np.sort(rows[np.argsort(place, kind="stable")[:limit]])


def _split(
    rows: np.ndarray, data: _Pictures, config: DataConfig, title: str
) -> tuple[np.ndarray, np.ndarray]:
    labels = data.labels[rows]
    try:
        train, val = train_test_split(
            rows, test_size=config.val_fraction, stratify=labels, random_state=config.split_seed
        )
    except ValueError as error:
        counts = np.bincount(labels, minlength=len(data.classes))
        raise UserError(
            f"{title}: {len(rows)} training pictures ({counts.min()} of class "
            f"'{data.classes[counts.argmin()]}') are too few to set aside data.val_fraction "
            f"{config.val_fraction} of them in each class; add pictures or raise data.limit"
        ) from error
    return np.sort(train), np.sort(val)


def _read_cifar(config: DataConfig) -> _Pictures:
    pixels, labels, trained, classes = read_archive(config.name, archive_root(config))
    train, test = np.split(np.arange(len(labels)), [trained])
    return _Pictures(pixels, labels, classes, train, test, pixel_hash(pixels))


def _read_folder(config: DataConfig, image_size: int) -> _Pictures:
    root = expanded(config.root)
    cache = paths.PROJECT / "data" / "cache"
    folder = read_folder(root, cache, image_size, config.stored_size, config.skip_unreadable)
    files, unreadable = folder.files, folder.unreadable
    if unreadable:
        first, reason = next(iter(unreadable.items()))
        log.warning(
            f"unreadable pictures left out: {len(unreadable)}; "
            f"the first is {root / files[first].path} ({reason})"
        )
        readable = [file for row, file in enumerate(files) if row not in unreadable]
        check_classes(root, readable, folder.classes)
    names = [file.path for file in files]
    label = {name: number for number, name in enumerate(folder.classes)}
    labels = np.array([label[name.split("/")[1]] for name in names], dtype=np.int64)
    rows = np.array([row for row in range(len(files)) if row not in unreadable], dtype=np.int64)
    tested = np.array([names[row].startswith("test/") for row in rows])
    with warnings.catch_warnings():  # torch has no read-only tensors: nobody writes to source
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        pixels = torch.from_numpy(folder.pixels)
    return _Pictures(
        *(pixels, labels, folder.classes, rows[~tested], rows[tested]),
        fingerprint=folder.fingerprint,
        names=names,
        skipped=len(unreadable),
    )


def title_of(config: DataConfig) -> str:
    """What reports call the data, after which the folder of its runs is named.

    Raises:
        UserError: a folder of pictures that is not named, or in no text.
    """
    if config.name == "folder" and config.root is None:
        raise UserError("data.root is missing: name the folder of pictures with --data.root")
    if config.title:
        return config.title
    if config.name != "folder":
        return TITLES.get(config.name, config.name)
    name = Path(os.path.realpath(expanded(config.root))).name
    if not is_text(name):
        raise UserError(f"data.root: the folder {name!a} is not named in UTF-8; use --data.title")
    return name
