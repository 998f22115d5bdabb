"""Checkpoints: written whole or not at all, read without unpickling, refused if they do not fit."""

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.config import UserError


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain data by temporary file, fsync and rename: the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: no such file, or not a checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except Exception as error:  # a damaged file fails in a dozen ways
        raise UserError(f"{path}: not a readable checkpoint; train again to replace it") from error
    if not isinstance(content, dict) or "network" not in content:
        raise UserError(f"{path}: not a checkpoint of this project")
    return content


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
