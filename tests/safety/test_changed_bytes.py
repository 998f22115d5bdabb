"""A changed byte in any file: refused in one line, or what is read is what was written.

Of weights without a checksum of their own, a third way out: the run goes by another SHA-256, which
its report names, and resuming and the grader refuse it.
"""

import json
import os
import random
import time
import urllib.request
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from common.config import DataConfig, LevelConfig, NetworkConfig
from common.data import image_folder
from common.data.cifar import read_archive
from common.data.image_folder import read_folder
from common.grade.checks import same_weights
from common.models import Weights
from common.models import weights as starting_weights
from common.models.weights import BUNDLED, describe_weights, load_weights
from common.reports import schema
from common.reports.store import Reports
from common.training import checkpoint
from common.utils.errors import UserError
from helpers.makers import make_cifar_archive, make_picture_folder, patched_checksums
from helpers.networks import built, quick, small_network, small_splits
from helpers.reports import leave

CHANGES = 100  # of each kind of file


def changes(file, seed=0, count=CHANGES):
    """So many times the file with another byte in another place; it is put back each time."""
    original, draw = file.read_bytes(), random.Random(seed)
    for _ in range(count):
        content = bytearray(original)
        content[draw.randrange(len(content))] ^= draw.randrange(1, 256)
        file.write_bytes(content)
        yield
        file.write_bytes(original)


def outcome(read, expected):
    """ "refused" or "exact"; anything else fails. What is read is compared by its digest."""
    try:
        found = read()
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        return "refused"
    assert checkpoint.digest(found) == checkpoint.digest(expected), "wrong, and nothing was said"
    return "exact"


def tensors(arrays):
    """Arrays in a form that the digest takes."""
    return {name: (a.dtype.str, a.shape, a.tobytes().hex()) for name, a in arrays.items()}


# ---- checkpoints ----


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_checkpoint(tmp_path, name):
    trainer = built(small_network(["c", "head"]), small_splits(), LevelConfig(train=quick()))
    trainer.progress.save([{"epoch": 1, "val_accuracy": 0.25}], tmp_path)
    content = checkpoint.load(tmp_path / name)
    file, read = (
        tmp_path / name,
        checkpoint.load if name == "last.pt" else checkpoint.read_checkpoint,
    )
    found = [outcome(lambda: read(file), content) for _ in changes(file)]
    assert found.count("refused") > CHANGES / 2, "what it says is most of the file"
    assert outcome(lambda: read(file), content) == "exact"


# ---- the cache of decoded pictures ----


def folder_as_read(root, cache):
    images, *parts, fingerprint, _ = read_folder(
        DataConfig(name="folder", root=str(root)), cache, 16
    )
    arrays = {"pixels": images.source.numpy(), "labels": images.labels.numpy()}
    facts = fingerprint, images.classes, images.names, [part.tolist() for part in parts]
    return [*facts, tensors(arrays)]


def lasting(content):
    """What a file of the cache holds besides the times at which it was made."""
    if content.startswith(b"\x93NUMPY"):
        return content
    facts = json.loads(content.partition(b"\n")[2])
    return facts | {"arrays": {size: [a[0], a[-1]] for size, a in facts["arrays"].items()}}


@pytest.mark.parametrize("kind", ["*.npy", "*.json"])
@pytest.mark.parametrize("how", ["changed", "cut"])
def test_cache_is_made_anew(tmp_path, monkeypatch, kind, how):
    root = make_picture_folder(tmp_path / "pets", per_class=3, test_per_class=2)
    expected = folder_as_read(root, tmp_path / "cache")
    decode = mock.Mock(side_effect=image_folder.decode)
    monkeypatch.setattr(image_folder, "decode", decode)
    (file,) = (tmp_path / "cache").glob(kind)
    original, draw = file.read_bytes(), random.Random(1)
    for i in range(CHANGES):
        written = file.stat().st_mtime_ns
        content, place = bytearray(original), draw.randrange(len(original))
        content[place] ^= draw.randrange(1, 256)
        time.sleep(0.01)  # file systems' times have ticks
        file.write_bytes(content if how == "changed" else content[:place])
        if i % 2:
            os.utime(file, ns=(file.stat().st_atime_ns, written))  # which hides nothing
        assert folder_as_read(root, tmp_path / "cache") == expected
    assert decode.call_count == CHANGES, "each is noticed"
    assert folder_as_read(root, tmp_path / "cache") == expected
    assert decode.call_count == CHANGES and lasting(file.read_bytes()) == lasting(original)


# ---- pictures ----


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_picture_of_the_same_size_and_time(tmp_path, ending):
    """The cache neither hides the change nor puts old pixels beside a new fingerprint."""
    root = make_picture_folder(tmp_path / "pets", per_class=3, test_per_class=2, ending=ending)
    expected, found = folder_as_read(root, tmp_path / "cache"), []
    file = root / f"train/dog/001{ending}"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    for i, _ in enumerate(changes(file)):
        os.utime(file, ns=times)
        try:
            seen = folder_as_read(root, tmp_path / "cache")
        except UserError as error:
            assert str(file) in str(error) and len(str(error).splitlines()) == 1
            found.append("refused")
        else:
            assert seen == folder_as_read(root, tmp_path / f"fresh{i}"), "as without a cache"
            assert seen[0] != expected[0], "other data, by their fingerprint"
            found.append("another fingerprint")
            time.sleep(0.01)  # file systems' times have ticks
    assert set(found) == {"refused", "another fingerprint"}
    assert folder_as_read(root, tmp_path / "cache") == expected


