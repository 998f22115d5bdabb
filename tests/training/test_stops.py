"""What stops a run is found before it does harm, and said in one line."""

import contextlib
import errno
import fcntl
import os
import re
import subprocess
import sys

import pytest
import torch

from common import cli
from common.config import LevelConfig, load_config
from common.reports.store import Reports
from common.runtime import start_runtime
from common.training import checkpoint, guards, loop
from common.training.progress import check_unfinished
from common.utils.errors import UserError
from helpers.networks import built, fitted, quick, small_network, small_splits
from helpers.processes import Started
from helpers.projects import NAMES, PROJECT, copy_project, inside, python

TINY = ["--offline", "--data.limit=200", "--train.epochs=3", "--train.batch_size=32"]
TINY += ["--network.image_size=32", "--train.threads=1", "--audit=false", "--reports=reports"]


def test_a_gradient_that_is_no_number_stops_before_the_step():
    network = small_network(["c", "head"])
    trainer = built(network, small_splits(), LevelConfig(train=quick()))
    features, targets = next(trainer.train.epoch(1))
    trainer.step(0, features, targets)
    before = checkpoint.digest(network.state_dict())
    handle = network.head.classify.weight.register_hook(lambda g: g * float("nan"))
    network.eval()  # so that batch norm's buffers stay, too
    with pytest.raises(UserError, match="loss or gradient not finite at epoch 1, step 2: lower"):
        trainer.step(1, features, targets)
    assert checkpoint.digest(network.state_dict()) == before
    handle.remove()


def as_on_a_gpu(optimizer="adam"):
    """A trainer that does not wait at each step to see whether its gradient is a number."""
    settings = quick(optimizer=optimizer, batch_size=3, lr=0.01, clip_norm=1.0)
    trainer = built(small_network(["c", "head"]), small_splits(), LevelConfig(train=settings))
    assert trainer.finite.at_once and len(trainer.sizes) == 10
    trainer.finite.at_once = False
    return trainer


def spoil(trainer, number):
    """Make the gradient of this step, from 1, no number; the steps that are taken are counted."""
    step, weight = trainer.step, trainer.network.head.classify.weight
    trainer.taken, trainer.weights = 0, []

    def spoiled(*arguments):
        trainer.taken += 1
        factor = float("nan") if trainer.taken == number else 1.0
        handle = weight.register_hook(lambda gradient: gradient * factor)
        result = step(*arguments)
        handle.remove()
        trainer.weights.append([p.detach().clone() for p in trainer.parameters])
        return result

    trainer.step = spoiled


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize(("number", "seen"), [(1, 4), (4, 4), (5, 8), (10, 10)])
def test_on_a_gpu_no_step_is_taken_either_and_it_is_said_soon(optimizer, number, seen, monkeypatch):
    monkeypatch.setattr(loop, "LOOK", 4)
    trainer = as_on_a_gpu(optimizer)
    before = [p.detach().clone() for p in trainer.parameters]
    spoil(trainer, number)
    with pytest.raises(UserError, match=f"not finite at epoch 1, step {number}: lower train.lr"):
        trainer.epoch(1)
    assert trainer.taken == seen, "the next look, or the epoch's end"
    states = [before, *trainer.weights]
    moved = [not all(map(torch.equal, *pair)) for pair in zip(states, states[1:], strict=False)]
    assert moved == [True] * (number - 1) + [False] * (seen - number + 1)
    assert all(weights.isfinite().all() for weights in states[-1])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_where_all_are_numbers_both_ways_have_the_same_bits(optimizer):
    digests = set()
    for at_once in (True, False):
        trainer = as_on_a_gpu(optimizer)
        trainer.finite.at_once = at_once
        entry = trainer.epoch(1)
        state = trainer.network.state_dict(), trainer.optimizer.state_dict(), entry["train_loss"]
        digests.add(checkpoint.digest(state))
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("error", "size", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), 128, "try --train.batch_size 64"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 8, "try --train.batch_size 4"),
        (MemoryError(), 1, "choose smaller pictures"),
    ],
)
def test_out_of_memory_names_the_batch_size_to_try(error, size, says, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr("common.training.loop.Trainer.epoch", fail)
    config = LevelConfig(train=quick(batch_size=size, lr=0.1))
    network = small_network(["head"], normalised=False)
    with pytest.raises(UserError, match=f"out of memory with batches of {size} pictures: {says}"):
        fitted(network, small_splits(), config, tmp_path)


def test_what_is_not_deterministic_is_named():
    text = "some_backward_cuda does not have a deterministic implementation, but"
    match = "train.deterministic: some_backward_cuda"
    with pytest.raises(UserError, match=match), guards.explained(8):
        raise RuntimeError(text)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_deterministic_runs_have_the_same_bits(device, tmp_path):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    states = []
    for name in ("a", "b"):
        config = LevelConfig(train=quick(device=device, deterministic=True), augment=["crop"])
        machine = start_runtime(config.train)
        assert torch.are_deterministic_algorithms_enabled()
        network = small_network(["b", "c", "head"]).to(device)
        fitted(network, small_splits(), config, tmp_path / name, machine)
        states.append(checkpoint.digest(network.state_dict()))
    assert states[0] == states[1]
    start_runtime(quick(device=device))
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="a bug"), guards.explained(8):
        raise RuntimeError("a bug")


def test_a_disk_too_full_is_found_before_training(tmp_path, monkeypatch):
    network = small_network(["head"])
    guards.check_room(tmp_path, network)
    usage = guards.shutil.disk_usage(tmp_path)._replace(free=10 * 2**20)
    monkeypatch.setattr(guards.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="10 MiB free, and a run's checkpoints take up to 64 MiB"):
        guards.check_room(tmp_path, network)


