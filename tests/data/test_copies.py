"""Pictures that occur twice: found and named, and left out of train where one says so."""

import contextlib
import dataclasses
import hashlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.audit import runner
from common.audit.context import Finding
from common.audit.data import classes_shared, splits_disjoint
from common.config import DataConfig, LevelConfig
from common.data import load_splits, splits
from common.data.duplicates import Copy, exact_copies, listed
from common.grade.checks import check_duplicates
from common.utils import paths
from common.utils.errors import UserError
from helpers.makers import make_cifar_archive, make_picture_folder, patched_checksums
from helpers.networks import CPU

OPTION = "--data.drop_copies true"


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Caches go below tmp_path."""
    monkeypatch.setattr(paths, "PROJECT", tmp_path / "project")


def rows(data):
    return [part.rows.tolist() for part in (data.train, data.val, data.test)]


def folder(root, **options):
    return load_splits(DataConfig(name="folder", root=str(root), **options), 16)


@pytest.fixture
def pets(tmp_path):
    """Two test pictures and a val picture are train's, too; returns root, {copy: train's file}."""
    root = make_picture_folder(tmp_path / "pets", per_class=20, test_per_class=6)
    data = folder(root)
    train, val, test = (list(part.names) for part in (data.train, data.val, data.test))
    copies = {val[0]: train[1], test[2]: train[5], test[9]: train[-1]}
    for place, name in copies.items():
        shutil.copy(root / name, root / place)
    return root, copies


# ---- finding and naming ----


def test_copies_are_found_with_both_their_files(pets):
    root, copies = pets
    data = folder(root)
    for part in (data.val, data.test):
        found = exact_copies(part, [data.train])
        assert {copy.name: copy.of for copy in found} == {
            name: of for name, of in copies.items() if name in part.names
        }
        assert [part.names[copy.position] for copy in found] == [copy.name for copy in found]
    assert exact_copies(data.test, [data.val]) == exact_copies(data.test, []) == []


def test_ten_are_listed_and_the_others_counted():
    copies = [Copy(i, f"test/{i}.png", f"train/{i}.png") for i in range(12)]
    assert listed(copies[:2]) == "test/0.png (train/0.png), test/1.png (train/1.png)"
    assert " more" not in listed(copies[:10]) and "test/9.png" in listed(copies[:10])
    assert listed(copies).endswith("test/9.png (train/9.png) and 2 more")
    assert listed([]) == listed([Copy(3, None, None)]) == ""
    odd = listed([Copy(0, "test/a\n\x1b[31m.png", "train/\udce9.png")])
    assert odd.isprintable() and odd.encode("utf-8") and "train/\\udce9.png" in odd


# ---- leaving out ----


def test_copies_are_left_out_of_train_alone(pets):
    root, copies = pets
    whole, less = folder(root), folder(root, drop_copies=True)
    assert sorted(less.dropped.names) == sorted(copies.values()) and len(whole.dropped) == 0
    assert set(whole.train.names) - set(less.train.names) == set(copies.values())
    assert len(less.train) == len(whole.train) - 3
    assert rows(less)[1:] == rows(whole)[1:], "val and test stay as they are"
    kept = torch.tensor([name not in copies.values() for name in whole.train.names])
    assert torch.equal(less.train.images, whole.train.images[kept])
    assert torch.equal(less.train.labels, whole.train.labels[kept])
    assert less.fingerprint == whole.fingerprint, "the same pictures"
    assert less.split != whole.split, "and another split of them"
    parts = np.array(rows(less)[1] + rows(less)[0])
    assert less.split == hashlib.sha256(parts.astype("<i8").tobytes()).hexdigest()
    assert less.split == folder(root, drop_copies=True).split


def test_without_copies_nothing_changes(tmp_path):
    root = make_picture_folder(tmp_path / "pets")
    whole, less = folder(root), folder(root, drop_copies=True)
    assert rows(whole) == rows(less) and whole.split == less.split and len(less.dropped) == 0


def test_copies_of_pictures_that_the_limit_leaves_out_stay(tmp_path):
    root = make_picture_folder(tmp_path / "pets", per_class=20, test_per_class=10)
    some, whole = folder(root, limit=12), folder(root)
    unused = next(name for name in whole.test.names if name not in some.test.names)
    copied = some.train.names[0], some.train.names[1]
    for name, place in zip(copied, (some.test.names[0], unused), strict=True):
        shutil.copy(root / name, root / place)
    assert folder(root, limit=12, drop_copies=True).dropped.names == [copied[0]]
    assert set(folder(root, drop_copies=True).dropped.names) == set(copied) & set(whole.train.names)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "cifar100_coarse", "digits"])
def test_any_data_set(tmp_path, monkeypatch, name):
    kind, read = name.removesuffix("_coarse"), splits._read
    options = {"name": name, "root": str(tmp_path)}

    def with_copies(*arguments):
        """A picture of train is test's, and another one val's."""
        found = read(*arguments)
        source = found.images.source.clone()
        source[copied] = source[torch.stack([whole.test.rows[3], whole.val.rows[5]])]
        return found._replace(images=dataclasses.replace(found.images, source=source))

    table = {} if name == "digits" else make_cifar_archive(tmp_path, kind)
    with patched_checksums(table, kind) if table else contextlib.nullcontext():
        whole = load_splits(DataConfig(**options), 32)
        copied = whole.train.rows[[7, 2]]
        assert load_splits(DataConfig(**options, drop_copies=True), 32).split == whole.split
        monkeypatch.setattr(splits, "_read", with_copies)
        same = load_splits(DataConfig(**options), 32)
        less = load_splits(DataConfig(**options, drop_copies=True), 32)
    assert rows(same) == rows(whole) and same.split == whole.split
    assert set(less.dropped.rows.tolist()) == set(copied.tolist())
    assert set(rows(less)[0]) == set(rows(whole)[0]) - set(copied.tolist())
    assert rows(less)[1:] == rows(whole)[1:] and less.split != whole.split


def test_a_class_that_is_all_copies_is_refused(pets):
    root, _ = pets
    for file in (root / "train/dog").iterdir():
        shutil.copy(file, root / f"test/dog/again-{file.name}")
    assert len(folder(root).train) == 32
    with pytest.raises(
        UserError, match="data.drop_copies: all 16 training pictures of class 'dog'"
    ):
        folder(root, drop_copies=True)


# ---- what is said ----


def found_by(check, data, **options):
    config = LevelConfig(data=DataConfig(name="folder", **options))
    return check(SimpleNamespace(whole=data, config=config))


def test_the_audit_names_copies_and_the_option(pets):
    root, copies = pets
    finding = found_by(splits_disjoint, folder(root))
    assert not finding.passed and finding.told
    assert "0 shared, 15.00% copies" in finding.seen and OPTION in finding.seen
    assert all(f"{name} ({of})" in finding.seen for name, of in copies.items())


def test_the_audit_agrees_with_the_option(pets):
    root, _ = pets
    finding = found_by(splits_disjoint, folder(root, drop_copies=True), drop_copies=True)
    assert finding.passed and not finding.told and finding.seen == "0 shared, 0.00% copies"
    wrong = found_by(splits_disjoint, folder(root), drop_copies=True)
    assert not wrong.passed and "none of train's copied" in wrong.expected
    assert OPTION not in wrong.seen, "it was given"


def test_few_copies_pass_and_are_told(tmp_path):
    root = make_picture_folder(tmp_path / "pets", per_class=10, test_per_class=60)
    assert not found_by(splits_disjoint, folder(root)).told
    place = folder(root).train.names[0]
    shutil.copy(root / place, root / "test/cat/030.png")
    finding = found_by(splits_disjoint, folder(root))
    assert finding.passed and finding.told and f"test/cat/030.png ({place})" in finding.seen
    assert not found_by(splits_disjoint, folder(root, drop_copies=True), drop_copies=True).told
    whole = folder(root)
    assert not found_by(splits_disjoint, whole, drop_copies=True).passed, "none is allowed then"


def test_what_is_told_is_in_the_log_though_it_passed(monkeypatch, caplog):
    caplog.set_level("INFO", "rungs")
    told = [Finding(f"check {n}", True, "none", f"seen {n}", "", None, n == 2) for n in range(4)]
    checks = [lambda context, finding=finding: finding for finding in told]
    monkeypatch.setattr(runner, "CHECKS", checks)
    runner.audit(SimpleNamespace(runtime=CPU))
    lines = caplog.text.splitlines()
    assert len(lines) == 2 and "check 2" in lines[0] and "4 of 4 checks passed" in lines[1]


def test_copies_of_one_class_leave_the_split_stratified(tmp_path):
    root = make_picture_folder(tmp_path / "pets", per_class=40, test_per_class=30)
    for name in folder(root).train.names[:25]:
        shutil.copy(root / name, root / name.replace("train", "test"))
    less = folder(root, drop_copies=True)
    assert less.train.labels.bincount().tolist() == [7, 32]
    assert found_by(classes_shared, less).passed
    less = dataclasses.replace(less, dropped=None)
    assert not found_by(classes_shared, less).passed


def test_the_grader_names_copies_and_the_option(pets):
    root, copies = pets
    result = check_duplicates(SimpleNamespace(data=folder(root)))
    assert not result.passed and "2 exact copies" in result.seen and OPTION in result.seen
    tested = {name: of for name, of in copies.items() if name.startswith("test")}
    assert all(f"{name} ({of})" in result.seen for name, of in tested.items())
    assert check_duplicates(SimpleNamespace(data=folder(root, drop_copies=True))).passed
    val = folder(root).val.names[3]
    shutil.copy(root / val, root / "test/dog/003.png")
    result = check_duplicates(SimpleNamespace(data=folder(root, drop_copies=True)))
    assert not result.passed and f"test/dog/003.png ({val})" in result.seen
    assert OPTION not in result.seen, "val stays as it is"
