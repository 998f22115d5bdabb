"""Nothing is lost: killed runs go on to the same bits; what stops a run is one line."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from common import checkpoint, faults
from common.config import LevelConfig, UserError
from networks import built, fitted, quick, small_network, small_splits
from projects import NAMES, PROJECT, copy_project, python

TINY = ["--offline", "--data.limit=200", "--train.epochs=3", "--train.batch_size=32"]
TINY += ["--network.image_size=32", "--train.threads=1", "--audit=false"]


# ---- killed, and resumed ----


def outcome(project):
    """What a run leaves, less its times: weights, history, figures and predictions."""
    folder = project / "runs/digits" / NAMES[1]
    report = project / "runs/digits/reports" / NAMES[1]
    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    history = json.loads((report / "history.json").read_text(encoding="utf-8"))
    for entry in history:
        entry.pop("seconds"), entry.pop("pictures_per_second")
    with np.load(report / "predictions.npz", allow_pickle=False) as saved:
        arrays = {name: saved[name].tobytes() for name in saved.files}
    weights = checkpoint.digest(checkpoint.load(folder / "best.pt")["network"])
    figures = {k: metrics[k] for k in ("train", "val", "test", "test_single", "best_epoch")}
    return weights, history, figures, metrics["detail"]["ece"], arrays


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
    assert outcome(project) == outcome(whole)
    assert not list(project.glob("runs/digits/*/*.part"))


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path, seed):
    kill_and_resume(whole, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 23))
def test_twenty_killed_runs_go_on_to_the_same_bits(whole, tmp_path, seed):
    kill_and_resume(whole, tmp_path, seed)


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_how_to_go_on(tmp_path, how, status):
    project = copy_project(tmp_path / "project")
    command = [sys.executable, "-u", f"{NAMES[1]}/run.py", *TINY, "--train.epochs=500"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    run = subprocess.Popen(command, cwd=project, **pipes)
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
    python(*script[1:], cwd=project)


# ---- checkpoints ----


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


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="a bug"), faults.memory(8):
        raise RuntimeError("a bug")


def test_a_disk_too_full_is_found_before_training(tmp_path, monkeypatch):
    network = small_network(["head"])
    faults.check_room(tmp_path, network)
    usage = faults.shutil.disk_usage(tmp_path)._replace(free=10 * 2**20)
    monkeypatch.setattr(faults.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="10 MiB free, and a run's checkpoints take up to 64 MiB"):
        faults.check_room(tmp_path, network)


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
