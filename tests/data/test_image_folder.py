"""A folder of pictures: order, sizes, fingerprint, cache, and every error a user can meet."""

import hashlib
import os
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from common.config import DataConfig
from common.data import decode, image_folder, load_splits
from common.data.image_folder import in_words
from common.data.splits import count_classes
from common.utils import paths
from common.utils.errors import UserError
from helpers.makers import make_picture_folder

REAL = os.environ.get("RUNGS_PICTURES")
RED = (255, 0, 0)


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Caches go below tmp_path."""
    monkeypatch.setattr(paths, "PROJECT", tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def pictures(tmp_path):
    return make_picture_folder(tmp_path / "pets")


def folder(root, image_size=16, **options):
    return load_splits(DataConfig(name="folder", root=root and str(root), **options), image_size)


def refused(root, *words, **options):
    """The one-line UserError that names all the words."""
    with pytest.raises(UserError) as caught:
        folder(root, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert [word for word in words if word not in text] == [], text


def test_folder_pixels_labels_names_in_sorted_order(pictures):
    splits = folder(pictures)
    assert splits.classes == ("cat", "dog") and splits.title == "pets" and splits.mirror is True
    assert [len(splits.train), len(splits.val), len(splits.test)] == [16, 4, 8]
    for part in (splits.train, splits.val, splits.test):
        assert list(part.names) == sorted(part.names)
        for image, label, name in zip(part.images, part.labels, part.names, strict=True):
            expected = np.asarray(Image.open(pictures / name)).transpose(2, 0, 1)
            assert np.array_equal(image.numpy(), expected)
            assert name.split("/")[1] == splits.classes[label]
            assert name.startswith("test/") == (part is splits.test)
    assert splits.train.labels.bincount().tolist() == [8, 8]


def test_folder_is_searched_below(pictures):
    (pictures / "README.md").write_text("x")
    (pictures / "train/cat/more").mkdir()
    (pictures / "train/cat/000.png").rename(pictures / "train/cat/more/000.png")
    splits = folder(pictures)
    assert "train/cat/more/000.png" in [*splits.train.names, *splits.val.names]
    assert len(splits.train) + len(splits.val) == 20
    assert splits.left_out == {}, "below train/ and test/ is where pictures are looked for"


def leave_things(root):
    """What systems and people leave among pictures; returns how it is counted."""
    for name in ("train/cat/.DS_Store", "test/.DS_Store", "train/dog/Thumbs.db"):
        (root / name).write_text("x")
    (root / "test/dog/desktop.ini").write_text("x")
    for place in (".cache", "cat/.thumbnails", "dog/more/__MACOSX", "__MACOSX"):
        (root / "train" / place).mkdir(parents=True)
        (root / "train" / place / "._000.png").write_text("x")
    for name in ("train/cat/notes.txt", "train/dog/more/Notes.TXT", "test/labels.csv"):
        (root / name).write_text("x")
    Image.new("RGB", (8, 8)).save(root / "train/lost.png")
    (root / "train/cat/LICENSE").write_text("x")
    os.mkfifo(root / "test/cat/pipe.png")
    counts = {"hidden file": 4, "hidden folder": 4, ".txt": 2, ".csv": 1, "other file": 1}
    return counts | {"picture in no class folder": 1, "file without a suffix": 1}


def test_what_is_no_picture_by_its_name_is_left_out_and_counted(pictures, monkeypatch):
    plain, counts = folder(pictures), leave_things(pictures)
    no_decoding(monkeypatch)  # the same pictures
    splits = folder(pictures)
    assert (splits.fingerprint, splits.split) == (plain.fingerprint, plain.split)
    assert splits.left_out == counts and splits.skipped == plain.skipped == 0
    assert plain.left_out == {} and splits.classes == ("cat", "dog")
    config = DataConfig(name="folder", root=str(pictures))
    assert count_classes(config) == 2, "as the summary of a network has it"


def test_any_suffix_of_a_picture_is_one(pictures):
    (pictures / "train/cat/000.png").rename(pictures / "train/cat/000.PNG")
    Image.new("RGB", (8, 8)).save(pictures / "train/dog/new.jpeg")
    splits = folder(pictures)
    assert len(splits.train) + len(splits.val) == 21 and splits.left_out == {}
    (pictures / "train/cat/001.JPG").write_text("x")
    refused(pictures, "train/cat/001.JPG", "not a readable picture")


def test_what_is_left_out_is_said_in_one_line():
    assert in_words({}) == ""
    assert in_words({".txt": 2, "hidden file": 3}) == "3 hidden files, 2 .txt"
    one = dict.fromkeys(["hidden folder", "file without a suffix", "other file"], 1)
    assert in_words(one) == "1 file without a suffix, 1 hidden folder, 1 other file"
    two = {"picture in no class folder": 2, "file without a suffix": 3}
    assert in_words(two) == "3 files without a suffix, 2 pictures in no class folder"
    many = {f".{letter}": 9 - place for place, letter in enumerate("abcdefgh")}
    assert in_words(many) == "9 .a, 8 .b, 7 .c, 6 .d, 5 .e, 4 .f, 5 other files"


@pytest.mark.parametrize("name", ["a.\n[31m", "a.\udce9", "a.averylongone", "a.x y"])
def test_a_suffix_that_is_no_word_is_not_said(pictures, name):
    (pictures / "train/cat" / name).write_text("x")
    assert folder(pictures).left_out == {"other file": 1}


def test_stored_size(tmp_path, pictures):
    assert folder(pictures).train.size == (8, 8), "the common size"
    assert folder(pictures, stored_size=5).train.size == (5, 5)
    wide = make_picture_folder(tmp_path / "wide", size=(8, 12))
    assert folder(wide).train.size == (16, 16), "no squares: the network's input size"
    assert folder(wide, image_size=20).train.size == (20, 20)
    Image.new("RGB", (9, 9)).save(pictures / "test/dog/003.png")
    assert folder(pictures).train.size == (16, 16), "mixed sizes"


def test_fingerprint_is_what_anyone_can_recompute(pictures):
    def recomputed():
        digest = hashlib.sha256()
        files = {p.relative_to(pictures).as_posix(): p for p in pictures.rglob("*.png")}
        for name in sorted(files):
            digest.update(name.encode("utf-8") + files[name].read_bytes())
        return digest.hexdigest()

    first = folder(pictures).fingerprint
    assert first == recomputed()
    assert folder(pictures, split_seed=3, stored_size=4).fingerprint == first
    file = pictures / "train/dog/004.png"
    file.write_bytes(file.read_bytes() + b"\0")
    assert folder(pictures).fingerprint == recomputed() != first


def no_decoding(monkeypatch):
    monkeypatch.setattr(image_folder, "decode", mock.Mock(side_effect=AssertionError("decoded")))


def test_cache_is_used_and_follows_the_files(pictures, monkeypatch):
    first = folder(pictures)
    with monkeypatch.context() as patch:
        no_decoding(patch)
        again = folder(pictures, split_seed=0, image_size=99)
    assert torch.equal(first.train.images, again.train.images)
    assert (first.fingerprint, first.split) == (again.fingerprint, again.split)
    Image.new("RGB", (8, 8), RED).save(pictures / "test/cat/000.png")
    changed = folder(pictures)
    assert changed.test.images[0, :, 0, 0].tolist() == list(RED)
    os.utime(pictures / "test/cat/001.png", ns=(1, 1))
    with pytest.raises(AssertionError, match="decoded"):
        no_decoding(monkeypatch)
        folder(pictures)


def test_the_cached_array_is_hashed_where_its_times_are_others_alone(
    pictures, project, monkeypatch
):
    first = folder(pictures).train.images
    (array,) = (project / "data" / "cache").glob("*.npy")
    no_decoding(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "file_hash", mock.Mock(side_effect=AssertionError("hashed")))
        assert torch.equal(folder(pictures).train.images, first), "its size and times are enough"
        os.utime(array)
        with pytest.raises(AssertionError, match="hashed"):
            folder(pictures)
    assert torch.equal(folder(pictures).train.images, first), "touched, but the same bytes"
    content, times = bytearray(array.read_bytes()), array.stat()
    content[-1] ^= 1
    array.write_bytes(content)
    os.utime(array, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(AssertionError, match="decoded"):
        folder(pictures)


def test_the_cache_keeps_an_array_a_size(pictures, monkeypatch):
    sizes = [folder(pictures, stored_size=side).train.images for side in (5, 6)]
    no_decoding(monkeypatch)
    for side, images in zip((5, 6), sizes, strict=True):
        assert torch.equal(folder(pictures, stored_size=side).train.images, images)


@pytest.mark.parametrize("harm", ["no json", "half json", "other json", "half array", "no array"])
def test_damaged_cache_is_rebuilt(pictures, project, harm):
    first = folder(pictures).train.images
    cache = project / "data" / "cache"
    (facts,), (array,) = cache.glob("*.json"), cache.glob("*.npy")
    if harm == "no json":
        facts.unlink()
    elif harm == "half json":
        facts.write_text(facts.read_text()[:20])
    elif harm == "other json":
        facts.write_text("[]")
    elif harm == "half array":
        array.write_bytes(array.read_bytes()[:1000])
    else:
        array.unlink()
    assert torch.equal(folder(pictures).train.images, first)
    assert sorted(file.suffix for file in cache.iterdir()) == [".json", ".npy"]


def test_failed_decoding_leaves_no_cache(pictures, project):
    (pictures / "train/cat/000.png").write_text("x")
    refused(pictures, "train/cat/000.png", "skip_unreadable")
    assert list((project / "data" / "cache").iterdir()) == []


def test_cache_that_cannot_be_written(pictures, project):
    project.mkdir()
    (project / "data").write_text("a file where a folder should be")
    refused(pictures, str(project / "data" / "cache"))


def test_processes_and_threads_decode_alike(pictures, project, monkeypatch):
    monkeypatch.setattr(decode, "CHUNK", 5)
    threads = folder(pictures).train.images
    for file in (project / "data" / "cache").iterdir():
        file.unlink()
    monkeypatch.setattr(decode, "MANY", 1)
    assert torch.equal(folder(pictures).train.images, threads)


def test_unreadable_pictures_are_counted_when_skipped(pictures, caplog):
    (pictures / "train/cat/000.png").write_text("x")
    (pictures / "test/dog/readme.txt").write_text("x")
    (pictures / "test/dog/empty.jpg").write_text("")
    (pictures / "test/dog/lost.png").symlink_to("nowhere")
    refused(pictures, "test/dog/empty.jpg")
    for _ in range(2):  # decoded, then from the cache
        caplog.clear()
        splits = folder(pictures, skip_unreadable=True)
        assert splits.skipped == 3 and len(splits.test) == 8 and splits.left_out == {".txt": 1}
        assert len(splits.train) + len(splits.val) == 19
        assert "left out: 3;" in caplog.text and "test/dog/empty.jpg" in caplog.text
    for part in (splits.train, splits.val, splits.test):
        assert part.images.flatten(1).any(1).all(), "no row of an unreadable file"


def test_folder_errors(tmp_path, pictures):
    refused(None, "data.root")
    refused(tmp_path / "nowhere", "nowhere")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "train/")
    (tmp_path / "empty/train").mkdir()
    refused(tmp_path / "empty", "test/")
    (tmp_path / "empty/test").mkdir()
    refused(tmp_path / "empty", "class folders", "none")
    refused(make_picture_folder(tmp_path / "one", ("cat",)), "cat", "two")
    (pictures / "train/emu").mkdir()
    refused(pictures, "emu", "train", "test")
    (pictures / "test/emu").mkdir()
    refused(pictures, f"train{os.sep}emu", "no readable picture")
    for name in ("1", "2", ".DS_Store"):
        (pictures / "train/emu" / name).write_text("x")
    others = "no readable picture (left out: 2 files without a suffix, 1 hidden file); add"
    refused(pictures, f"train{os.sep}emu", others)
    Image.new("RGB", (8, 8)).save(pictures / "train/emu/1.png")
    refused(pictures, f"test{os.sep}emu", "no readable picture")
    (pictures / "test/emu/1.png").write_text("x")
    refused(pictures, f"test{os.sep}emu", "no readable picture", skip_unreadable=True)


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="RUNGS_PICTURES names no folder with train/ and test/")
def test_real_pictures_load_again_without_decoding(monkeypatch):
    first = folder(REAL)
    assert len(first.train) + len(first.val) == 50_000 and len(first.test) == 10_000
    no_decoding(monkeypatch)
    again = folder(REAL)
    assert (again.fingerprint, again.split) == (first.fingerprint, first.split)
