"""Nothing is lost: killed runs go on to the same bits; what stops a run is one line."""

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from common import checkpoint, faults, levels, resuming, runtime
from common.config import LevelConfig, UserError
from common.resuming import outcome
from networks import built, fitted, quick, small_network, small_splits
from projects import NAMES, PROJECT, copy_project, python

TINY = ["--offline", "--data.limit=200", "--train.epochs=3", "--train.batch_size=32"]
TINY += ["--network.image_size=32", "--train.threads=1", "--audit=false", "--reports=reports"]


# ---- killed, and resumed ----


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, and how long it took."""
    project = copy_project(tmp_path_factory.mktemp("whole") / "project")
    started = time.monotonic()
    python(f"{NAMES[1]}/run.py", *TINY, cwd=project)
    project.seconds = time.monotonic() - started
    return project


def kill_and_resume(whole, place, seed):
    project, draw = copy_project(place / "project"), random.Random(seed)
    command = [sys.executable, f"{NAMES[1]}/run.py", *TINY]
    stop = draw.uniform(0.3, 1.0) * whole.seconds
    run = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        run.wait(stop)
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
    run.communicate()
    python(f"{NAMES[1]}/run.py", *TINY, "--resume", cwd=project)
    assert outcome(project, NAMES[1]) == outcome(whole, NAMES[1])
    assert not list(project.glob("runs/digits/*/*.part"))


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path, seed):
    kill_and_resume(whole, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 23))
def test_twenty_killed_runs_go_on_to_the_same_bits(whole, tmp_path, seed):
    kill_and_resume(whole, tmp_path, seed)


@pytest.mark.parametrize("level", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_user_can_have_it_proved(tmp_path, level):
    project = copy_project(tmp_path / "project")
    if level == 4:  # which starts from level 3's
        python(f"{NAMES[2]}/run.py", *TINY, "--train.epochs=1", "--seed=1", cwd=project)
    text = python("-m", "common.course", "--verify-resume", level, *TINY, "--seed=1", cwd=project)
    assert text.count(": equal (") == 4 and "the same to the bit" in text, text
    assert not list(project.glob(f"runs/digits/level{level}*")), "nothing in the project's own"


def test_a_resumed_run_that_came_out_otherwise_is_named(monkeypatch, tmp_path):
    digests = iter([{"weights": "a", "figures": "c"}, {"weights": "b", "figures": "c"}])
    monkeypatch.setattr(resuming, "copied", lambda *_: tmp_path)
    for name in ("_run", "_kill"):
        monkeypatch.setattr(resuming, name, lambda *_: None)
    (tmp_path / "reports/level3_fusion").mkdir(parents=True)
    (tmp_path / "reports/level3_fusion/history.json").write_text("[]")
    monkeypatch.setattr(resuming, "outcome", lambda *_: next(digests))
    with pytest.raises(resuming.NotTheSame, match="level3_fusion: resumed after a kill"):
        resuming.verify(PROJECT / NAMES[2], LevelConfig(), [])


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_how_to_go_on(tmp_path, how, status):
    project = copy_project(tmp_path / "project")
    command = [sys.executable, "-u", f"{NAMES[1]}/run.py", *TINY, "--train.epochs=500"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # a shell that runs these tests in the background has Ctrl-C ignored by all that it starts
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    run = subprocess.Popen(command, cwd=project, preexec_fn=heard, **pipes)
    while "epoch 1/500" not in run.stdout.readline():
        assert run.poll() is None
    run.send_signal(how)
    _, complaints = run.communicate(timeout=60)
    assert run.returncode == status and "Traceback" not in complaints
    assert "stopped; the same command with --resume goes on" in complaints


def test_an_unfinished_run_is_not_written_over_unasked(tmp_path):
    project = copy_project(tmp_path / "project")
    script = [sys.executable, f"{NAMES[0]}/run.py", *TINY]
    python(*script[1:], cwd=project)
    folder = project / "runs/digits" / NAMES[0]
    content = checkpoint.load(folder / "last.pt")
    content["history"] = content["history"][:2]  # as if it had been stopped there
    checkpoint.save(folder / "last.pt", content)
    before = checkpoint.digest(content)
    done = subprocess.run(script, cwd=project, capture_output=True, text=True)
    assert done.returncode == 2 and "after 2 of 3 epochs: --resume goes on" in done.stderr
    assert f"python {NAMES[0]}/run.py" in done.stderr and "--resume), --anew" in done.stderr
    assert checkpoint.digest(checkpoint.load(folder / "last.pt")) == before
    python(*script[1:], "--anew", cwd=project)


# ---- what stops a run ----


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

    monkeypatch.setattr("common.training.Trainer.epoch", fail)
    config = LevelConfig(train=quick(batch_size=size, lr=0.1))
    network = small_network(["head"])
    with pytest.raises(UserError, match=f"out of memory with batches of {size} pictures: {says}"):
        fitted(network, small_splits(), config, tmp_path)


def test_what_is_not_deterministic_is_named():
    text = "some_backward_cuda does not have a deterministic implementation, but"
    match = "train.deterministic: some_backward_cuda"
    with pytest.raises(UserError, match=match), faults.explained(8):
        raise RuntimeError(text)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_deterministic_runs_have_the_same_bits(device, tmp_path):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    states = []
    for name in ("a", "b"):
        config = LevelConfig(train=quick(device=device, deterministic=True), augment=["crop"])
        machine = runtime.start(config.train)
        assert torch.are_deterministic_algorithms_enabled()
        network = small_network(["b", "c", "head"]).to(device)
        fitted(network, small_splits(), config, tmp_path / name, machine)
        states.append(checkpoint.digest(network.state_dict()))
    assert states[0] == states[1]
    runtime.start(quick(device=device))
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="a bug"), faults.explained(8):
        raise RuntimeError("a bug")


def test_a_disk_too_full_is_found_before_training(tmp_path, monkeypatch):
    network = small_network(["head"])
    faults.check_room(tmp_path, network)
    usage = faults.shutil.disk_usage(tmp_path)._replace(free=10 * 2**20)
    monkeypatch.setattr(faults.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="10 MiB free, and a run's checkpoints take up to 64 MiB"):
        faults.check_room(tmp_path, network)


def test_a_disk_that_fills_up_loses_nothing(tmp_path):
    project = copy_project(tmp_path / "project")
    python(f"{NAMES[0]}/run.py", *TINY, cwd=project)
    folder = project / "runs/digits" / NAMES[0]
    before = {path.name: path.read_bytes() for path in folder.glob("*.pt")}
    script = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**24,) * 2)"
    script += "; sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", script, f"{NAMES[0]}/run.py", *TINY, "--train.lr=0.1"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert re.search(r"best.pt: cannot be written \(.*\); what was there is whole", done.stderr)
    assert {path.name: path.read_bytes() for path in folder.glob("*.pt*")} == before


def test_no_room_for_a_report_is_one_line(capsys):
    def action():
        raise OSError(errno.ENOSPC, "No space left on device", "reports/report.md")

    with pytest.raises(SystemExit) as stopped:
        levels.command(action)
    line = "error: no room left on the disk for reports/report.md; make some, and run it again"
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith(line)


def test_two_runs_of_one_level_do_not_meet(tmp_path):
    script = "import sys, pathlib; from common import faults\n"
    script += "faults.lock(pathlib.Path(sys.argv[1])); print('held', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"another run .* is at work here .process {other.pid}."):
        faults.lock(tmp_path)
    other.kill()
    other.communicate()
    faults.lock(tmp_path)
    faults.lock(tmp_path)  # one process may run a level twice
    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
