"""Runs brought back from what they left: a level that fails there ends no other level's run."""

import logging

import pytest

from common.config import LevelConfig
from common.models import StagedNetwork
from common.reports import comparison, gallery, restore
from common.reports.figures import album
from common.reports.store import Reports
from helpers.networks import small_backbone, small_network, small_splits
from helpers.projects import inside
from helpers.reports import leave, made_up, run_of


def mine(project, code):
    """A level of the reader's own, and its report."""
    level = project / "level5_mine"
    level.mkdir()
    (level / "run.py").write_text(code, encoding="utf-8")
    (level / "config.yaml").write_text("{}", encoding="utf-8")
    metrics, *rest, _ = made_up(level="level5_mine")
    return run_of(level, metrics, *rest)


@pytest.mark.parametrize(
    "code",
    ["def broken(", "raise SystemExit(3)", "import nothing_of_this_name", "build_network = 3"],
)
def test_a_level_that_cannot_be_built_is_left_out_with_a_warning(
    tmp_path, monkeypatch, caplog, code
):
    content = {"settings": LevelConfig().settings(), "network": {}, "epoch": 2}
    monkeypatch.setattr(restore, "read_checkpoint", lambda place: content)
    with inside(tmp_path), caplog.at_level(logging.WARNING, "rungs"):
        assert restore.networks_of([mine(tmp_path, code)]) == {}
    (warning,) = caplog.messages
    assert warning.startswith("left out: the network of level5_mine (") and "\n" not in warning


def test_a_level_without_a_checkpoint_is_left_out_in_silence(tmp_path, caplog):
    with inside(tmp_path):
        assert restore.networks_of([mine(tmp_path, "")]) == {}
    assert caplog.messages == []


def test_a_head_that_maps_cannot_be_made_of_has_none(monkeypatch, caplog):
    """As one that detaches what it reads."""

    class Detached(type(small_network().head)):
        def forward(self, *pooled):
            return super().forward(*(x.detach() for x in pooled))

    data = small_splits(size=16)
    sound = small_network(size=16)
    broken = StagedNetwork(small_backbone(16), Detached([8], 3), ["head"], ["c"])
    runs = []
    for level in ("level1_first", "level2_second"):
        metrics, history, *_ = made_up(level=level)
        labels = data.test.labels.numpy()
        logits = made_up()[3][: len(labels), :3]
        runs.append(run_of("", metrics, history, labels, logits, labels, ["a", "b", "c"]))
    networks = {"level1_first": broken, "level2_second": sound}
    found = gallery.collect(runs, data.test, networks)
    assert list(found.maps) == ["level2_second"]
    (warning,) = caplog.messages
    assert "where level1_first looks" in warning


def test_compare_has_a_row_for_a_level_that_is_gone(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(album, "draw", lambda *_: {})

    def with_network(metrics):
        network = {"arch": "resnet18", "trainable": ["head"], "taps": None, "start_from": None}
        return metrics | {"settings": {"network": network}}

    leave(tmp_path, level="level7_gone", change=with_network)
    leave(tmp_path, level="level8_by_hand")
    (row,) = comparison.ladder_rows(Reports.read(tmp_path))
    assert (row["config"], row["network"], row["strategy"]) == ("level7_gone", "resnet18", "ladder")
    assert (row["parameters"], row["operations_per_picture"]) == (11_000_000, None)
    assert row["test_accuracy"] == 0.8
    (warning,) = caplog.messages
    assert "the operations of level7_gone" in warning and "no level 'level7_gone'" in warning
    page = comparison.page({"data": "digits", "rows": [row], "command": "compare"})
    assert "| level7_gone | resnet18 | ladder | 11.00 M | 8.00 M | unknown |" in page
