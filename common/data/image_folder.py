"""A folder of pictures, train/<class>/* and test/<class>/*, decoded once and kept as one array.

The cache notices files that were added, removed or replaced, by their sizes and times. The time of
a file's last change of any kind is among them, which copying with `cp -p` or `touch` cannot put
back. The array, which is hashed when it is written, goes by the same three figures: where they are
as they were, it is taken; where the times alone differ, it is hashed again; else it is made anew.
Only bytes that a failing disk changes go unnoticed.
"""

import hashlib
import json
import logging
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from common.config import DataConfig
from common.data.decode import common_size, decode, workers
from common.data.pictures import Pictures, all_of
from common.utils.errors import UserError
from common.utils.files import clear_drafts, drafted, file_hash, read_bytes, write_whole
from common.utils.paths import expanded, is_text

log = logging.getLogger("rungs")

FORMAT = 3  # of the cache; a new number leaves older caches unused
LAYOUT = "pictures belong in train/<class>/ and test/<class>/"


def read_folder(config: DataConfig, cache: Path, image_size: int) -> Pictures:
    """Decode a folder's pictures, or map the array that an earlier call left in the cache.

    They are in the order of their paths, test/... before train/..., an unreadable one all zeros.
    Their side is `data.stored_size`, else their common size if all are squares of one size, else
    `image_size`. The cache is keyed by the root and by the files' paths, sizes and times; what is
    in it appears whole or not at all.

    Raises:
        UserError: no such folder, class folders that differ between train and test, an empty
            class, one class only, an unreadable picture unless skip_unreadable, a full disk.
    """
    root, skip = expanded(config.root), config.skip_unreadable
    try:
        classes = _classes(root)
        files = {}
        for half in ("test", "train"):
            for name in classes:
                files |= _list(root, f"{half}/{name}")
    except OSError as error:
        raise UserError(f"data.root: {error.filename} cannot be read ({error.strerror})") from error
    paths = sorted(files)
    _check_classes(root, paths, classes)
    content = json.dumps([FORMAT, str(root.resolve()), skip, sorted(files.items())])
    key = hashlib.sha256(content.encode()).hexdigest()[:32]

    facts = _read_facts(cache / f"{key}.json")
    size = config.stored_size or facts["common_size"] or image_size
    pixels = _open_array(cache / f"{key}-{size}.npy", (len(files), 3, size, size), facts)
    if pixels is None:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            clear_drafts(cache)
            with workers(len(files)) as pool:
                common = common_size(pool, root, paths)
            size = config.stored_size or common or image_size
            array = cache / f"{key}-{size}.npy"
            with drafted(array) as draft:
                with workers(len(files)) as pool:
                    fingerprint, unreadable = decode(pool, root, paths, size, draft, skip)
                digest = file_hash(draft)
            facts |= {"fingerprint": fingerprint, "common_size": common, "unreadable": unreadable}
            facts["arrays"][str(size)] = [*_status(array), digest]
            text = json.dumps(facts)
            write_whole(cache / f"{key}.json", f"{_text_digest(text)}\n{text}")
            pixels = np.load(array, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            text = f"{cache}: cannot keep the decoded pictures here ({error.strerror}); make room"
            raise UserError(text) from error
    return _pictures(root, paths, classes, pixels, facts)


def _pictures(
    root: Path, paths: list[str], classes: tuple[str, ...], pixels: np.ndarray, facts: dict
) -> Pictures:
    """What was decoded, the unreadable rows in no part."""
    unreadable = {int(row): reason for row, reason in facts["unreadable"].items()}
    readable = np.array([row for row in range(len(paths)) if row not in unreadable], dtype=np.int64)
    if unreadable:
        first, reason = next(iter(unreadable.items()))
        log.warning(
            f"unreadable pictures left out: {len(unreadable)}; "
            f"the first is {root / paths[first]} ({reason})"
        )
        _check_classes(root, [paths[row] for row in readable], classes)
    label = {name: number for number, name in enumerate(classes)}
    labels = np.array([label[name.split("/")[1]] for name in paths], dtype=np.int64)
    tested = np.array([paths[row].startswith("test/") for row in readable])
    with warnings.catch_warnings():  # torch has no read-only tensors: nobody writes to source
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        images = all_of(torch.from_numpy(pixels), labels, classes, paths)
    return Pictures(images, readable[~tested], readable[tested], facts["fingerprint"])


def _classes(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder {root}; {LAYOUT} below it")
    found = {}
    for half in ("train", "test"):
        if not (root / half).is_dir():
            raise UserError(f"data.root: {root} has no folder {half}/; {LAYOUT} below it")
        with os.scandir(root / half) as entries:
            found[half] = {e.name for e in entries if e.is_dir() and not e.name.startswith(".")}
    if lone := sorted(found["train"] ^ found["test"]):
        where, other = ("train", "test") if lone[0] in found["train"] else ("test", "train")
        raise UserError(
            f"data.root: class folders differ: {root / where / lone[0]} has no counterpart in "
            f"{other}/ ({', '.join(lone)}); each class needs a folder in both"
        )
    if len(found["train"]) < 2:
        known = ", ".join(found["train"]) or "none"
        raise UserError(
            f"data.root: {root / 'train'} needs class folders, two at least; found {known}"
        )
    if odd := [name for name in sorted(found["train"]) if not is_text(name)]:
        raise UserError(
            f"data.root: {root / 'train'}: the class folder {odd[0]!a} is not named in UTF-8; "
            "rename it in train/ and test/"
        )
    return tuple(sorted(found["train"]))


def _list(root: Path, below: str) -> dict[str, list[int]]:
    """Path below root and status of every file in root/below and its folders, but hidden ones."""
    files = {}
    with os.scandir(root / below) as entries:
        for entry in entries:
            path = f"{below}/{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                files |= _list(root, path)
            elif entry.is_file():
                files[path] = _status(entry)
            elif entry.is_symlink():  # a dead link: listed, and found unreadable
                files[path] = [0, 0, 0]
    return files


def _check_classes(root: Path, paths: list[str], classes: tuple[str, ...]) -> None:
    """Raise UserError for a class that has no files in train or none in test."""
    counts = Counter(tuple(path.split("/")[:2]) for path in paths)
    for half in ("train", "test"):
        for name in classes:
            if not counts[half, name]:
                raise UserError(
                    f"data.root: {root / half / name} has no readable picture; "
                    "add some, or remove the class from train/ and test/"
                )


def _read_facts(file: Path) -> dict:
    """What was found when the pictures were decoded; where it is missing or damaged, nothing."""
    try:
        digest, _, text = read_bytes(file).decode("utf-8").partition("\n")
        if digest == _text_digest(text):
            return json.loads(text)
    except (OSError, ValueError):
        pass
    return {"common_size": None, "arrays": {}}


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _open_array(file: Path, shape: tuple[int, ...], facts: dict) -> np.ndarray | None:
    """The array as it was written, mapped; None where it is missing, or changed."""
    *known, digest = facts["arrays"].get(str(shape[-1]), [0, 0, 0, ""])
    try:
        found = _status(file)
        if found != known and (found[:1] != known[:1] or file_hash(file) != digest):
            return None
        # read-only: Linux refuses a copy-on-write map larger than the memory
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _status(file: Path | os.DirEntry) -> list[int]:
    """Bytes, times of the content's and of the last change."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