# ---- archives ----


@pytest.mark.parametrize("name", ["cifar10", "cifar100_coarse"])
@pytest.mark.parametrize("harm", ["files", "archive", "both"])
def test_archive(tmp_path, monkeypatch, name, harm):
    monkeypatch.setattr(urllib.request, "urlopen", mock.Mock(side_effect=OSError("no route")))
    kind = name.removesuffix("_coarse")
    table = make_cifar_archive(tmp_path, kind, per_class=5, test_per_class=2)
    with patched_checksums(table, kind):

        def read():
            found = read_archive(name, tmp_path)
            arrays = {"x": found.images.source.numpy(), "y": found.images.labels.numpy()}
            arrays |= {"train": found.train, "test": found.test}
            return [tensors(arrays), found.images.classes, found.fingerprint]

        expected, draw = read(), random.Random(2)
        (archive,) = tmp_path.glob("*.tar.gz")
        files = sorted(file for file in tmp_path.glob("*/*") if file.is_file())
        assert len(files) == (7 if kind == "cifar10" else 3)
        for _ in range(CHANGES // 4):
            spoilt = [archive] * (harm != "files") + [draw.choice(files)] * (harm != "archive")
            kept = [(file, file.read_bytes()) for file in spoilt]
            for file, content in kept:
                place = draw.randrange(len(content))
                other = bytes([content[place] ^ draw.randrange(1, 256)])
                file.write_bytes(content[:place] + other + content[place + 1 :])
            assert outcome(read, expected) == ("refused" if harm == "both" else "exact")
            for file, content in kept:
                file.write_bytes(content)


# ---- weights ----


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def write_weights(file, kind):
    state = network().state_dict()
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(state, file)
        return
    torch.serialization.set_crc32_options(kind != "without sums")
    torch.save(state, file, _use_new_zipfile_serialization=kind != "legacy")
    torch.serialization.set_crc32_options(True)


@pytest.mark.parametrize("kind", ["zip", "without sums", "legacy", "safetensors"])
def test_weights(tmp_path, kind):
    file = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    write_weights(file, kind)
    trainer = built(small_network(["head"]), small_splits(), LevelConfig(train=quick()))
    trainer.progress.left_out = set()  # this network's tensors are in no file
    last, other = tmp_path / "last.pt", []

    def read():
        fresh = network()
        weights = load_weights(fresh, "3.", NetworkConfig(weights=str(file)))
        return weights.sha256, {k: v for k, v in fresh.state_dict().items() if k[0] != "3"}

    def stated(sha256):
        trainer.network.weights = Weights(name="mine", sha256=sha256, image_size=8)
        return trainer.progress

    sha256, expected = read()
    stated(sha256).save([{"epoch": 1, "val_accuracy": 0.25}], tmp_path)
    content = checkpoint.load(last)
    submission = SimpleNamespace(metrics={"weights": {"sha256": sha256}}, checkpoint=content)
    assert same_weights(submission, Weights(name="mine", sha256=sha256, image_size=8)).passed
    for _ in changes(file):
        try:
            assert outcome(lambda: read()[1], expected)
        except AssertionError:
            now = read()[0]
            other.append(now)
            with pytest.raises(UserError, match="made with other weights"):
                stated(now).resume(last)
            assert not same_weights(
                submission, Weights(name="mine", sha256=now, image_size=8)
            ).passed
    assert (len(other) == 0) == (kind == "zip"), "only zip's checksums tell at first sight"
    assert sha256 not in other
    stated(sha256).resume(last)


def test_bundled_weights(tmp_path, monkeypatch):
    file, draw = tmp_path / "bundled.pth", random.Random(4)
    content = bytearray(BUNDLED.read_bytes())
    monkeypatch.setattr(starting_weights, "BUNDLED", file)
    for _ in range(10):
        place, by = draw.randrange(len(content)), draw.randrange(1, 256)
        content[place] ^= by
        file.write_bytes(content)
        with pytest.raises(UserError, match="not the bundled file any more"):
            describe_weights(NetworkConfig(weights="tiny-imagenet"))
        content[place] ^= by


# ---- predictions ----


@pytest.mark.parametrize("packed", [True, False])
def test_predictions(tmp_path, packed):
    leave(tmp_path, right=78)
    folder = tmp_path / "level1_first-config-0"
    file = folder / "predictions.npz"
    if not packed:
        np.savez(file, **schema.read_arrays(folder))
    graded = tensors(schema.read_arrays(folder))

    def shown():
        reports = Reports.read(tmp_path)
        (run,) = reports.runs or [None]
        assert run is not None or "predictions.npz" in reports.damaged[0]
        return run and tensors({name: np.asarray(getattr(run, name)) for name in schema.ARRAYS})

    before, found = shown(), []
    for _ in changes(file):
        found.append(outcome(lambda: tensors(schema.read_arrays(folder)), graded))
        assert shown() in (None, before)
    assert found.count("refused") > CHANGES / 2
    assert outcome(lambda: tensors(schema.read_arrays(folder)), graded) == "exact"
    assert shown() == before
