"""CIFAR-10 and CIFAR-100 through torchvision: found, extracted or downloaded, always checked."""

import contextlib
import http.client
import io
import os
import pickle
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from common.config import NoNetwork, UserError

COARSE = "cifar100_coarse"  # CIFAR-100's pictures, by their 20 coarse labels
KINDS = {"cifar10": CIFAR10, "cifar100": CIFAR100, COARSE: CIFAR100}
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", COARSE: "CIFAR-100, coarse labels"}
TIMEOUT = 30  # seconds without a byte after which a download has failed


class Archive(NamedTuple):
    """An archive's pictures: the training pictures in archive order, then the test pictures.

    Attributes:
        pixels: uint8 (M, 3, 32, 32)
        labels: int64 (M,)
        trained: number of training pictures
        classes: names by label
    """

    pixels: Tensor
    labels: np.ndarray
    trained: int
    classes: tuple[str, ...]


def read_archive(name: str, root: Path) -> Archive:
    """Read one of `KINDS` from root; what is missing is extracted or downloaded first.

    Raises:
        NoNetwork: the archive is not in root and cannot be downloaded; root is as it was.
        UserError: root cannot be written.
    """
    kind = KINDS[name]
    try:
        train = kind(root, train=True)
    except RuntimeError:  # torchvision's word for missing or damaged files
        try:
            _install(name, root)
        except OSError as error:
            raise UserError(
                f"{root}: cannot put {TITLES[name]} here ({error.strerror}); "
                "make room, or choose another place with --data.root"
            ) from error
        train = kind(root, train=True)
    test = kind(root, train=False)
    pixels = torch.from_numpy(np.concatenate([train.data, test.data])).permute(0, 3, 1, 2)
    labels, classes = train.targets + test.targets, train.classes
    if name == COARSE:
        folder = root / kind.base_folder  # whose files torchvision has just checked
        labels = (
            _pickled(folder / "train")["coarse_labels"] + _pickled(folder / "test")["coarse_labels"]
        )
        classes = _pickled(folder / kind.meta["filename"])["coarse_label_names"]
    labels = np.array(labels, dtype=np.int64)
    return Archive(pixels.contiguous(), labels, len(train.targets), tuple(classes))


def _pickled(file: Path) -> dict:
    return pickle.loads(file.read_bytes(), encoding="latin1")


def _install(name: str, root: Path) -> None:
    """Extract the archive, downloaded if need be, next to its place, and move it in when whole."""
    kind = KINDS[name]
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as work:
        archive = root / kind.filename
        if not check_integrity(archive, kind.tgz_md5):
            archive = _download(name, root, Path(work))
        extract_archive(archive, work)
        os.replace(archive, root / kind.filename)
        shutil.rmtree(root / kind.base_folder, ignore_errors=True)  # damaged, or we were not here
        os.replace(Path(work) / kind.base_folder, root / kind.base_folder)


def _download(name: str, root: Path, work: Path) -> Path:
    kind = KINDS[name]
    place = root / kind.filename
    try:
        with _manners():
            download_url(kind.url, work, kind.filename, kind.tgz_md5)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        state = "is damaged" if place.exists() else "is missing"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NoNetwork(
            f"{TITLES[name]}: {place} {state} and cannot be downloaded from {kind.url} "
            f"({reason}); fetch it from there and put it in its place"
        ) from error
    return work / kind.filename


@contextlib.contextmanager
def _manners() -> Iterator[None]:
    """A download that gives up on a silent server, and shows its bar only on a terminal."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    shown = sys.stderr.isatty()
    try:
        with contextlib.nullcontext() if shown else contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)
