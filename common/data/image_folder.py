"""A folder of pictures, train/<class>/* and test/<class>/*, decoded once and kept as one array.

What is hidden, and what is not called like a picture, is left out and counted by kind.

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
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from common.config import DataConfig
from common.data.decode import SUFFIXES, common_size, decode, workers
from common.data.pictures import Pictures, all_of
from common.utils.errors import UserError
from common.utils.files import clear_drafts, drafted, file_hash, read_bytes, write_whole
from common.utils.paths import expanded, is_text

log = logging.getLogger("rungs")

FORMAT = 3  # of the cache; a new number leaves older caches unused
LAYOUT = "pictures belong in train/<class>/ and test/<class>/"
HIDDEN = {"__macosx", "thumbs.db", "desktop.ini"}  # besides what begins with a dot
PLAIN = re.compile(r"\.[a-z0-9]{1,8}")  # a suffix that is said as it is
KINDS = 6  # of what is left out, that are said one by one
OTHER, OUTSIDE = "other file", "picture in no class folder"
NOUN = re.compile(r"^((hidden |other )?(file|folder|picture))\b")


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
        found = {half: Counter() for half in ("train", "test")}  # what is left out, by folder
        classes = _classes(root, found)
        files = {}
        for half in ("test", "train"):
            for name in classes:
                found[f"{half}/{name}"] = own = Counter()
                files |= _list(root, f"{half}/{name}", own)
    except OSError as error:
        raise UserError(f"data.root: {error.filename} cannot be read ({error.strerror})") from error
    paths = sorted(files)
    _check_classes(root, paths, classes, found)
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
    return _pictures(root, paths, classes, pixels, facts, found)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is a system's own, and none of the user's."""
    return name.startswith(".") or name.lower() in HIDDEN


def in_words(left_out: Mapping[str, int]) -> str:
    """How many of each kind, as "3 hidden files, 2 .txt"; the most first, the rest as "other"."""
    known = sorted((-count, kind) for kind, count in left_out.items() if kind != OTHER)
    counts = {kind: -count for count, kind in known[:KINDS]}
    if rest := sum(left_out.values()) - sum(counts.values()):
        counts[OTHER] = rest
    many = {kind: NOUN.sub(r"\1s", kind) for kind in counts}
    return ", ".join(f"{n} {kind if n == 1 else many[kind]}" for kind, n in counts.items())


def _pictures(
    root: Path,
    paths: list[str],
    classes: tuple[str, ...],
    pixels: np.ndarray,
    facts: dict,
    found: dict[str, Counter],
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
        _check_classes(root, [paths[row] for row in readable], classes, found)
    label = {name: number for number, name in enumerate(classes)}
    labels = np.array([label[name.split("/")[1]] for name in paths], dtype=np.int64)
    tested = np.array([paths[row].startswith("test/") for row in readable])
    with warnings.catch_warnings():  # torch has no read-only tensors: nobody writes to source
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        images = all_of(torch.from_numpy(pixels), labels, classes, paths)
    left_out = sum(found.values(), Counter())
    return Pictures(images, readable[~tested], readable[tested], facts["fingerprint"], left_out)


def _classes(root: Path, left_out: dict[str, Counter]) -> tuple[str, ...]:
    """The class folders' names; what is in train/ and test/ beside them is counted."""
    if not root.is_dir():
        raise UserError(f"data.root: there is no folder {root}; {LAYOUT} below it")
    found = {}
    for half in ("train", "test"):
        if not (root / half).is_dir():
            raise UserError(f"data.root: {root} has no folder {half}/; {LAYOUT} below it")
        with os.scandir(root / half) as entries:
            kinds = {entry.name: _kind(entry) for entry in entries}
        found[half] = {name for name, kind in kinds.items() if kind == "folder"}
        others = [kind for kind in kinds.values() if kind != "folder"]
        left_out[half].update(OUTSIDE if kind == "picture" else kind for kind in others)
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


def _list(root: Path, below: str, left_out: Counter) -> dict[str, list[int]]:
    """Path below root and status of every picture in root/below and its folders, by the files'
    names; what is left out is counted by kind.
    """
    files = {}
    with os.scandir(root / below) as entries:
        for entry in entries:
            path, kind = f"{below}/{entry.name}", _kind(entry)
            if kind == "folder":
                files |= _list(root, path, left_out)
            elif kind != "picture":
                left_out[kind] += 1
            else:  # a dead link is listed, and found unreadable
                files[path] = _status(entry) if entry.is_file() else [0, 0, 0]
    return files


def _kind(entry: os.DirEntry) -> str:
    """ "folder" or "picture", by its name; of anything else, what is said of it when left out."""
    if is_hidden(entry.name):
        return "hidden folder" if entry.is_dir(follow_symlinks=False) else "hidden file"
    if entry.is_dir():
        return "folder"
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix in SUFFIXES and (entry.is_file() or entry.is_symlink()):
        return "picture"
    if not suffix:
        return "file without a suffix"
    return suffix if PLAIN.fullmatch(suffix) and suffix not in SUFFIXES else OTHER


def _check_classes(
    root: Path, paths: list[str], classes: tuple[str, ...], found: dict[str, Counter]
) -> None:
    """Raise UserError for a class that has no files in train or none in test."""
    counts = Counter(tuple(path.split("/")[:2]) for path in paths)
    for half in ("train", "test"):
        for name in classes:
            if not counts[half, name]:
                others = in_words(found[f"{half}/{name}"])
                raise UserError(
                    f"data.root: {root / half / name} has no readable picture"
                    f"{others and f' (left out: {others})'}; "
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
