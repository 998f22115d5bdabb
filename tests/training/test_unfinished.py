"""A run that was stopped between any two of its writes, and what the next one does about it."""

import os
import subprocess
import sys

import pytest
import torch

from common import commands
from common.config import Benchmark, LevelConfig, TrainConfig
from common.config.schema import comparable, differences
from common.reports.store import Reports
from common.training import checkpoint
from common.training.progress import check_resumable, check_unfinished
from common.utils import paths
from common.utils.errors import UserError
from common.utils.files import clear_drafts
from common.utils.paths import run_name, runs_folder
from helpers.networks import fitted, quick, small_network, small_splits
from helpers.projects import PROJECT


def config(resume=False, **settings):
    train = quick(**{"epochs": 4, "lr": 0.1, **settings})
    return LevelConfig(train=train, seed=3, resume=resume, augment=["flip", "crop"])


def run(folder, settings):
    """The network's digest after a run, and its history without times."""
    network = small_network(["c", "head"])
    history = fitted(network, small_splits(), settings, folder)
    clock = {"seconds", "pictures_per_second"}
    timeless = [{k: v for k, v in epoch.items() if k not in clock} for epoch in history]
    return checkpoint.digest(network.state_dict()), timeless


def stopped(folder, settings, monkeypatch, write):
    """A run that is killed as it begins its checkpoint number `write`; what it wrote before."""
    save, written = checkpoint.save, []

    def killed(path, *arguments, **options):
        if len(written) == write:
            raise KeyboardInterrupt
        save(path, *arguments, **options)
        written.append(path.name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save", killed)
        run(folder, settings)
    return written


@pytest.mark.parametrize("before", ["nothing", "the same", "another config"])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_stopped_between_any_two_checkpoints_it_ends_the_same(tmp_path, monkeypatch, before, ema):
    whole = run(tmp_path / "whole", config(ema=ema))
    accuracies = [epoch["val_accuracy"] for epoch in whole[1]]
    assert accuracies.index(max(accuracies)) == 1, "neither the first nor the last"
    orders = set()
    for write in range(6):
        folder = tmp_path / str(write)
        if before != "nothing":  # a finished run stood there
            run(folder, config(ema=ema, **({} if before == "the same" else {"weight_decay": 0.3})))
        orders.add(tuple(stopped(folder, config(ema=ema), monkeypatch, write)))
        if write == 0 and before == "another config":
            continue  # nothing of this run is there
        assert run(folder, config(resume=True, ema=ema)) == whole, (write, accuracies)
    assert ("last.pt", "best.pt") in orders, "never the best without what training goes on from"


def edited(key, value):
    settings = config(lr=1e-9)
    group, _, name = key.rpartition(".")
    setattr(getattr(settings, group) if group else settings, name, value)
    return settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("benchmarks", [Benchmark("CIFAR-10", "imagenet", 224, 88.8)]),
        ("data.title", "pets of my own"),
        ("network.weights_title", "imagenet, my copy"),
        ("audit", False),
    ],
)
def test_what_the_weights_do_not_hang_on_may_be_edited(tmp_path, monkeypatch, key, value):
    whole = run(tmp_path / "whole", config(lr=1e-9))
    stopped(tmp_path, config(lr=1e-9), monkeypatch, write=4)
    changed = edited(key, value)
    with pytest.raises(UserError, match="an unfinished run of this config .* after 3 of 4 epochs"):
        check_unfinished(tmp_path, changed)
    assert comparable(changed.settings()) == comparable(config(lr=1e-9).settings())
    changed.resume = True
    assert run(tmp_path, changed) == whole


def test_the_parameters_of_a_step_are_compared_as_one():
    def settings(schedule):
        return LevelConfig(train=TrainConfig(schedule=schedule)).settings()

    warm, plain = settings({"cosine": {"warmup": 0.1}}), settings({"cosine": {}})
    assert differences(warm, plain) == differences(plain, warm) == ["train.schedule"]
    assert comparable(plain) != comparable(settings({"one_cycle": {}}))


@pytest.mark.parametrize("part", ["network", "optimizer", "scaler", "ema", "history"])
def test_what_training_goes_on_from_is_all_there_or_refused(tmp_path, monkeypatch, part):
    stopped(tmp_path, config(lr=1e-9), monkeypatch, write=4)
    content = checkpoint.load(tmp_path / "last.pt")
    del content[part]
    checkpoint.save(tmp_path / "last.pt", content)
    with pytest.raises(UserError, match="not a checkpoint that training goes on from"):
        check_resumable(tmp_path, config(lr=1e-9), small_splits())
    check_unfinished(tmp_path, config(lr=1e-9))  # there is nothing to go on with


