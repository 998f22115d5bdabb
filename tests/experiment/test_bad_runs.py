"""Runs that cannot start: what they stand on, resume, or write to is not as they need it."""

import re
import shlex
from unittest import mock

import pytest

from common import experiment
from common.config import load_config
from common.training.place import DONE, KEEP
from helpers.makers import make_picture_folder
from helpers.projects import folder_of
from helpers.refusals import LEVELS, TINY, on

# ---- level 4 stands on level 3 ----


def suggested(text):
    """The command that an error line says to run first, as level 3's config."""
    command = re.search(r"run first: python level3_fusion/run\.py(.*)$", text.strip())
    return load_config(LEVELS[3] / "config.yaml", shlex.split(command[1]))


def test_level_4_without_level_3(refused, tmp_path):
    title = 'Digits (mine), "small"'
    arguments = [*TINY, f"--data.title={title}", "--data.mirror=true", "--seed=3"]
    arguments += [f"--reports={tmp_path / 'my reports'}"]
    text = refused(4, arguments, "level4_finetune_tta", "level3_fusion", "run first")
    own = load_config(LEVELS[4] / "config.yaml", arguments)
    first = suggested(text)
    assert (first.data, first.seed, first.reports) == (own.data, own.seed, own.reports)
    assert (first.network.weights, first.network.image_size) == ("tiny-imagenet", 32)
    assert first.network.trainable == ["layer4", "head"], "level 3's own"


@pytest.mark.slow
def test_level_4_on_another_level_3(run, refused, tmp_path):
    """What level 3 left with another split, pictures or weights stands apart, and is not taken."""
    assert run(3, *TINY)[0] == 0
    text = refused(4, [*TINY, "--data.split_seed=1"], "level3_fusion", "run first")
    assert suggested(text).data.split_seed == 1, "which stands apart"
    text = refused(4, [*TINY, "--network.weights=none"], "level3_fusion", "run first")
    assert suggested(text).network.weights == "none"
    pictures = on(make_picture_folder(tmp_path / "pets"))
    text = refused(4, [*pictures, "--data.title=digits"], "level3_fusion", "run first")
    assert suggested(text).data.root == str(tmp_path / "pets")
    refused(4, [*TINY, "--seed=1"], "level3_fusion", "run first", "--seed 1")
    assert run(4, *TINY)[0] == 0, "the same data, split, weights and seed: it runs"


# ---- what the config tells ----


def test_what_the_config_tells_is_refused_before_the_pictures_are_read(refused, monkeypatch):
    monkeypatch.setattr(experiment, "load_splits", mock.Mock(side_effect=AssertionError("read")))
    refused(1, [*TINY, "--network.arch=cnn"], "tiny-imagenet is not for this network", "block1")
    refused(1, [*TINY, "--network.weights=none.pth"], "no file none.pth")
    refused(1, [*TINY, "--augment=[flop]"], "augment: unknown 'flop'")


# ---- resuming ----


def test_resuming_with_another_config(run, refused, monkeypatch):
    """What differs is named, and the run as it was goes on."""
    monkeypatch.setenv(KEEP, "1")
    mine = [*TINY, "--name=mine"]
    assert run(1, *mine)[0] == 0
    folder = folder_of(LEVELS[1], mine)
    refused(1, [*mine, "--train.lr=0.5"], folder, "'mine' is a run with other train.lr", "--name")
    (folder / DONE).unlink()
    resume = [*mine, "--resume=true"]
    words = "'mine' is a run with other", "train.lr", "augment"
    refused(1, [*resume, "--train.lr=0.5", "--augment", "flip"], folder, *words)
    code, out, text = run(1, *resume)
    assert (code, text) == (0, "") and "resumed after epoch 1" in out


def test_a_log_is_begun_by_a_run_that_begins(run, refused, project):
    """It holds what was said before that, too; a run that is refused leaves the one there."""
    assert run(1, *TINY)[0] == 0
    log = folder_of(LEVELS[1], TINY) / "log.txt"
    first = log.read_text(encoding="utf-8")
    assert "seed 0: " in first and "left out" in first and "test accuracy" in first
    refused(1, [*TINY, "--network.weights=none.pth"], "no file none.pth")
    assert log.read_text(encoding="utf-8") == first
    assert run(1, *TINY, "--resume")[0] == 0
    assert log.read_text(encoding="utf-8").startswith(first)
    assert run(1, *TINY)[0] == 0
    assert log.read_text(encoding="utf-8").count("seed 0: ") == 1


def test_a_damaged_report_of_another_run_stops_nobody(run, project):
    """It is left out, and said once; its own run replaces it."""
    assert run(1, *TINY)[0] == 0
    reports = folder_of(LEVELS[1], TINY).parent / "reports"
    name = folder_of(LEVELS[1], TINY).name
    metrics = reports / name / "metrics.json"
    metrics.write_text("{", encoding="utf-8")
    code, out, text = run(3, *TINY)
    assert (code, text) == (0, "") and metrics.read_text(encoding="utf-8") == "{"
    (warning,) = [line for line in out.splitlines() if "left out of" in line]
    assert f"{name}/metrics.json: not JSON" in warning and "run its level" in warning
    assert "level1_baseline" not in (reports / "README.md").read_text(encoding="utf-8")
    code, out, _ = run(1, *TINY)
    assert code == 0 and len(metrics.read_text(encoding="utf-8")) > 1000
    assert "left out of" not in out
    assert "level1_baseline" in (reports / "README.md").read_text(encoding="utf-8")
