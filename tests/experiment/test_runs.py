"""Runs that stay: a recipe is a folder, and a finished run is never destroyed by another."""

import hashlib
import json
import sys

import pytest
import torch
from torchvision.models import resnet18

from common import earlier, experiment, levels
from common import runs as command
from common.audit import runner
from common.config import load_config
from common.reports.store import Reports
from common.training import Trainer, checkpoint
from common.training.place import DONE
from common.utils.errors import UserError
from common.utils.paths import VARIABLE
from helpers.projects import folder_of
from helpers.refusals import LEVELS, TINY

MLP = ["--data.name=digits", "--data.limit=60", "--network.image_size=32", "--audit=false"]
MLP += ["--network.arch=mlp", "--network.weights=none", "--train.epochs=1"]
OTHER = [*MLP, "--train.lr=0.01"]


def hashes(folder):
    """Of every file below a folder, by name."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def report_of(folder):
    return folder.parent / "reports" / folder.name


@pytest.fixture
def runs(monkeypatch, capsys):
    """A function: `python -m common.runs` with a command line -> what it prints."""

    def runs(*arguments):
        monkeypatch.setattr(sys, "argv", ["runs", *arguments])
        command.main()
        return capsys.readouterr().out

    return runs


def test_two_recipes_stand_side_by_side(run, runs):
    assert run(1, *MLP)[0] == run(1, *OTHER)[0] == 0
    first, second = folder_of(LEVELS[1], MLP), folder_of(LEVELS[1], OTHER)
    assert first.name == "level1_baseline-arch-mlp-epochs-1"
    assert second.name == "level1_baseline-arch-mlp-epochs-1-lr-0.01"
    reports = Reports.read(first.parent / "reports")
    assert {r.folder.name: r.metrics["settings"]["train"]["lr"] for r in reports.runs} == {
        first.name: 1e-3,
        second.name: 0.01,
    }
    page = (reports.folder / "README.md").read_text(encoding="utf-8")
    assert first.name in page and second.name in page, "each stands in the ladder"
    assert "network.arch mlp, train.epochs 1, train.lr 0.01" in runs()


def test_a_finished_run_is_shown_and_not_run_again(run):
    assert run(1, *MLP)[0] == 0
    folder = folder_of(LEVELS[1], MLP)
    before = hashes(folder), hashes(report_of(folder))
    code, out, _ = run(1, *MLP)
    assert code == 0 and "--anew runs it again" in out and "epoch 1/1" not in out
    assert (hashes(folder), hashes(report_of(folder))) == before


@pytest.mark.slow
def test_thirty_other_commands_leave_a_finished_run_as_it_is(run, refused, runs, tmp_path):
    assert run(1, *MLP)[0] == 0
    folder = folder_of(LEVELS[1], MLP)
    before = hashes(folder), hashes(report_of(folder))
    elsewhere = f"--reports={tmp_path / 'elsewhere'}"
    for options in (
        [*OTHER, elsewhere],
        [*MLP, "--seed=1"],
        [*MLP, "--name=wide", "--train.batch_size=16"],
        [*MLP, "--data.split_seed=3"],
        [*MLP, elsewhere],
        [*MLP, "--resume"],
    ):
        assert run(1, *options)[0] == 0, options
    for options in (
        [*MLP, "--train.lr=0"],
        [*MLP, "--train.lrr=1"],
        [*MLP, "--augment=[flop]"],
        [*MLP, "--network.taps=[none]"],
        [*MLP, "--name=config"],
        [*MLP, "--name=a/b"],
        [*MLP, "--network.weights=none.pth"],
        [*MLP, "--network.start_from=level9"],
        [*MLP, "--config=nothing.yaml"],
        [*MLP, "--data.limit=1"],
        [*MLP, "--network.new_head=true"],
        [*MLP, "--train.precision=float8"],
        [*MLP, "--train.epochs=-1"],
        [*MLP, "--data.name=folder"],
        [*MLP, "--data.val_fraction=1"],
        [*MLP, "--network.trainable=[layer9]"],
        [*MLP, "--test.tta=spin"],
        [*MLP, "--seed=x"],
        [*MLP, "--runs=/dev/null/runs"],
        ["--config"],
    ):
        refused(1, options)
    for options in ([*MLP, "--summary"], ["--help"]):
        assert run(1, *options)[0] == 0
    runs()
    runs("--prune")
    with pytest.raises(UserError):
        runs("--remove", "nothing")
    assert (hashes(folder), hashes(report_of(folder))) == before


def test_anew_keeps_the_old_run_until_the_new_one_is_whole(run, monkeypatch):
    assert run(1, *MLP)[0] == 0
    folder = folder_of(LEVELS[1], MLP)
    before = hashes(folder)
    with monkeypatch.context() as patch:

        def stop(*_):
            raise KeyboardInterrupt

        patch.setattr(Trainer, "epoch", stop)
        assert run(1, *MLP, "--anew")[0] == 130
    assert hashes(folder) == before and folder.with_name(f"{folder.name}.new").is_dir()
    assert run(1, *MLP, "--anew")[0] == 0
    assert not folder.with_name(f"{folder.name}.new").exists()
    assert not folder.with_name(f"{folder.name}.old").exists()
    after = hashes(folder)
    assert after["log.txt"] != before["log.txt"]
    assert "epoch 1/1" in (folder / "log.txt").read_text(encoding="utf-8")


def test_what_a_run_hangs_on_makes_it_train_again(run, monkeypatch):
    assert run(1, *MLP)[0] == 0
    monkeypatch.setattr(earlier.levels, "code_digest", lambda *_: "another")
    code, out, _ = run(1, *MLP)
    assert code == 0 and "trained again: code changed" in out and "epoch 1/1" in out


def test_code_that_changes_on_the_way_is_not_called_the_old_or_the_new(run, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(levels, "code_at_start", lambda *_: "the first")
    options = [*MLP[:-1], "--train.epochs=2"]
    with monkeypatch.context() as patch:
        patch.setattr(experiment.Experiment, "report", stop)
        assert run(1, *options)[0] == 130
    monkeypatch.setattr(levels, "code_at_start", lambda *_: "the second")
    code, out, _ = run(1, *options, "--resume")
    assert code == 0 and "began with another code, and goes on with this one" in out
    done = json.loads((folder_of(LEVELS[1], options) / DONE).read_text())
    assert done["code"] == "several"
    assert "trained again: code changed" in run(1, *options)[1]


@pytest.mark.parametrize("name", ["config.yaml", DONE])
@pytest.mark.parametrize("how", ["gone", "damaged", "a folder"])
def test_a_finished_run_that_cannot_be_read_is_not_trained_over(run, name, how):
    assert run(1, *MLP)[0] == 0
    file = folder_of(LEVELS[1], MLP) / name
    file.unlink()
    if how == "damaged":
        file.write_text("{", encoding="utf-8")
    elif how == "a folder":
        file.mkdir()
    before = hashes(file.parent)
    code, _, err = run(1, *MLP)
    assert code == 2 and f"{name}: a run has ended here, and this is not readable" in err
    assert hashes(file.parent) == before
    if how != "a folder":
        assert run(1, *MLP, "--anew")[0] == 0 and file.is_file()


def test_what_is_no_run_is_neither_listed_nor_removed(run, runs, tmp_path):
    assert run(1, *MLP)[0] == 0
    root = folder_of(LEVELS[1], MLP).parent.parent
    others = "games/level2_castle/art.png", "rungs/level1_x/run.py", "rungs/level1_x/config.yaml"
    others += ("handin/level1_baseline/metrics.json", "handin/level1_baseline/history.json")
    for name in others:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert "1 runs" in runs()
    runs("--prune")
    assert all((root / name).is_file() for name in others)


def test_of_a_run_that_is_a_link_the_link_is_removed(run, runs, tmp_path):
    assert run(1, *MLP)[0] == 0
    folder = folder_of(LEVELS[1], MLP)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    runs("--remove", folder.name)
    assert not folder.is_symlink() and (tmp_path / "elsewhere/best.pt").is_file()


def test_what_was_begun_beside_a_run_goes_on_when_that_is_removed(run, runs, monkeypatch):
    options = [*MLP[:-1], "--train.epochs=3"]
    assert run(1, *options)[0] == 0
    with monkeypatch.context() as patch:
        epoch = Trainer.epoch

        def stopped(trainer, number):
            if number == 2:
                raise KeyboardInterrupt
            return epoch(trainer, number)

        patch.setattr(Trainer, "epoch", stopped)
        assert run(1, *options, "--anew")[0] == 130
    folder = folder_of(LEVELS[1], options)
    runs("--remove", folder.name)
    code, out, _ = run(1, *options, "--resume")
    assert code == 0 and "resumed after epoch 1" in out
    assert (folder / DONE).is_file() and not folder.with_name(f"{folder.name}.new").exists()


@pytest.mark.parametrize("gain", ['"x"', "[1]"])
def test_a_damaged_run_json_does_not_end_the_list(run, runs, gain):
    assert run(1, *MLP)[0] == 0
    file = folder_of(LEVELS[1], MLP) / DONE
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('"gain": null', f'"gain": {gain}'), encoding="utf-8")
    assert "1 runs" in runs()


def test_a_seed_of_any_size_can_be_read_again(run):
    options = [*MLP, "--seed=9223372036854775807"]
    assert run(1, *options)[0] == 0
    assert "--anew runs it again" in run(1, *options)[1]


def test_a_finished_run_is_small(run):
    options = [*TINY[:-1], "--audit=false"]
    assert run(1, *options)[0] == 0
    folder = folder_of(LEVELS[1], options)
    names = {file.name for file in folder.iterdir()}
    assert names == {"best.pt", "config.yaml", "history.json", "log.txt", DONE}
    assert (folder / "best.pt").stat().st_size < 100_000, "45 MB with all of the network"


def test_what_a_run_needs_is_said_where_it_is_missing(run, tmp_path):
    weights = tmp_path / "mine.pth"
    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), weights)
    options = [*MLP[:4], "--train.epochs=1", f"--network.weights={weights}"]
    assert run(1, *options)[0] == 0
    path = folder_of(LEVELS[1], options) / "best.pt"
    network = load_config(LEVELS[1] / "config.yaml", options).network
    assert checkpoint.completed(checkpoint.load(path), network, path)["network"]
    torch.manual_seed(1)
    torch.save(resnet18().state_dict(), weights)
    with pytest.raises(UserError, match="needs the weights that it started from.*not these"):
        checkpoint.completed(checkpoint.load(path), network, path)
    weights.unlink()
    with pytest.raises(UserError, match="needs the weights that it started from"):
        checkpoint.completed(checkpoint.load(path), network, path)


def test_runs_may_stand_elsewhere(run, project, tmp_path, monkeypatch):
    project.mkdir(exist_ok=True)
    before = hashes(project)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "shared"))
    assert run(1, *MLP)[0] == 0
    assert folder_of(LEVELS[1], MLP).is_relative_to(tmp_path / "shared")
    assert (folder_of(LEVELS[1], MLP) / DONE).is_file()
    assert hashes(project) == before, "nothing is written into the project"


def test_runs_are_listed_and_removed(run, runs):
    assert "no runs in" in runs()
    assert run(1, *MLP)[0] == run(1, *OTHER)[0] == 0
    folder, other = folder_of(LEVELS[1], MLP), folder_of(LEVELS[1], OTHER)
    lines = runs().splitlines()
    assert [line.split()[0] for line in lines[1:3]] == sorted(
        f"{place.parent.name}/{place.name}" for place in (folder, other)
    )
    assert lines[-1].startswith("2 runs, ")
    runs("--remove", other.name)
    assert not other.exists() and not report_of(other).exists() and folder.exists()
    (folder / DONE).unlink()
    assert "1 of 1 epochs" in runs()
    runs("--prune")
    assert not folder.exists()


def test_an_audit_that_passed_is_not_repeated(run, monkeypatch):
    asked = []

    def check(context):
        asked.append(context.config.train.lr)
        return runner.Finding("the sky is blue", True, "blue", "blue", "")

    monkeypatch.setattr(runner, "CHECKS", [check])
    options = [option for option in MLP if "audit" not in option]
    assert run(1, *options)[0] == 0 and len(asked) == 1
    code, out, _ = run(1, *options, "--anew")
    assert code == 0 and "audit: passed" in out and len(asked) == 1
    assert run(1, *options, "--anew", "--audit=true")[0] == 0 and len(asked) == 2, "asked for"
    assert run(1, *options, "--train.lr=0.01")[0] == 0 and len(asked) == 3, "another config"
