"""Bad data: one line on stderr that says what, where and what to do."""

import pytest

from makers import make_picture_folder
from refusals import TINY, on


@pytest.fixture
def pictures(tmp_path):
    return make_picture_folder(tmp_path / "pets")


def test_missing_root(refused, tmp_path):
    refused(1, [*TINY, "--data.name=folder"], "data.root is missing", "--data.root")
    refused(1, on(tmp_path / "nowhere"), tmp_path / "nowhere", "train/<class>/")


def test_class_folders_that_differ(refused, pictures):
    (pictures / "train/emu").mkdir()
    refused(1, on(pictures), pictures / "train/emu", "no counterpart in test/", "in both")


def test_empty_class(refused, pictures):
    for half in ("train", "test"):
        (pictures / half / "emu").mkdir()
    refused(1, on(pictures), pictures / "train/emu", "no readable picture", "add some")


def test_one_class_only(refused, tmp_path):
    root = make_picture_folder(tmp_path / "one", ("cat",))
    refused(1, on(root), root / "train", "two at least", "cat")


def test_unreadable_picture(refused, pictures):
    (pictures / "train/cat/003.png").write_bytes(b"no picture")
    refused(1, on(pictures), pictures / "train/cat/003.png", "skip_unreadable")


def test_too_few_pictures(refused):
    refused(1, [*TINY, "--data.limit=10"], "10 training pictures", "data.val_fraction")
