"""Checkpoints: written whole or not at all, read without unpickling, refused if they do not fit."""

import errno
import hashlib
import io
import textwrap
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.config import NetworkConfig
from common.models import StagedNetwork, starting_state
from common.models.weights import not_finite
from common.utils.errors import UserError
from common.utils.files import LARGEST, drafted, read_bytes

MOST = 1_000_000  # tensors, keys and values of a checkpoint
PACKED = b"rungs-1\n"  # how a packed one begins
RATIO, SPARE = 32, 2**20  # a packed one holds at most RATIO times its bytes, and SPARE more


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


def pack(path: Path) -> None:
    """Make a checkpoint's file smaller: every second byte, then the others, deflated.

    Of 16-bit numbers, most of it, the upper bytes are much alike. By their frequencies alone: to
    look for what repeats, too, takes three times as long and saves less. The content is the same.

    Raises:
        OSError: no such file, or no room for the smaller one; the old one is whole then.
    """
    content = path.read_bytes()
    if content.startswith(PACKED):
        return
    plain = np.frombuffer(content, np.uint8)
    deflate = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    planes = deflate.compress(np.concatenate([plain[1::2], plain[::2]]))
    with drafted(path) as draft:  # an eighth of it at least: within what `load` takes
        draft.write_bytes(PACKED + planes + deflate.flush())


def _most(packed: bytes) -> int:
    """How many bytes a packed checkpoint may unpack to: a few of a stranger's could fill memory."""
    return min(RATIO * len(packed) + SPARE, LARGEST)


def _unpacked(content: bytes) -> io.BytesIO:
    """A checkpoint's bytes, whether or not they were packed.

    Raises:
        ValueError: they would be more than `_most`, or are cut off.
    """
    if not content.startswith(PACKED):
        return io.BytesIO(content)
    inflater, most = zlib.decompressobj(), _most(content)
    planes = inflater.decompress(memoryview(content)[len(PACKED) :], most + 1)
    if len(planes) > most or not inflater.eof:
        raise ValueError("longer than any checkpoint of its size, or cut off")
    upper, lower = np.split(np.frombuffer(planes, np.uint8), [len(planes) // 2])
    whole = io.BytesIO(bytes(len(planes)))
    plain = np.frombuffer(whole.getbuffer(), np.uint8)
    plain[1::2], plain[::2] = upper, lower
    return whole


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
        written = read_bytes(path, LARGEST)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such checkpoint") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise Damaged(f"{path}: {error.strerror}; {_instead(path)}") from error
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        with warnings.catch_warnings(action="ignore"):  # of a damaged file, which is refused
            content = torch.load(_unpacked(written), map_location="cpu", weights_only=True)
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


def without_start(network: StagedNetwork, start: set[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """A network's tensors less those named in `start`, which the starting weights hold; the trained
    weights of products in the run's arithmetic, which is how it computes with them.
    """
    state = {k: value for k, value in network.state_dict().items() if k not in start}
    trained = network.state_keys(network.trainable)
    for name, module in network.named_modules():
        key = f"{name}.weight"
        if isinstance(module, nn.Conv2d | nn.Linear) and key in state and key in trained:
            state[key] = state[key].to(dtype)
    return state


def as_in_weights(network: StagedNetwork, config: NetworkConfig) -> set[str]:
    """Names of a network's frozen tensors that are as in its starting weights."""
    if network.weights.sha256 is None:
        return set()
    start, _ = starting_state(config)
    frozen = [f"stages.{name}." for name in network.stages if name not in network.trainable]
    own = {k: v for k, v in network.state_dict().items() if k.startswith(tuple(frozen))}
    return {key for key, v in own.items() if key in start and torch.equal(v.cpu(), start[key])}


def completed(content: dict[str, Any], config: NetworkConfig, path: Path) -> dict[str, Any]:
    """A best.pt's content with all of its network, float32: what training left as it was comes from
    the starting weights that the config names.

    Raises:
        UserError: these are not there, or others.
    """
    left, network = content.get("as_in_weights", []), content["network"]
    start = {}
    if left:
        needs = f"{path}: holds what training changed, and needs the weights that it started from"
        try:
            start, sha256 = starting_state(config)
        except UserError as error:
            raise UserError(f"{needs}: {error}") from error
        if sha256 != content.get("weights") or not set(left) <= start.keys():
            raise UserError(f"{needs}, SHA-256 {str(content.get('weights'))[:12]}..., not these")
    whole = {key: start[key] for key in left} | network
    whole = {k: v.float() if v.is_floating_point() else v for k, v in sorted(whole.items())}
    return content | {"network": whole}


def read_checkpoint(place: Path) -> dict[str, Any]:
    """A run's best.pt with the facts that runs put into it; see `completed` for what it leaves out.

    Raises:
        UserError: there is none, or it is damaged or lacks a fact.
    """
    content = load(place)
    for fact, kind in FACTS.items():
        if not isinstance(content.get(fact), kind):
            raise UserError(f"{place}: not a checkpoint of a run: '{fact}' is missing or no fact")
    state, left = content["network"].items(), content.setdefault("as_in_weights", [])
    tensors = all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state)
    if not tensors or not isinstance(left, list) or not all(isinstance(k, str) for k in left):
        raise UserError(f"{place}: not a checkpoint of a run: its network is more than tensors")
    return content


FACTS = {"network": dict, "fingerprint": str, "split": str, "settings": dict, "epoch": int}
FACTS |= {"adapted": int}
