"""Picture files: one file to upright RGB bytes, and many of them into one memory-mapped array.

No torch here: the worker processes need Pillow and NumPy alone.
"""

import contextlib
import errno
import hashlib
import logging
import multiprocessing
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from common.utils.errors import UserError

CHUNK = 256  # pictures a worker decodes at a time
MANY = 2000  # from here on, worker processes and a progress bar pay

# Pillow warns of what it can do without, and of half as many pixels as it refuses.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
logging.getLogger("PIL").propagate = False

Image.init()
# Of those that Pillow reads: not EPS, a program, which Ghostscript would run, and none that may
# hold one, as IPTC.
KNOWN = "AVIF BMP DIB GIF ICO JPEG JPEG2000 PCX PNG PPM QOI SGI TGA TIFF WEBP"
FORMATS = [name for name in Image.ID if name in KNOWN.split()]
SUFFIXES = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}


def is_picture(file: Path) -> bool:
    """Whether a file is there and is called like a picture of one of the formats."""
    return file.suffix.lower() in SUFFIXES and file.is_file()


class UnreadablePicture(Exception):
    """A file that is no whole picture; the text is the reason, in one line."""


def read_picture(file: Path, size: int | None = None) -> np.ndarray:
    """Decode a picture of any mode of 8 or 16 bits to upright RGB: uint8 (3, H, W).

    EXIF orientation is applied, transparency is laid over white, 16-bit grey is scaled to 8 bits;
    of an animation the first frame counts. With `size`, the picture is resized (shorter side,
    antialiased) and centre-cropped to (3, size, size).

    Raises:
        UnreadablePicture: no picture, a truncated one, or one too large to be decoded safely.
    """
    with _opened(file, size) as picture:
        if size:  # cropping first gives the same, and no huge strip of a very long picture
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            box = (left, top, left + side, top + side)
            picture = picture.resize((size, size), Image.Resampling.BILINEAR, box)
        return np.asarray(picture).transpose(2, 0, 1)


def read_whole(file: Path, longest: int) -> np.ndarray:
    """A picture as `read_picture` has it, uncropped: uint8 (3, H, W), its longer side at most
    `longest` px.

    Raises:
        UnreadablePicture: as `read_picture`.
    """
    with _opened(file, longest) as picture:
        scale = min(1, longest / max(picture.size))
        side = tuple(max(1, round(scale * length)) for length in picture.size)
        picture = picture.resize(side, Image.Resampling.BILINEAR)
        return np.asarray(picture).transpose(2, 0, 1)


@contextlib.contextmanager
def _opened(file: Path, size: int | None) -> Iterator[Image.Image]:
    """A picture, upright and RGB; a large one may be smaller, no side below twice `size`."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            if size:
                image.draft(None, (2 * size, 2 * size))  # large JPEGs: decode at 1/2, 1/4, 1/8
            ImageOps.exif_transpose(image, in_place=True)
            yield _rgb(image)
    except UnreadablePicture:
        raise
    except UnidentifiedImageError as error:
        raise UnreadablePicture("no known picture format") from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise almost anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadablePicture(" ".join(reason.split())) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnreadablePicture("pixels of floating-point numbers; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit grey, which convert would clip
        grey = np.asarray(image).clip(0, 65535) / 257
        image = Image.fromarray(grey.round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


@contextlib.contextmanager
def workers(pictures: int) -> Iterator[Executor]:
    """A pool for so many pictures; left early, it drops the tasks that have not begun.

    Many pictures get processes where those can be forked: Python's lock lets threads decode small
    pictures no faster than one. Processes write straight into the memory-mapped array.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if pictures >= MANY and "fork" in multiprocessing.get_all_start_methods():
        pool = ProcessPoolExecutor(cores, multiprocessing.get_context("fork"))
    else:
        pool = ThreadPoolExecutor(cores)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def common_size(pool: Executor, root: Path, paths: Sequence[str]) -> int | None:
    """The side in pixels of all pictures, if all are squares of one size."""
    found = set()
    for sizes in pool.map(partial(_sizes, root), _chunks(paths)):
        found |= sizes
        if len(found) > 1:
            return None
    width, height = found.pop() if found else (None, None)
    return width if width == height else None


def _sizes(root: Path, paths: Sequence[str]) -> set[tuple[int, int]]:
    sizes = set()
    for path in paths:
        with contextlib.suppress(Exception), Image.open(root / path, formats=FORMATS) as image:
            sizes.add(image.size)
    return sizes


def _chunks(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(paths), CHUNK):
        yield paths[first : first + CHUNK]


def decode(
    pool: Executor,
    root: Path,
    paths: Sequence[str],
    size: int,
    array: Path,
    skip_unreadable: bool = False,
) -> tuple[str, dict[int, str]]:
    """Decode the files root/path into a new .npy file: uint8 (M, 3, size, size), a row a path.

    Returns:
        The fingerprint: sha256 hex over each path (utf-8) followed by that file's bytes; and the
        unreadable files' rows, left zero, with the reasons.

    Raises:
        UserError: an unreadable picture, unless skip_unreadable.
        OSError: the array cannot be written.
    """
    _reserve(array, (len(paths), 3, size, size))
    tasks = [
        pool.submit(_decode_chunk, root, chunk, array, number * CHUNK)
        for number, chunk in enumerate(_chunks(paths))
    ]
    digest, unreadable = hashlib.sha256(), {}
    quiet = None if len(paths) >= MANY else True  # None: quiet where stderr is no terminal
    with tqdm(total=len(paths), desc="decoding", unit=" pictures", disable=quiet) as bar:
        for task, chunk in zip(tasks, _chunks(paths), strict=True):
            for path in chunk:  # hashed here while the workers decode
                digest.update(path.encode("utf-8", "surrogateescape"))
                with contextlib.suppress(OSError):  # the worker calls such a file unreadable
                    digest.update((root / path).read_bytes())
            unreadable |= task.result()
            if unreadable and not skip_unreadable:
                row, reason = next(iter(unreadable.items()))
                raise UserError(
                    f"{root / paths[row]}: not a readable picture ({reason}); "
                    "remove it, or leave such files out with --data.skip_unreadable true"
                )
            bar.update(len(chunk))
    return digest.hexdigest(), unreadable


def _reserve(file: Path, shape: tuple[int, ...]) -> None:
    """A file of zeros on disk, so that a full disk is an error now and no worker's crash later."""
    np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):
        with open(file, "r+b") as array:
            try:
                os.posix_fallocate(array.fileno(), 0, file.stat().st_size)
            except OSError as error:
                if error.errno == errno.ENOSPC:  # anything else: a file system that cannot reserve
                    raise


def _decode_chunk(root: Path, paths: Sequence[str], array: Path, first: int) -> dict[int, str]:
    pixels = np.load(array, mmap_mode="r+", allow_pickle=False)
    unreadable = {}
    for row, path in enumerate(paths, first):
        try:
            pixels[row] = read_picture(root / path, pixels.shape[-1])
        except UnreadablePicture as error:
            unreadable[row] = str(error)
    return unreadable
