"""Checkpoints: written whole or not at all, read without unpickling, refused if they do not fit."""

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.config import UserError


def save(path: Path, content: dict[str, Any], keep: bool = False) -> None:
    """Write tensors and plain data by temporary file, fsync and rename: the old file or the new.

    Its checksum goes into it. With `keep`, the old file stays as `previous(path)`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content | {"sha256": digest(content)}, file)
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            previous(path).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # a file system without links keeps one alone
                os.link(path, previous(path))
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def previous(path: Path) -> Path:
    """Where the checkpoint before this one is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def digest(content: Any) -> str:
    """SHA-256 over the values, types and shapes of tensors and plain data, whatever the file."""
    found = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, Tensor):
            found.update(f"{value.dtype} {tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        elif isinstance(value, dict):
            found.update(f"{len(value)} keys".encode())
            for key, part in value.items():
                take(key)
                take(part)
        elif isinstance(value, list | tuple):
            found.update(f"{len(value)} parts".encode())
            for part in value:
                take(part)
        else:
            found.update(f"{type(value).__name__} {value!r}".encode())

    take(content)
    return found.hexdigest()


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: no such file, not a checkpoint, or one that is not as it was written.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        whole = isinstance(content, dict) and content.pop("sha256", None) == digest(content)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except Exception as error:  # a damaged file fails in a dozen ways
        raise UserError(f"{path}: not a readable checkpoint; {_instead(path)}") from error
    if not whole:
        raise UserError(f"{path}: not as this project wrote it, by its checksum; {_instead(path)}")
    return content


def _instead(path: Path) -> str:
    """What to do about a damaged checkpoint."""
    if previous(path).is_file():
        return f"the one before it is {previous(path)}: move it here, and --resume goes on from it"
    return "train again to replace it"


def load_network(network: nn.Module, content: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into a network of the same build.

    Raises:
        UserError: the checkpoint is another network's.
    """
    try:
        network.load_state_dict(content["network"])
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"{path}: the checkpoint of another network ({reason})") from error
