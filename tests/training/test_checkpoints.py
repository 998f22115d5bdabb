"""Checkpoints: as they were written, or refused by their checksum."""

import random
import tracemalloc
import zlib

import pytest
import torch

from common.training import checkpoint
from common.utils.errors import UserError


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path):
    file, content = tmp_path / "last.pt", {"network": {"w": torch.randn(50)}, "epoch": 3}
    content["history"] = [{"epoch": 1, "val_loss": 0.25, "names": ("a", None, True)}]
    checkpoint.save(file, content)
    expected, original = checkpoint.digest(content), file.read_bytes()
    assert checkpoint.digest(checkpoint.load(file)) == expected
    draw, refused = random.Random(0), 0
    for _ in range(200):
        changed = bytearray(original)
        changed[draw.randrange(len(changed))] ^= draw.randrange(1, 256)
        file.write_bytes(changed)
        try:
            assert checkpoint.digest(checkpoint.load(file)) == expected
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(file) in str(error)
    assert refused > 50


@pytest.mark.parametrize("cut", [0, 1, 200, -1])
def test_a_cut_checkpoint_is_refused_and_the_one_before_it_offered(tmp_path, cut):
    file = tmp_path / "last.pt"
    for epoch in (1, 2):
        checkpoint.save(file, {"network": {}, "epoch": epoch}, keep=True)
    assert checkpoint.load(checkpoint.previous(file))["epoch"] == 1
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UserError, match="not a readable checkpoint; the one before it is .*last.p"):
        checkpoint.load(file)
    checkpoint.previous(file).replace(file)
    assert checkpoint.load(file)["epoch"] == 1
    file.write_bytes(b"x")
    with pytest.raises(UserError, match="train again to replace it"):
        checkpoint.load(file)


def test_values_types_and_shapes_are_in_the_checksum():
    digests = {
        checkpoint.digest(content)
        for content in (
            *(1, 1.0, True, "1", [1], {"1": 1}, {1: 1}, None, [[1], []], [[], [1]]),
            *(torch.ones(2), torch.ones(2, 1), torch.ones(2).double(), torch.ones(2).bfloat16()),
        )
    }
    assert len(digests) == 14


@pytest.mark.parametrize("length", [2**18, 2**18 + 1])
@pytest.mark.parametrize("alike", [False, True])
def test_what_is_packed_can_be_read(tmp_path, alike, length):
    file = tmp_path / "best.pt"
    weights = torch.zeros(16 * length) if alike else torch.randn(length).bfloat16()
    checkpoint.save(file, {"network": {"w": weights}})
    plain = file.stat().st_size
    checkpoint.pack(file)
    assert plain / checkpoint.RATIO < file.stat().st_size < plain, "within what is read back"
    assert torch.equal(checkpoint.load(file)["network"]["w"], weights)


def test_a_packed_checkpoint_unpacks_to_a_bounded_size(tmp_path):
    file = tmp_path / "best.pt"
    checkpoint.save(file, {"network": {"w": torch.zeros(2**24)}})
    plain = file.read_bytes()
    file.write_bytes(checkpoint.PACKED + zlib.compress(plain[1::2] + plain[::2], 9))
    bound = 32 * file.stat().st_size + 2**20
    assert len(plain) > 16 * bound
    tracemalloc.start()
    with pytest.raises(checkpoint.Damaged, match="not a readable checkpoint"):
        checkpoint.load(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * bound
