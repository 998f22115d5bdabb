"""Small data sets for the tests: archives in CIFAR's own format, and folders of pictures."""

import contextlib
import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

CIFAR10_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]

SITECUSTOMIZE = '''\
"""Give torchvision a small archive's checksums when, and only when, it is imported."""

import sys
from importlib.machinery import PathFinder

CLASS, TABLE = {class_name!r}, {table!r}


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "torchvision.datasets.cifar":
            return None
        spec = PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            for key, value in TABLE.items():
                setattr(getattr(module, CLASS), key, value)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder)
'''


def make_pixels(labels: np.ndarray, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise around a colour of its own for each label: uint8 (N, 3, height, width)."""
    colours = np.random.default_rng(1).integers(40, 216, (labels.max() + 1, 3, 1, 1))
    noise = np.random.default_rng(seed).normal(0, 25, (len(labels), 3, height, width))
    return (colours[labels] + noise).clip(0, 255).astype(np.uint8)


def make_cifar_archive(
    root: Path, name: str = "cifar10", per_class: int = 10, test_per_class: int = 4
) -> dict:
    """Write a small cifar10 or cifar100 archive, under its own name, in its own format.

    Returns:
        torchvision's class attributes with the new checksums: tgz_md5, train_list, test_list, meta.
    """
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    if name == "cifar10":
        folder, meta_file, count = "cifar-10-batches-py", "batches.meta", 10
        meta = {"label_names": CIFAR10_CLASSES, "num_cases_per_batch": 10000, "num_vis": 3072}
        meta_key, train_files, test_file = (
            "label_names",
            [f"data_batch_{i}" for i in range(1, 6)],
            "test_batch",
        )
    else:
        folder, meta_file, count = "cifar-100-python", "meta", 100
        fine, coarse = (
            [f"{kind}_{i:02}" for i in range(n)] for kind, n in (("fine", 100), ("coarse", 20))
        )
        meta = {"fine_label_names": fine, "coarse_label_names": coarse}
        meta_key, train_files, test_file = "fine_label_names", ["train"], "test"

    def batch(labels: np.ndarray, title: str, seed: int) -> dict:
        pixels = make_pixels(labels, 32, 32, seed).reshape(len(labels), -1)
        content = {"batch_label": title, "data": pixels}
        content["filenames"] = [f"{title}_{i}.png" for i in range(len(labels))]
        if name == "cifar10":
            return content | {"labels": labels.tolist()}
        return content | {"fine_labels": labels.tolist(), "coarse_labels": (labels // 5).tolist()}

    members, sums = {meta_file: pickle.dumps(meta, protocol=2)}, {}
    train_labels = np.array_split(
        rng.permutation(np.repeat(np.arange(count), per_class)), len(train_files)
    )
    test_labels = rng.permutation(np.repeat(np.arange(count), test_per_class))
    for seed, (file, labels) in enumerate(
        zip([*train_files, test_file], [*train_labels, test_labels], strict=True)
    ):
        members[file] = pickle.dumps(batch(labels, file, seed), protocol=2)
    archive = (
        root / {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}[name]
    )
    with tarfile.open(archive, "w:gz") as tar:
        for file, content in members.items():
            entry = tarfile.TarInfo(f"{folder}/{file}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            sums[file] = hashlib.md5(content).hexdigest()
    return {
        "tgz_md5": hashlib.md5(archive.read_bytes()).hexdigest(),
        "train_list": [[file, sums[file]] for file in train_files],
        "test_list": [[test_file, sums[test_file]]],
        "meta": {"filename": meta_file, "key": meta_key, "md5": sums[meta_file]},
    }


def _class_name(name: str) -> str:
    return {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name]


@contextlib.contextmanager
def patched_checksums(table: dict, name: str = "cifar10") -> Iterator[None]:
    """In this process: torchvision takes a small archive's checksums for CIFAR's."""
    import torchvision

    with mock.patch.multiple(getattr(torchvision.datasets, _class_name(name)), **table):
        yield


def write_sitecustomize(folder: Path, table: dict, name: str = "cifar10") -> None:
    """The same in a subprocess: for a folder that is put on its PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    text = SITECUSTOMIZE.format(class_name=_class_name(name), table=table)
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")


def make_picture_folder(
    root: Path,
    classes: Sequence[str] = ("cat", "dog"),
    per_class: int = 10,
    test_per_class: int = 4,
    size: tuple[int, int] = (8, 8),
    ending: str = ".png",
) -> Path:
    """Write root/train/<class>/000.png and root/test/<class>/000.png; size is (height, width)."""
    for seed, (half, count) in enumerate((("train", per_class), ("test", test_per_class))):
        labels = np.repeat(np.arange(len(classes)), count)
        for i, pixels in enumerate(make_pixels(labels, *size, seed)):
            file = root / half / classes[labels[i]] / f"{i % count:03}{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.transpose(1, 2, 0)).save(file)
    return root


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
