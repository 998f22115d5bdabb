"""Labelled pictures as bytes: a whole data set, or some rows of one."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


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
        names = self.names and [self.names[position] for position in positions.tolist()]
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


class Pictures(NamedTuple):
    """A data set before its split.

    Attributes:
        images: all of it; what is in neither part could not be read
        train, test: positions in it: int64 arrays, ascending
        fingerprint: sha256 hex of the data
        left_out: files of a folder that are no pictures, by kind
    """

    images: ImageSet
    train: np.ndarray
    test: np.ndarray
    fingerprint: str
    left_out: Mapping[str, int] = MappingProxyType({})


def all_of(
    source: Tensor, labels: np.ndarray, classes: Sequence[str], names: list[str] | None = None
) -> ImageSet:
    """All rows of an array as a set."""
    rows = torch.arange(len(labels))
    return ImageSet(source, rows, torch.from_numpy(labels), tuple(classes), names)


def pixel_hash(pixels: Tensor) -> str:
    """SHA-256 of an array's bytes."""
    return hashlib.sha256(pixels.contiguous().numpy()).hexdigest()
