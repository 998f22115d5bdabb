"""Files: the one place where they are written, whole or not at all; JSON and NumPy's .npz, read as
a stranger's.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from common.utils.errors import UserError, line

LARGEST = 2**33  # bytes, of a checkpoint and of arrays unpacked: more is no file of ours
LONGEST = 2**26  # bytes, of a text or a picture
DEEPEST = 20  # lists and mappings in each other: what writes them again recurses


def check_size(file: Path, most: int) -> None:
    """Before a file is read and takes memory.

    Raises:
        OSError: among others, it has more bytes than `most`, or is no file.
    """
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(file))
    if (size := file.stat().st_size) > most:
        words = f"{size / 2**20:,.0f} MiB, and none of ours has over {most / 2**20:,.0f}"
        raise OSError(errno.EFBIG, words, str(file))


def read_bytes(file: Path, most: int = LONGEST) -> bytes:
    """A file's bytes, which are no more than `most`; raises OSError as `check_size`."""
    check_size(file, most)
    return file.read_bytes()


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name.

    Each is read to its end, where zip's checksum is compared; `np.load` reads as far as the array's
    header says, and a changed header may stop it before.

    Raises:
        UserError: no such file, or one that is not as it was written, too large, or holds objects.
    """
    try:
        check_size(file, LARGEST)
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise ValueError("it unpacks to more than a report holds")
            return {name.removesuffix(".npy"): _array(archive, name) for name in archive.namelist()}
    except Exception as error:  # a damaged file fails in a dozen ways
        reason = getattr(error, "strerror", None) or line(error)
        raise UserError(f"{file.parent.name}/{file.name}: unreadable ({reason})") from error


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    content = io.BytesIO(archive.read(name))
    array = np.lib.format.read_array(content, allow_pickle=False)
    if content.read(1):
        raise ValueError(f"{name} is longer than its header says")
    return array


def read_json(file: Path) -> Any:
    """A JSON file's content, which can be written again as UTF-8.

    Raises:
        UserError: no such file, or one that is damaged, or that nests deeper than any of ours.
    """
    name = f"{file.parent.name}/{file.name}"
    try:
        content = json.loads(read_bytes(file).decode("utf-8"), parse_int=_integer)
        json.dumps(content, ensure_ascii=False).encode("utf-8")
        if _depth(content) > DEEPEST:
            raise UserError(f"{name}: nests more than {DEEPEST} deep")
        return content
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: not JSON ({line(error)})") from error


def _integer(text: str) -> int | float:
    """An int64; what is longer is no count of ours, and as a float it stays comparable."""
    return int(text) if len(text) < 19 or -(2**63) <= int(text) < 2**63 else float(text)


def _depth(content: Any) -> int:
    """How deep lists and mappings nest."""
    inside = content.values() if isinstance(content, dict) else content
    return 1 + max(map(_depth, inside), default=0) if isinstance(content, dict | list) else 0


@contextlib.contextmanager
def drafted(file: Path, keep: Path | None = None) -> Iterator[Path]:
    """Where to write a file's new content, which takes its place when the block has ended well.

    Whatever stops this process, or the machine, leaves the old file or the new. The old one stays
    as `keep`, where that is given and the file system has links.
    """
    draft = _draft(file)
    try:
        yield draft
        _to_disk(draft)
        if keep and file.exists():
            keep.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                os.link(file, keep)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def drafted_folder(folder: Path) -> Iterator[Path]:
    """Where to fill a new folder, which takes its place when the block has ended well."""
    draft = _draft(folder)
    draft.mkdir()
    try:
        yield draft
        for file in draft.rglob("*"):
            if file.is_file():
                _to_disk(file)
        os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_whole(file: Path, content: str | bytes) -> None:
    """Write bytes, or a text as UTF-8: the old file or the new."""
    write_together({file: content})


def write_together(files: dict[Path, str | bytes], instead_of: Iterable[Path] = ()) -> None:
    """Write files that belong together: none takes its place before there is room for all.

    Args:
        files: their contents; they take their places in this order.
        instead_of: files that are removed before the first does.
    """
    contents = {f: c.encode("utf-8") if isinstance(c, str) else c for f, c in files.items()}
    drafts = {file: _draft(file) for file in files}
    try:
        for file, draft in drafts.items():
            draft.write_bytes(contents[file])
            _to_disk(draft)
        for file in instead_of:
            file.unlink(missing_ok=True)
        for file, draft in drafts.items():
            os.replace(draft, file)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def clear_drafts(folder: Path) -> None:
    """Remove what processes that were stopped had begun to write."""
    for draft in folder.glob(".*.part"):
        pid = draft.name.split(".")[-2]
        if not pid.isdecimal() or psutil.pid_exists(int(pid)):
            continue
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)


def _draft(file: Path) -> Path:
    """By its process, so that many may write one page."""
    return file.with_name(f".{file.name}.{os.getpid()}.part")


def _to_disk(draft: Path) -> None:
    """Before a file takes another's place; else a crash of the machine may leave it empty."""
    with open(draft, "r+b") as file:
        os.fsync(file.fileno())


def npz(**arrays: np.ndarray) -> bytes:
    """Arrays as the content of a compressed .npz file."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def check_writable(folder: Path, hint: str) -> None:
    """Make a folder, and fail before hours of training if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot write here ({error.strerror}); {hint}") from error


def check_file(option: str, file: Path) -> None:
    """Raise UserError where a file that an option names cannot be written, before the work."""
    if file.is_dir() or not file.parent.is_dir() or not os.access(file.parent, os.W_OK):
        reason = "it is a folder" if file.is_dir() else f"{file.parent} is no folder to write to"
        raise UserError(f"{option}: cannot write {file} ({reason})")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