@pytest.mark.parametrize("key", ["data.split_seed", "train.batch_size", "seed", "train.threads"])
def test_what_they_hang_on_makes_another_run(tmp_path, monkeypatch, key):
    stopped(tmp_path, config(lr=1e-9), monkeypatch, write=4)
    changed = edited(key, 5)
    check_unfinished(tmp_path, changed)
    assert comparable(changed.settings()) != comparable(config(lr=1e-9).settings())
    changed.resume = True
    with pytest.raises(UserError, match=f"made with other {key}; change back"):
        run(tmp_path, changed)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content | {"epoch": 9}, "holds epoch 9, and the run's best is"),
        (lambda content: content | {"weights": "x"}, "made with other weights"),
    ],
)
def test_another_best_than_the_historys_is_refused(tmp_path, change, says):
    _, history = run(tmp_path, config(lr=1e-9))
    assert history[0]["val_accuracy"] == history[-1]["val_accuracy"], "the first is the best"
    best = tmp_path / "best.pt"
    checkpoint.save(best, change(checkpoint.load(best)))
    with pytest.raises(UserError, match=f"best.pt: {says}"):
        run(tmp_path, config(lr=1e-9, resume=True))


def test_a_run_that_started_from_another_checkpoint_is_not_gone_on_with(tmp_path):
    for start, resume in [("a", False), ("a", True), ("b", True)]:
        network = small_network(["head"])
        network.start = start
        if start == "a":
            fitted(network, small_splits(), config(resume), tmp_path)
    with pytest.raises(UserError, match="made with other start .another level's checkpoint"):
        fitted(network, small_splits(), config(resume), tmp_path)


def test_a_damaged_last_checkpoint_does_not_cost_the_one_before(tmp_path, monkeypatch):
    stopped(tmp_path, config(lr=1e-9), monkeypatch, write=4)  # last, best, last, last
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:300])
    kept = checkpoint.previous(last).read_bytes()
    with pytest.raises(UserError, match=r"the one before it is .*; --anew starts over"):
        check_unfinished(tmp_path, config(lr=1e-9))
    assert checkpoint.previous(last).read_bytes() == kept
    anew, other = config(lr=1e-9), config(lr=0.1)
    anew.anew = True
    for fine in (anew, other):
        check_unfinished(tmp_path, fine)
    checkpoint.previous(last).write_bytes(b"")
    check_unfinished(tmp_path, config(lr=1e-9))  # nothing to go on from


def test_all_runs_are_looked_at_before_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    level, settings = tmp_path / "level3_mine", config()
    settings.data.name, settings.seeds = "digits", [0, 1, 2]
    folder = runs_folder("digits") / run_name(level.name, "config", 2)
    stopped(folder, settings.with_seed(2), monkeypatch, write=2)
    with pytest.raises(UserError, match="level3_mine-seed2, after 1 of 4 epochs: --resume goes on"):
        commands.check_unfinished_runs([(level, config()), (level, settings)])
    settings.resume = True
    commands.check_unfinished_runs([(level, config()), (level, settings)])


def test_halves_of_files_are_cleared_and_those_of_who_is_at_work_are_not(tmp_path):
    stays = f".README.md.{os.getppid()}.part", ".of another program.part", "last.pt"
    for name in (".history.json.99999999.part", ".last.pt.99999999.part", *stays):
        (tmp_path / name).touch()
    folder = tmp_path / ".level1_mine.99999999.part"
    folder.mkdir()
    (folder / "metrics.json").write_text("{}")
    assert Reports.read(tmp_path).damaged == [], "no report yet"
    clear_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*stays}


def test_many_may_write_one_page(tmp_path):
    """Of several runs, each its own: the page is always a whole one."""
    script = "import pathlib, sys; from common.utils.files import write_whole"
    script += "\nfor _ in range(300): write_whole(pathlib.Path(sys.argv[1]), sys.argv[2] * 5000)"
    place = tmp_path / "README.md"
    command = [sys.executable, "-c", script, place]
    writers = [subprocess.Popen([*command, letter], cwd=PROJECT) for letter in "abc"]
    while any(writer.poll() is None for writer in writers):
        if place.exists():
            text = place.read_text()
            assert len(text) == 5000 and len(set(text)) == 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_files_can_be_read_by_whom_the_umask_allows(tmp_path):
    (tmp_path / "plain").touch()
    checkpoint.save(tmp_path / "last.pt", {"w": torch.ones(1)})
    assert (tmp_path / "last.pt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_disk_that_does_not_give_a_checkpoint_is_not_called_damage(tmp_path):
    with pytest.raises(UserError, match=r"last.pt: cannot be read \(it is no file\)") as refused:
        (tmp_path / "last.pt").mkdir()
        checkpoint.load(tmp_path / "last.pt")
    assert not isinstance(refused.value, checkpoint.Damaged)
