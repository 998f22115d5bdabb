"""Data sets as bytes: load_splits gives the train, val and test pictures of any of them.

Each reader below turns one kind of data set into one array of pictures with labels; what follows
(limit, split, hashes) is the same for all. The test set is the official one, and never touched.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision.transforms.functional import resize

from common.config import DataConfig
from common.data.cifar import TITLES, archive_root, read_archive
from common.data.digits import read_digits
from common.data.duplicates import exact_copies
from common.data.image_folder import is_hidden, read_folder
from common.data.pictures import ImageSet, Pictures
from common.utils import paths
from common.utils.errors import UserError
from common.utils.paths import expanded, is_text


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set's three parts, and what a report says of it.

    Attributes:
        name, title: the data set in the config and in reports
        fingerprint: sha256 hex of the data (see `load_splits`)
        split: sha256 hex of val's rows followed by train's, as little-endian int64
        mirror: whether a mirrored picture keeps its label
        skipped: unreadable pictures left out
        left_out: files of a folder that are no pictures, by kind
        dropped: pictures left out of train as copies of val or test pictures
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
    left_out: Mapping[str, int] = field(default_factory=dict)
    dropped: ImageSet | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label."""
        return self.train.classes


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

    The split depends on `split_seed` (and `limit`) alone; with `drop_copies`, what of train is then
    a copy of a val or test picture, equal in every pixel as it is stored, is left out.

    The fingerprint is the SHA-256 of the pixels, training pictures first, as uint8 (N, 3, H, W); of
    a folder, of each picture's relative path (utf-8) followed by its bytes, in sorted order:
    test/... before train/...

    Args:
        config: which data, and how it is split
        image_size: side in pixels of the network's input, at which a folder's pictures are
            stored if they have no common size and the config names none

    Raises:
        NoNetwork: a data set that is not here and cannot be downloaded.
        UserError: a folder that is no data set, an unreadable picture, too few pictures, a class of
            which all training pictures are copies.
    """
    title = title_of(config)
    images, train, test, fingerprint, left_out = _read(config, image_size)
    if config.stored_size and config.stored_size != images.size[1]:
        images = dataclasses.replace(images, source=_resized(images.source, config.stored_size))
    labels, readable = images.labels.numpy(), len(train) + len(test)
    if config.limit is not None:
        if config.limit < len(images.classes):
            raise UserError(
                f"data.limit {config.limit} is less than a picture for each of the "
                f"{len(images.classes)} classes of {title}; raise it"
            )
        train = _choose(train, labels, config.limit, config.split_seed)
        test = _choose(test, labels, config.limit, seed=0)
    train, val = _split(train, images, config, title)
    dropped = _copied(images, train, val, test, title) if config.drop_copies else train[:0]
    train = np.setdiff1d(train, dropped)
    return Splits(
        *(images.subset(torch.from_numpy(rows)) for rows in (train, val, test)),
        name=config.name,
        title=title,
        fingerprint=fingerprint,
        split=hashlib.sha256(np.concatenate([val, train]).astype("<i8")).hexdigest(),
        mirror=config.name != "digits" if config.mirror is None else config.mirror,
        skipped=len(images) - readable,
        left_out=left_out,
        dropped=images.subset(torch.from_numpy(dropped)),
    )


def _read(config: DataConfig, image_size: int) -> Pictures:
    if config.name == "digits":
        return read_digits()
    if config.name != "folder":
        return read_archive(config.name, archive_root(config))
    return read_folder(config, paths.cache_folder(), image_size)


def _resized(source: Tensor, side: int) -> Tensor:
    try:
        parts = [resize(part, [side, side], antialias=True) for part in source.split(1024)]
        return torch.cat(parts)
    except (RuntimeError, MemoryError) as error:  # torch's words for memory that runs out
        raise UserError(f"data.stored_size: no memory for pictures of {side} px") from error


def _choose(rows: np.ndarray, labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """At most `limit` of the rows, by chance: of each class its share, and at least one."""
    rows = np.random.RandomState(seed).permutation(rows)
    place = np.empty(len(rows))  # within the class: 0 for its first picture, near 1 for its last
    for label in np.unique(labels[rows]):
        members = np.flatnonzero(labels[rows] == label)
        place[members] = np.arange(len(members)) / len(members)
    return np.sort(rows[np.argsort(place, kind="stable")[:limit]])


def _split(
    rows: np.ndarray, images: ImageSet, config: DataConfig, title: str
) -> tuple[np.ndarray, np.ndarray]:
    labels = images.labels.numpy()[rows]
    try:
        train, val = train_test_split(
            rows, test_size=config.val_fraction, stratify=labels, random_state=config.split_seed
        )
    except ValueError as error:
        counts = np.bincount(labels, minlength=len(images.classes))
        raise UserError(
            f"{title}: {len(rows)} training pictures ({counts.min()} of class "
            f"'{images.classes[counts.argmin()]}') are too few to set aside data.val_fraction "
            f"{config.val_fraction} of them in each class; add pictures or raise data.limit"
        ) from error
    return np.sort(train), np.sort(val)


def _copied(
    images: ImageSet, train: np.ndarray, val: np.ndarray, test: np.ndarray, title: str
) -> np.ndarray:
    """The rows of train whose pictures are those of other rows in val or test."""
    own, *others = (images.subset(torch.from_numpy(rows)) for rows in (train, val, test))
    positions = [copy.position for copy in exact_copies(own, others)]
    labels, count = own.labels.numpy(), len(images.classes)
    left = np.bincount(np.delete(labels, positions), minlength=count)
    for label in np.unique(labels[positions]):
        if not left[label]:
            raise UserError(
                f"data.drop_copies: all {(labels == label).sum()} training pictures of class "
                f"'{images.classes[label]}' of {title} are copies of val or test pictures; "
                "add others, or take the copies out of the data"
            )
    return train[positions]


def count_classes(config: DataConfig) -> int:
    """How many classes the data has, without reading it; 10 of a folder that is not there."""
    if config.name != "folder":
        return {"cifar100": 100, "cifar100_coarse": 20}.get(config.name, 10)
    train = expanded(config.root or "") / "train"
    found = train.glob("*/") if train.is_dir() else ()
    return sum(not is_hidden(folder.name) for folder in found) or 10


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
