"""Pictures that occur twice: exact copies by hash, look-alikes by perceptual hash."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from common.data.pictures import ImageSet

NEAR = 2  # bits of 64 in which two look-alikes' hashes differ at most
PAIRS = 2 * 10**9  # compared one by one up to here: seconds; beyond, equal hashes alone count
LISTED = 10  # copies that a message names
WAY_ON = "--data.drop_copies true leaves such pictures out of train"


class Copy(NamedTuple):
    """A picture that is another set's too.

    Attributes:
        position: in its set
        name, of: its file, and the other one; None where the data has no files
    """

    position: int
    name: str | None
    of: str | None


def exact_copies(images: ImageSet, others: list[ImageSet]) -> list[Copy]:
    """A set's pictures that have a copy, equal in every pixel, in the other sets."""
    seen: dict[bytes, str | None] = {}
    for other in others:
        for digest, name in zip(_digests(other), _names(other), strict=True):
            seen.setdefault(digest, name)
    own = enumerate(zip(_digests(images), _names(images), strict=True))
    return [Copy(i, name, seen[digest]) for i, (digest, name) in own if digest in seen]


def listed(copies: list[Copy]) -> str:
    """The first ten by file, as "test/cat/3.png (train/cat/8.png), ... and 2 more"; "" of none."""
    named = [f"{_shown(c.name)} ({_shown(c.of)})" for c in copies if c.name and c.of]
    more = f" and {len(named) - LISTED} more" if named[LISTED:] else ""
    return ", ".join(named[:LISTED]) + more


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def near_copies(test: ImageSet, others: list[ImageSet]) -> int:
    """How many test pictures look like one in the other sets; flat pictures all look alike."""
    known = np.unique(np.concatenate([difference_hash(images) for images in others]))
    own = difference_hash(test)
    if len(own) * len(known) > PAIRS:
        return int(np.isin(own, known).sum())
    near = 0
    for part in np.array_split(own, max(1, len(own) // 64)):
        distance = np.bitwise_count(part[:, None] ^ known[None])
        near += int((distance.min(1) <= NEAR).sum())
    return near


def difference_hash(images: ImageSet) -> np.ndarray:
    """64 bits a picture, uint64 (N,): where brightness falls from left to right, on 8 x 9 cells.

    Krawetz's dHash, https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
    """
    hashes = [np.empty(0, np.uint64)]
    for pixels in _chunks(images):
        grey = pixels.float().mean(1, keepdim=True)
        cells = F.interpolate(grey, (8, 9), mode="bilinear", antialias=True)[:, 0]
        bits = (cells[:, :, :-1] > cells[:, :, 1:]).flatten(1).numpy()
        hashes.append(np.packbits(bits, axis=1).view(np.uint64)[:, 0])
    return np.concatenate(hashes)


def _names(images: ImageSet) -> Sequence[str | None]:
    return images.names or [None] * len(images)


def _digests(images: ImageSet) -> list[bytes]:
    return [hashlib.md5(p.tobytes()).digest() for c in _chunks(images) for p in c.numpy()]


def _chunks(images: ImageSet) -> Iterator[Tensor]:
    return (images.source[rows] for rows in images.rows.split(1024))