def test_the_room_that_a_run_has_taken_is_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(guards, "SPARE", 0)
    network = small_network(["c", "head"])
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    last = weights + 2 * sum(p.nbytes for p in network.parameters() if p.requires_grad)
    for name, size in (("best.pt", weights), ("last.pt", last), ("last.previous.pt", last)):
        (tmp_path / name).write_bytes(bytes(size))
    usage = guards.shutil.disk_usage(tmp_path)
    for free, fits in ((last, True), (last - 1, False)):
        left = usage._replace(free=free)
        monkeypatch.setattr(guards.shutil, "disk_usage", lambda _, left=left: left)
        with contextlib.nullcontext() if fits else pytest.raises(UserError, match="make room"):
            guards.check_room(tmp_path, network)


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_nothing(tmp_path):
    project = copy_project(tmp_path / "project", *TINY)
    python(f"{NAMES[0]}/run.py", *TINY, cwd=project)
    folder = project / "runs/digits" / NAMES[0]
    before = {path.name: path.read_bytes() for path in folder.glob("*.pt")}
    script = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**24,) * 2)"
    script += "; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    (tmp_path / "limited.py").write_text(script)
    command = tmp_path / "limited.py", f"{NAMES[0]}/run.py", *TINY, "--train.lr=0.1"
    done = Started(project, *command)
    status = done.wait()
    complaints = done.text()[1]
    assert status == 2 and complaints.count("\n") == 1, complaints
    assert re.search(r"last.pt: cannot be written \(.*\); what was there is whole", complaints)
    assert {path.name: path.read_bytes() for path in folder.glob("*.pt*")} == before


def test_no_room_for_a_report_is_one_line(capsys):
    def action():
        raise OSError(errno.ENOSPC, "No space left on device", "reports/report.md")

    with pytest.raises(SystemExit) as stopped:
        cli.command(action)
    line = "error: no room left on the disk for reports/report.md; make some, and run it again"
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith(line)


def test_two_runs_of_one_level_do_not_meet(tmp_path):
    script = "import sys, pathlib; from common.training import guards\n"
    script += "guards.lock(pathlib.Path(sys.argv[1])); print('held', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"another run .* is at work here .process {other.pid}."):
        guards.lock(tmp_path)
    other.kill()
    other.communicate()
    guards.lock(tmp_path)
    guards.lock(tmp_path)  # one process may run a level twice
    lock = tmp_path.parent / ".locks" / tmp_path.name
    assert lock.read_text() == f"{os.getpid()}\n"


@pytest.mark.slow
def test_of_two_courses_started_at_once_one_says_that_the_other_is_at_work(tmp_path):
    project = copy_project(tmp_path / "project", *TINY)
    options = [*TINY[:-1], "--data.limit=120", "--train.epochs=1"]
    courses = [Started(project, "-m", "common.course", *options) for _ in range(2)]
    ended = {course.wait(): course.text()[1] for course in courses}
    assert ended.keys() == {0, 2}, ended
    (line,) = [line for line in ended[2].splitlines() if "error" in line]
    assert "another run of this level is at work here" in line and "Traceback" not in ended[2]
    reports = Reports.read(project / "runs/digits/reports")
    assert [run.level for run in reports.runs] == NAMES and reports.damaged == []
    for name in NAMES:
        assert checkpoint.load(project / "runs/digits" / name / "best.pt")["epoch"] == 1


def test_a_file_system_without_locks_stops_no_run(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(guards.fcntl, "lockf", refuse)
    guards.lock(tmp_path)
    assert "runs cannot be kept apart here (No locks available)" in caplog.text


@pytest.mark.parametrize("cause", ["held", "full"])
def test_a_run_that_cannot_be_leaves_what_is_there(tmp_path, cause):
    project = copy_project(tmp_path / "project", *TINY)
    folder = project / "runs/digits" / NAMES[0]
    folder.mkdir(parents=True)
    if cause == "held":  # by a run that is on its way, as last.pt tells
        with inside(project):
            config = load_config(project / NAMES[0] / "config.yaml", TINY)
        facts = {"settings": config.settings(), "network": {}, "optimizer": {}, "scaler": {}}
        facts["optimizer"] = {"state": {}, "param_groups": []}
        epoch = {"epoch": 1, "val_accuracy": 0.5, "val_loss": 0.5}
        checkpoint.save(folder / "last.pt", facts | {"ema": {}, "history": [epoch]})
        with pytest.raises(UserError, match="an unfinished run"):
            check_unfinished(folder, config)
    lock = folder.parent / ".locks" / folder.name
    lock.parent.mkdir()
    with open(lock, "w") as held:
        if cause == "held":  # by this process
            held.write(f"{os.getpid()}")
            held.flush()
            fcntl.lockf(held, fcntl.LOCK_EX)
        before = sorted(project.rglob("*"))
        script = "import runpy, shutil, sys; usage = shutil.disk_usage('.')"
        script += "; shutil.disk_usage = lambda _: usage._replace(free=2**20)" * (cause == "full")
        script += "; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
        (tmp_path / "full.py").write_text(script)
        done = Started(project, tmp_path / "full.py", f"{NAMES[0]}/run.py", *TINY)
        status = done.wait()
        complaints = done.text()[1]
    words = {"held": f"at work here (process {os.getpid()})", "full": "1 MiB free, and a run's"}
    assert status == 2 and complaints.count("\n") == 1, complaints
    assert words[cause] in complaints
    new = set(project.rglob("*")) - set(before)
    assert not [path for path in new if "__pycache__" not in path.parts and path.is_file()]
