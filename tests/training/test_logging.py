"""The live view: each epoch's figures reach TensorBoard."""

import sys

import pytest

from common.config import LevelConfig
from common.training.logging import TensorBoardLog
from common.utils.errors import UserError
from helpers.networks import fitted, quick, small_network, small_splits


def test_every_epoch_is_written_as_the_history_has_it(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = LevelConfig(train=quick(epochs=3), log="tensorboard")
    history = fitted(small_network(["c", "head"]), small_splits(), config, tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    names = {"loss/train": "train_loss", "accuracy/val": "val_accuracy", "run/lr": "lr"}
    for tag, key in names.items():
        seen = [(event.step, event.value) for event in events.Scalars(tag)]
        assert seen == [(e["epoch"], pytest.approx(e[key], rel=1e-6)) for e in history]


def test_without_tensorboard_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match="log: tensorboard is not installed; pip install -r"):
        TensorBoardLog("tensorboard", tmp_path)
    TensorBoardLog("none", tmp_path).epoch({"epoch": 1})
    assert list(tmp_path.iterdir()) == []
