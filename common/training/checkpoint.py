"""Checkpoints: written whole or not at all, read without unpickling, refused if they do not fit."""

import errno
import hashlib
import io
import textwrap
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.models.weights import not_finite
from common.utils.errors import UserError
from common.utils.files import LARGEST, drafted, read_bytes

MOST = 1_000_000  # tensors, keys and values of a checkpoint


class Damaged(UserError):
    """A checkpoint that is not as it was written."""


def save(path: Path, content: dict[str, Any], keep: bool = False) -> None:
    """Write tensors and plain data: the old file or the new.

    Its checksum goes into it. With `keep`, the old file stays as `previous(path)`.

    Raises:
        UserError: the disk is full, or gone, or the folder is.
    """
    # in memory first: torch's writer loses a signal, or the reason, where a file's write fails
    whole = io.BytesIO()
    torch.save(content | {"sha256": digest(content)}, whole)
    try:
        with drafted(path, previous(path) if keep else None) as draft:
            draft.write_bytes(whole.getbuffer())
    except OSError as error:
        if not path.parent.is_dir():
            raise UserError(
                f"{path.parent}: this folder is gone, and with it what the run had saved; put it "
                "back, and the same command with --resume goes on, or start the run again"
            ) from error
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); what was there is whole: make room, "
            "and the same command with --resume goes on"
        ) from error


def previous(path: Path) -> Path:
    """Where the checkpoint before this one is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def digest(content: Any) -> str:
    """SHA-256 over the values, types and shapes of tensors and plain data, whatever the file.

    Raises:
        ValueError: more than a million of them.
    """
    found, parts = hashlib.sha256(), 0

    def take(value: Any) -> None:
        nonlocal parts
        parts += 1
        if parts > MOST:  # few bytes can hold lists of the same lists of the same lists
            raise ValueError(f"more than {MOST:,} parts")
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
        Damaged: not a checkpoint, or one that is not as it was written.
        UserError: no such file, or a disk that does not give it.
    """
    try:
        written = io.BytesIO(read_bytes(path, LARGEST))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise Damaged(f"{path}: {error.strerror}; {_instead(path)}") from error
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        with warnings.catch_warnings(action="ignore"):  # of a damaged file, which is refused
            content = torch.load(written, map_location="cpu", weights_only=True)
        whole = isinstance(content, dict) and content.pop("sha256", None) == digest(content)
    except Exception as error:  # a damaged file fails in a dozen ways
        raise Damaged(f"{path}: not a readable checkpoint; {_instead(path)}") from error
    if not whole:
        raise Damaged(f"{path}: not as this project wrote it, by its checksum; {_instead(path)}")
    return content


def _instead(path: Path) -> str:
    """What to do about a damaged checkpoint."""
    if previous(path).is_file():
        return f"the one before it is {previous(path)}: move it here, and --resume goes on from it"
    return "train again to replace it"


def load_network(network: nn.Module, content: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's weights into a network of the same build.

    Raises:
        UserError: the checkpoint is another network's, or holds no numbers to compute with.
    """
    if key := not_finite(content["network"]):
        raise UserError(f"{path}: '{key}' holds NaN or infinity; {_instead(path)}")
    try:
        network.load_state_dict(content["network"])
    except RuntimeError as error:
        reason = textwrap.shorten(str(error).split("\n", 1)[-1], 200)
        raise UserError(f"{path}: the checkpoint of another network ({reason})") from error


def load_stages(network: nn.Module, content: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's stages into a network, whose head stays as it is.

    Raises:
        UserError: as `load_network`.
    """
    own, saved = network.state_dict(), content["network"]
    head = {key: value for key, value in own.items() if key.startswith("head.")}
    stages = {key: value for key, value in saved.items() if not key.startswith("head.")}
    load_network(network, content | {"network": stages | head}, path)


def read_checkpoint(place: Path) -> dict[str, Any]:
    """A run's best.pt with the facts that runs put into it.

    Raises:
        UserError: there is none, or it is damaged or lacks a fact.
    """
    content = load(place)
    for fact, kind in FACTS.items():
        if not isinstance(content.get(fact), kind):
            raise UserError(f"{place}: not a checkpoint of a run: '{fact}' is missing or no fact")
    state = content["network"].items()
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state):
        raise UserError(f"{place}: not a checkpoint of a run: its network is more than tensors")
    return content


FACTS = {"network": dict, "fingerprint": str, "split": str, "settings": dict, "epoch": int}
FACTS |= {"adapted": int}
