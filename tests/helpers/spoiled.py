"""Files spoiled for the tests of bad input: pictures, archives, weights, checkpoints, reports."""

import functools
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

from common.models.weights import BUNDLED
from common.training import checkpoint
from helpers.makers import make_cifar_archive, make_picture_folder

CIFAR = "archives/cifar-10-python.tar.gz"
BATCHES = "cifar-10-batches-py"


def text(file):
    """Words, where something else belongs."""
    file.write_text("no such thing as it should be", encoding="utf-8")


def empty(file):
    file.write_bytes(b"")


def cut(file):
    """The first half of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flip(file):
    """A byte in the middle is another one."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


def folder(file):
    """A folder of the file's name."""
    file.unlink(missing_ok=True)
    file.mkdir()


def fifo(file):
    """A pipe of the file's name, which nobody writes to."""
    file.unlink(missing_ok=True)
    os.mkfifo(file)


# ---- pictures ----


def floats(here):
    """Prepares a.png, which is a TIFF of floating-point numbers."""
    Image.new("F", (8, 8), 0.5).save(here / "a.png", "TIFF")


def odd_place(here):
    """Prepares pets, which is a link to a folder that has no name in UTF-8."""
    make_picture_folder(here / "caf\udce9")
    (here / "pets").symlink_to("caf\udce9")


def odd_class(root):
    """A class whose folder has no name in UTF-8."""
    for half in ("train", "test"):
        (root / half / "dog").rename(root / half / "d\udce9g")


def other_files(root):
    """A class whose test pictures are called texts."""
    for file in (root / "test/dog").iterdir():
        file.rename(file.with_suffix(".txt"))


def all_copies(root):
    """A class whose training pictures are test pictures, too."""
    shutil.copytree(root / "train/dog", root / "test/dog/more")


def announced(width, height):
    """A PNG that announces so many pixels and holds none."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def pets(change=lambda root: None, **options):
    """Prepares a folder of pictures, `pets`, that is changed by a function of it."""
    return lambda here: change(make_picture_folder(here / "pets", **options))


def picture(spoil):
    """Prepares the same with one picture spoiled."""
    return pets(lambda root: spoil(root / "train/cat/003.png"))


# ---- CIFAR archives ----


def archive(spoil):
    """Prepares a small CIFAR-10 archive that is spoiled after its checksum was taken."""

    def prepare(here):
        table = make_cifar_archive(here / "archives", per_class=5, test_per_class=2)
        spoil(here / CIFAR)
        return table

    return prepare


def contents(change):
    """Prepares one with its contents changed, {name: bytes}, and the checksum of these."""

    def prepare(here):
        table, file = make_cifar_archive(here / "archives", per_class=5), here / CIFAR
        with tarfile.open(file) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}
        with tarfile.open(file, "w:gz") as tar:
            for name, content in change(members).items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return table | {"tgz_md5": hashlib.md5(file.read_bytes()).hexdigest()}

    return prepare


# ---- weights ----


@functools.cache
def bundled():
    return torch.load(BUNDLED, weights_only=True)


def weights(content, name="mine.pth"):
    """Prepares a file of weights: bytes, a function of the file, or what torch saves."""

    def prepare(here):
        made = content() if callable(content) else content
        if isinstance(made, bytes):
            (here / name).write_bytes(made)
        else:
            torch.save(made, here / name)

    return prepare


def holding(value, dtype=None):
    """The bundled weights with a number that is none."""
    return lambda: bundled() | {"bn1.running_mean": torch.full((64,), value, dtype=dtype)}


def architecture(name):
    """Another network's weights: its names and shapes, without its millions of numbers."""
    with torch.device("meta"):
        state = torchvision.models.get_model(name).state_dict()
    return {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def evil(here):
    """Prepares two pickles, one of them torch's, that leave here/mark if they are opened."""
    (here / "mine.pth").write_bytes(pickle.dumps(Evil(here / "mark")))
    torch.save({"conv1.weight": Evil(here / "mark")}, here / "torch.pth")


# ---- checkpoints and reports, below the folder of runs ----


def run(file, spoil):
    """Prepares the project with a file of its runs spoiled."""
    return lambda here: spoil(here.parent / "project/runs/digits-none" / file)


def report(file, spoil):
    """Prepares the project with a file of level 1's report spoiled."""
    return run(f"reports/level1_baseline-small/{file}", spoil)


def saved(change):
    """Spoils a checkpoint whose checksum fits what it holds: `change` gives what is new in it."""

    def spoil(file):
        content = checkpoint.load(file)
        checkpoint.save(file, content | change(content))

    return spoil


def tensors(change):
    """The same with the network's tensors {name: tensor} changed."""
    return saved(lambda content: {"network": change(content["network"])})


def nested(file):
    """Lists of the same lists: nine in each, nine deep."""
    part = [0]
    for _ in range(9):
        part = [part] * 9
    torch.save({"network": {}, "part": part, "sha256": ""}, file)


def epochs(**changed):
    """Spoils history.json's first epoch."""

    def spoil(file):
        first, *rest = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps([first | changed, *rest]), encoding="utf-8")

    return spoil


def figures(change):
    """Spoils a JSON file: `change` gives what is new in it, or takes something out."""

    def spoil(file):
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(content | (change(content) or {})), encoding="utf-8")

    return spoil


def arrays(**changed):
    """Spoils predictions.npz: arrays that are others, or None for those that are left out."""

    def spoil(file):
        with np.load(file) as found:
            content = dict(found) | changed
        np.savez(file, **{name: array for name, array in content.items() if array is not None})

    return spoil
