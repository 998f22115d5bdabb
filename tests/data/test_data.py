"""Data sets: the split, limits, digits, and CIFAR archives with and without a network."""

import hashlib
import io
import os
import subprocess
import sys
import urllib.error
import urllib.request
from unittest import mock

import numpy as np
import pytest
import torch

from common.config import DataConfig
from common.data import load_splits
from common.data.cifar import archive_place
from common.data.splits import count_classes
from common.utils import paths
from common.utils.errors import NoNetwork, UserError
from helpers.makers import (
    make_cifar_archive,
    make_picture_folder,
    patched_checksums,
    write_sitecustomize,
)

PROJECT = paths.PROJECT


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Caches and archives go below tmp_path, and nothing can be downloaded."""
    monkeypatch.setattr(paths, "PROJECT", tmp_path / "project")
    offline = mock.Mock(side_effect=urllib.error.URLError("no route to host"))
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    return tmp_path / "project"


def folder(root, image_size=16, **options):
    return load_splits(DataConfig(name="folder", root=str(root), **options), image_size)


def refused(*words, root=None, **options):
    """The one-line UserError that names all the words."""
    with pytest.raises(UserError) as caught:
        folder(root, **options) if root else load_splits(DataConfig(**options), 16)
    text = str(caught.value)
    assert "\n" not in text
    assert [word for word in words if word not in text] == [], text


def rows(splits):
    return [set(part.rows.tolist()) for part in (splits.train, splits.val, splits.test)]


# ---- the split ----


def test_digits_sizes_pixels_and_no_mirror():
    splits = load_splits(DataConfig(name="digits"), 64)
    assert [len(splits.train), len(splits.val), len(splits.test)] == [1037, 260, 500]
    assert splits.train.images.shape == (1037, 3, 8, 8) and splits.train.images.dtype == torch.uint8
    assert splits.train.size == (8, 8) and splits.classes == tuple("0123456789")
    assert splits.mirror is False and splits.title == "digits" and splits.skipped == 0
    assert splits.train.source.min() == 0 and splits.train.source.max() == 255
    assert splits.train.source.unique().numel() == 17
    assert load_splits(DataConfig(name="digits", mirror=True, title="Digits"), 64).mirror is True


def test_split_is_disjoint_complete_stratified_and_ordered():
    splits = load_splits(DataConfig(name="digits"), 64)
    train, val, test = rows(splits)
    assert not train & val and not train & test and not val & test
    assert train | val | test == set(range(1797))
    for part in (splits.train, splits.val, splits.test):
        assert (part.rows.diff() > 0).all()
        share = part.labels.bincount() / len(part)
        whole = (
            torch.cat([s.labels for s in (splits.train, splits.val, splits.test)]).bincount() / 1797
        )
        assert (share - whole).abs().max() < 0.01


def test_split_depends_on_split_seed_alone():
    first, again, other = (
        load_splits(DataConfig(name="digits", split_seed=s), 64) for s in (0, 0, 1)
    )
    torch.manual_seed(7)
    np.random.seed(7)
    seeded = load_splits(DataConfig(name="digits"), 64)
    assert rows(first) == rows(again) == rows(seeded)
    assert first.split == again.split == seeded.split != other.split
    assert rows(first)[1] != rows(other)[1]
    assert rows(first)[2] == rows(other)[2], "the test set is fixed"
    assert first.fingerprint == other.fingerprint


def test_val_fraction():
    splits = load_splits(DataConfig(name="digits", val_fraction=0.5), 64)
    assert len(splits.val) == 649 and len(splits.train) == 648


def test_limit_is_stratified_and_leaves_test_alone():
    first, other = (
        load_splits(DataConfig(name="digits", limit=100, split_seed=s), 64) for s in (0, 1)
    )
    assert len(first.train) + len(first.val) == 100 and len(first.test) == 100
    counts = torch.cat([first.train.labels, first.val.labels]).bincount()
    assert counts.min() >= 9 and counts.max() <= 11
    assert first.test.labels.bincount().min() >= 9
    assert torch.equal(first.test.rows, other.test.rows)
    assert not torch.equal(first.train.rows, other.train.rows)
    assert rows(first)[2] <= rows(load_splits(DataConfig(name="digits"), 64))[2]
    assert len(load_splits(DataConfig(name="digits", limit=10**6), 64).test) == 500


def test_limit_takes_every_class_however_rare(tmp_path):
    make_picture_folder(tmp_path / "set", ("common",), 40, 20)
    make_picture_folder(tmp_path / "set", ("rare",), 8, 1)
    splits = folder(tmp_path / "set", limit=10, val_fraction=0.5)
    assert set(splits.test.labels.tolist()) == {0, 1} and len(splits.test) == 10


def test_too_little_to_split(tmp_path):
    refused("data.limit 5", "10 classes", name="digits", limit=5)
    refused("too few", "data.val_fraction 0.2", name="digits", limit=10)
    make_picture_folder(tmp_path / "set", ("cat", "dog"), per_class=1)
    refused("too few", "'cat'", root=tmp_path / "set")


def test_stored_size_of_any_data_set():
    splits = load_splits(DataConfig(name="digits", stored_size=12), 64)
    assert splits.train.images.shape == (1037, 3, 12, 12)
    assert splits.fingerprint == load_splits(DataConfig(name="digits"), 64).fingerprint


# ---- archives ----


def test_classes_are_counted_without_reading_a_picture(tmp_path):
    make_picture_folder(tmp_path / "pets", ["cat", "dog", "eel"], per_class=2)
    (tmp_path / "pets/train/.hidden").mkdir()
    (tmp_path / "pets/val").mkdir()
    known = {"digits": 10, "cifar10": 10, "cifar100": 100, "cifar100_coarse": 20}
    assert {name: count_classes(DataConfig(name=name)) for name in known} == known
    assert count_classes(DataConfig(name="folder", root=str(tmp_path / "pets"))) == 3
    assert count_classes(DataConfig(name="folder", root=str(tmp_path / "none"))) == 10


@pytest.mark.parametrize(
    ("name", "title", "count"), [("cifar10", "CIFAR-10", 10), ("cifar100", "CIFAR-100", 100)]
)
def test_archive_is_extracted_without_network(project, name, title, count):
    table = make_cifar_archive(project / "data", name, per_class=5, test_per_class=2)
    config = DataConfig(name=name)
    assert archive_place(config).is_file()
    with patched_checksums(table, name):
        first = load_splits(config, 64)
        archive_place(config).unlink()
        again = load_splits(config, 64)
    assert first.title == title and len(first.classes) == count and first.mirror is True
    assert [len(first.train), len(first.val), len(first.test)] == [4 * count, count, 2 * count]
    assert rows(first)[2] == set(range(5 * count, 7 * count)), "the official test set, in order"
    assert first.train.images.shape == (4 * count, 3, 32, 32)
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint == hashlib.sha256(first.train.source.numpy().tobytes()).hexdigest()
    assert [p.name for p in (project / "data").iterdir() if p.name[0] == "."] == []


def test_coarse_labels_are_of_the_same_pictures(project):
    table = make_cifar_archive(project / "data", "cifar100", per_class=5, test_per_class=2)
    with patched_checksums(table, "cifar100"):
        fine, coarse = (
            load_splits(DataConfig(name=n), 64) for n in ("cifar100", "cifar100_coarse")
        )
    assert coarse.title == "CIFAR-100, coarse labels" and coarse.fingerprint == fine.fingerprint
    assert coarse.classes == tuple(f"coarse_{i:02}" for i in range(20))
    assert torch.equal(coarse.test.labels, fine.test.labels // 5), "as the archive was made"
    assert torch.equal(coarse.train.labels.bincount(), torch.full((20,), 20)), "stratified"


def test_offline_leaves_nothing_behind(tmp_path):
    config = DataConfig(name="cifar10", root=str(tmp_path / "here"))
    with pytest.raises(NoNetwork) as caught:
        load_splits(config, 64)
    text = str(caught.value)
    assert (
        str(archive_place(config)) in text and "is missing" in text and "no route to host" in text
    )
    assert "\n" not in text and list((tmp_path / "here").iterdir()) == []


def test_broken_download_leaves_nothing_behind(tmp_path, monkeypatch):
    answer = io.BytesIO(b"half an archive")
    answer.headers = {}
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: answer)
    with pytest.raises(NoNetwork, match="not what was published, by its md5"):
        load_splits(DataConfig(name="cifar100", root=str(tmp_path / "here")), 64)
    assert list((tmp_path / "here").iterdir()) == []


def test_corrupted_archive_is_refused(project):
    table = make_cifar_archive(project / "data")
    place = archive_place(DataConfig())
    place.write_bytes(place.read_bytes()[:-100])
    with patched_checksums(table), pytest.raises(NoNetwork, match="is damaged"):
        load_splits(DataConfig(), 64)
    assert list((project / "data").iterdir()) == [place]


def test_damaged_extraction_is_replaced(project):
    table = make_cifar_archive(project / "data")
    with patched_checksums(table):
        first = load_splits(DataConfig(), 64)
        (project / "data/cifar-10-batches-py/data_batch_3").write_bytes(b"damaged")
        assert load_splits(DataConfig(), 64).fingerprint == first.fingerprint


def test_small_archive_in_a_subprocess(tmp_path):
    table = make_cifar_archive(tmp_path / "data")
    write_sitecustomize(tmp_path / "site", table)
    code = (
        "from common.config import DataConfig; from common.data import load_splits;"
        f"print(len(load_splits(DataConfig(root={str(tmp_path / 'data')!r}), 64).train))"
    )
    paths = os.pathsep.join([str(tmp_path / "site"), str(PROJECT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "80"
