"""CIFAR-10 and CIFAR-100: found, extracted or downloaded, always checked.

torchvision knows the addresses and checksums. The files are pickles, of which nothing is run.
"""

import codecs
import hashlib
import io
import os
import pickle
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import check_integrity

from common.config import DataConfig
from common.data.pictures import Pictures, all_of, pixel_hash
from common.utils import paths
from common.utils.download import Download, cannot_put, fetch
from common.utils.errors import UserError
from common.utils.paths import expanded

COARSE = "cifar100_coarse"  # CIFAR-100's pictures, by their 20 coarse labels
KINDS = {"cifar10": CIFAR10, "cifar100": CIFAR100, COARSE: CIFAR100}
TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", COARSE: "CIFAR-100, coarse labels"}
LABELS = {  # a batch's key for its labels, and that of their names
    "cifar10": ("labels", "label_names"),
    "cifar100": ("fine_labels", "fine_label_names"),
    COARSE: ("coarse_labels", "coarse_label_names"),
}
ARRAYS = {  # what the pickles of arrays and, from Python 3, of bytes call
    ("numpy", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,
}


def read_archive(name: str, root: Path) -> Pictures:
    """Read one of `KINDS` from root, in archive order, training pictures first.

    What is missing is extracted or downloaded first.

    Raises:
        NoNetwork: the archive is not in root and cannot be downloaded; root is as it was.
        UserError: root cannot be written, or the archive has other contents.
    """
    kind, found = KINDS[name], _read_files(name, root)
    if found is None:
        try:
            _install(name, root)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise UserError(
                f"{root / kind.filename}: not {TITLES[name]}'s archive ({error}); "
                f"fetch it from {kind.url}"
            ) from error
        except OSError as error:
            raise cannot_put(_download(name, root), error) from error
        found = _read_files(name, root)
    *batches, test, meta = found
    labels, names = LABELS[name]
    pixels = np.concatenate([batch["data"] for batch in [*batches, test]]).reshape(-1, 3, 32, 32)
    trained = [label for batch in batches for label in batch[labels]]
    both = np.array(trained + test[labels], dtype=np.int64)
    images = all_of(torch.from_numpy(pixels), both, meta[names])
    train, test = np.split(np.arange(len(both)), [len(trained)])
    return Pictures(images, train, test, pixel_hash(images.source))


def _checksums(name: str) -> dict[str, str]:
    """The published MD5 of each file that is read: training batches, test batch, names."""
    kind = KINDS[name]
    return dict(kind.train_list + kind.test_list) | {kind.meta["filename"]: kind.meta["md5"]}


def _read_files(name: str, root: Path) -> list[dict] | None:
    """The files' contents in order; None where one is missing, or is not the published one."""
    contents = []
    for file, md5 in _checksums(name).items():
        place = root / KINDS[name].base_folder / file
        content = place.read_bytes() if place.is_file() else b""
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
            return None
        contents.append(_Plain(io.BytesIO(content), encoding="latin1").load())
    return contents


class _Plain(pickle.Unpickler):
    """Unpickles plain data and arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        if (module.split(".")[0], name) not in ARRAYS:
            raise UserError(f"an archive of pictures that calls {module}.{name}: nothing was run")
        return ARRAYS[module.split(".")[0], name]


def _install(name: str, root: Path) -> None:
    """Extract the archive, downloaded if need be, next to its place, and move it in when whole."""
    kind, sums, archive = KINDS[name], _checksums(name), root / KINDS[name].filename
    if not check_integrity(archive, kind.tgz_md5):
        fetch([_download(name, root)])
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as work:
        folder = Path(work) / kind.base_folder
        folder.mkdir()
        with tarfile.open(archive) as tar:
            for entry in tar:  # by our names for the files; what else is in it stays there
                file = entry.name.removeprefix(f"{kind.base_folder}/")
                if file != entry.name and file in sums and entry.isfile():
                    (folder / file).write_bytes(tar.extractfile(entry).read())
        for file, md5 in sums.items():
            if not check_integrity(folder / file, md5):
                raise tarfile.TarError(f"{kind.base_folder}/{file} is missing in it, or damaged")
        shutil.rmtree(root / kind.base_folder, ignore_errors=True)  # damaged, or we were not here
        os.replace(folder, root / kind.base_folder)


def _download(name: str, root: Path) -> Download:
    kind = KINDS[name]
    place, digest = root / kind.filename, f"md5:{kind.tgz_md5}"
    return Download(TITLES[name], kind.url, place, digest, elsewhere="--data.root")


def missing(config: DataConfig) -> list[Download]:
    """What must be downloaded for a data set; whether what is here is whole shows in reading."""
    place, root = archive_place(config), archive_root(config)
    if place is None or place.exists():
        return []
    files = [root / KINDS[config.name].base_folder / file for file in _checksums(config.name)]
    return [] if all(file.is_file() for file in files) else [_download(config.name, root)]


def archive_place(config: DataConfig) -> Path | None:
    """Where a data set's archive lies or goes; None for data that come without one."""
    kind = KINDS.get(config.name)
    return archive_root(config) / kind.filename if kind else None


def archive_root(config: DataConfig) -> Path:
    """The folder of a data set's archive."""
    return expanded(config.root) if config.root else paths.PROJECT / "data"
