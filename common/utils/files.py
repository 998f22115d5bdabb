"""Files: written whole or not at all, hashed; JSON and NumPy's .npz, read as a stranger's."""

import contextlib
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.utils.errors import UserError, line

LARGEST = 2**33  # bytes, unpacked: more is no file of ours
DEEPEST = 20  # lists and mappings in each other: what writes them again recurses


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name.

    Each is read to its end, where zip's checksum is compared; `np.load` reads as far as the array's
    header says, and a changed header may stop it before.

    Raises:
        UserError: no such file, or one that is not as it was written, too large, or holds objects.
    """
    try:
        if file.exists() and not file.is_file():
            raise ValueError("it is no file")
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise ValueError("it unpacks to more than a report holds")
            return {name.removesuffix(".npy"): _array(archive, name) for name in archive.namelist()}
    except Exception as error:  # a damaged file fails in a dozen ways
        raise UserError(f"{file.parent.name}/{file.name}: unreadable ({line(error)})") from error


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
        if file.exists() and not file.is_file():
            raise UserError(f"{name}: cannot be read (it is no file)")
        content = json.loads(file.read_text(encoding="utf-8"), parse_int=_integer)
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
    return int(text) if len(text) < 19 else float(text)


def _depth(content: Any) -> int:
    """How deep lists and mappings nest."""
    inside = content.values() if isinstance(content, dict) else content
    return 1 + max(map(_depth, inside), default=0) if isinstance(content, dict | list) else 0


@contextlib.contextmanager
def drafted(file: Path) -> Iterator[Path]:
    """Where to write a file's new content, which takes its place when the block has ended well."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield draft
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(file: Path, text: str) -> None:
    """Write a text as UTF-8: the old file or the new."""
    content = text.encode("utf-8")
    with drafted(file) as draft:
        draft.write_bytes(content)


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
