"""Several processes at one run: the same curve and pictures, and an end when one of them ends.

They are real ones, started by torchrun, and meet by gloo on the CPU.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

from common import cli
from common.config import LevelConfig
from common.config.ended import DONE
from common.data import Batches
from common.runtime import Processes, Runtime
from common.training import checkpoint
from common.training.place import KEEP
from common.utils.errors import UserError
from common.verify_resume import outcome
from helpers.networks import built, quick, small_network, small_splits
from helpers.projects import NAMES, PROJECT, copy_project

# 135 training pictures: four batches of 33, of which no two processes have the same share, and
# one of 3, of which one has a single picture
TINY = ["--offline", "--data.limit=169", "--train.epochs=3", "--train.batch_size=33"]
TINY += ["--network.image_size=32", "--train.precision=float32", "--train.threads=1"]
TINY += ["--audit=false"]
FROZEN = "--train.freeze_batch_norm=true"
GRADUAL = [FROZEN, "--train.schedule=gradual", "--train.ema=0.9", "--augment=[crop,mixup]"]


def torchrun(project, count, *arguments, restarts=0):
    """A process that starts `count` others, in `project`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", f"--max-restarts={restarts}", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), KEEP: "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=project, env=environment, **pipes)


def finished(run):
    """Its output; it must end well."""
    text, _ = run.communicate(timeout=300)
    assert run.returncode == 0, text
    return text


def by_itself(project, *arguments):
    """A single process, which has imported nothing of another copy of the project."""
    command = [sys.executable, *map(str, arguments)]
    subprocess.run(command, cwd=project, env=os.environ | {KEEP: "1"}, check=True)


def unnormalised(place, *options):
    """A copy of the project whose heads do not go by a batch's statistics."""
    project = copy_project(place, *TINY, *options)
    none = "nn.Identity()"
    for file, norm, instead in (
        ("level3_fusion/fusion_head.py", "isinstance(first, RESIDUAL)", "False"),
        ("level3_fusion/fusion_head.py", "nn.BatchNorm2d(outputs)", none),
        ("common/models/staged.py", "nn.BatchNorm1d(count, affine=False)", none),
    ):
        text = (project / file).read_text(encoding="utf-8")
        assert text.count(norm) == 1
        (project / file).write_text(text.replace(norm, instead), encoding="utf-8")
    return project


def curve(project, level):
    path = project / "runs/digits" / level / "history.json"
    return json.loads(path.read_text(encoding="utf-8"))


def same_curve(one, two, keys=("train_loss", "val_loss")):
    assert len(one) == len(two) == 3
    for a, b in zip(one, two, strict=True):
        assert [a[key] for key in keys] == pytest.approx([b[key] for key in keys], rel=1e-4)
    return [(e["train_accuracy"], e["val_accuracy"]) for e in one + two]


# ---- one process's result ----


@pytest.mark.parametrize(
    ("level", "options"),
    [
        pytest.param(NAMES[0], [], marks=pytest.mark.slow, id="level1"),
        pytest.param(NAMES[2], [FROZEN], marks=pytest.mark.slow, id="level3"),
        pytest.param(NAMES[1], GRADUAL, marks=pytest.mark.slow, id="gradual"),
    ],
)
def test_two_processes_have_ones_loss_curve(tmp_path, level, options):
    alone, two = (unnormalised(tmp_path / name, *options) for name in ("alone", "two"))
    by_itself(alone, f"{level}/run.py", *TINY, *options)
    text = finished(torchrun(two, 2, f"{level}/run.py", *TINY, *options))
    accuracies = same_curve(curve(alone, level), curve(two, level))
    assert accuracies[:3] == accuracies[3:] and len(set(accuracies)) > 1
    assert text.count("cpu, float32, 2 processes") == text.count("epoch 3/3") == 1, "one speaks"
    reports = [p / "runs/digits/reports" / level / "metrics.json" for p in (alone, two)]
    a, b = (json.loads(path.read_text(encoding="utf-8")) for path in reports)
    for part in ("train", "val", "test"):
        assert a[part]["total"] == b[part]["total"]
        assert a[part]["loss"] == pytest.approx(b[part]["loss"], rel=1e-4)
        assert a[part]["correct"] == b[part]["correct"]
    assert (a["machine"]["processes"], b["machine"]["processes"]) == (1, 2)
    assert b["command"].startswith(f"torchrun --nproc-per-node 2 {level}/run.py --offline")


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    level, script = NAMES[1], [f"{NAMES[1]}/run.py", *TINY, FROZEN]
    whole, project = (unnormalised(tmp_path / name, FROZEN) for name in ("whole", "project"))
    by_itself(whole, *script)
    last, states = project / "runs/digits" / level / "last.pt", []
    for count, options in [(3, []), (3, ["--resume"]), (2, ["--resume"])]:
        text = finished(torchrun(project, count, *script, *options))
        assert ("resumed after epoch 2" in text) == bool(options)
        content = checkpoint.load(last)
        same_curve(content["history"], curve(whole, level))
        states.append({key: content[key] for key in ("network", "optimizer")})
        earlier = checkpoint.load(checkpoint.previous(last))  # go on from an epoch less
        assert len(earlier["history"]) == 2
        checkpoint.save(last, earlier)
        last.with_name(DONE).unlink()  # as if it had been stopped there
    assert checkpoint.digest(states[0]) == checkpoint.digest(states[1]), "resumed, the same bits"
    one = checkpoint.load(whole / "runs/digits" / level / "last.pt")["network"]
    for name, value in states[2]["network"].items():
        assert torch.allclose(value, one[name], rtol=1e-3, atol=1e-5), name


UNTIL = """
import os, runpy, sys
sys.path.insert(0, os.getcwd())
from common.training.progress import Progress
until, save, sys.argv = int(sys.argv[1]), Progress.save, sys.argv[2:]
def save_and_end(self, history, folder):
    save(self, history, folder)
    if len(history) == until:
        self.processes.barrier()
        os._exit(0)
Progress.save = save_and_end
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_two_processes_then_one_then_two_have_ones_loss_curve(tmp_path):
    level, script = NAMES[1], [f"{NAMES[1]}/run.py", *TINY, *GRADUAL]
    whole, project = (unnormalised(tmp_path / name, *GRADUAL) for name in ("whole", "project"))
    by_itself(whole, *script)
    until = tmp_path / "until.py"
    until.write_text(UNTIL)
    finished(torchrun(project, 2, until, 1, *script))
    by_itself(project, until, 2, *script, "--resume")
    assert "resumed after epoch 2" in finished(torchrun(project, 2, *script, "--resume"))
    accuracies = same_curve(curve(project, level), curve(whole, level))
    assert accuracies[:3] == accuracies[3:]
    states = [checkpoint.load(p / "runs/digits" / level / "last.pt") for p in (project, whole)]
    for part in ("network", "ema"):
        one, two = (state[part].get("mean", state[part]) for state in states)
        for name, value in one.items():
            assert torch.allclose(value, two[name], rtol=1e-3, atol=1e-5), name


# ---- who has which pictures ----


def of(world):
    return [Runtime(torch.device("cpu"), torch.float32, processes=Processes(r, world))
            for r in range(world)]  # fmt: skip


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("augment", [[], ["flip", "crop", "mixup"]])
def test_each_picture_once_an_epoch_with_the_same_draws(world, augment):
    config = LevelConfig(augment=augment, train=quick(batch_size=11))
    data, weights = small_splits(), small_network(["head"]).weights
    whole = built(small_network(["head"]), data, config).train.batches
    transform = whole.transform
    shares = [Batches(data.train, weights, 11, runtime, transform, 0) for runtime in of(world)]
    for epoch in (1, 2):
        positions = whole.order(epoch)
        assert torch.equal(torch.cat(positions).sort().values, torch.arange(len(data.train)))
        for batch, parts in zip(whole.epoch(epoch), zip(*(s.epoch(epoch) for s in shares),
                                strict=True), strict=True):  # fmt: skip
            sizes = [len(Processes(rank, world).shard(len(batch[0]))) for rank in range(world)]
            assert sum(sizes) == len(batch[0]) and max(sizes) - min(sizes) <= 1
            assert sizes[0] == max(sizes), "whose batch statistics are kept, on a CPU"
            assert min(len(pictures) for pictures, _ in parts) >= 2
            for which in (0, 1):
                own = [part[which][:size] for part, size in zip(parts, sizes, strict=True)]
                assert torch.equal(torch.cat(own), batch[which])


def test_too_small_a_batch_is_refused():
    network, config = small_network(["head"]), LevelConfig(train=quick(batch_size=5))
    with pytest.raises(UserError, match="each of 3 processes needs at least 2 pictures a step"):
        built(network, small_splits(), config, of(3)[1])


def test_batch_norm_that_trains_is_synchronised_on_gpus():
    """Here without a GPU: which modules become what; the names in checkpoints stay."""
    network = small_network(["c", "head"])
    names, frozen = list(network.state_dict()), network.frozen_hash()
    network.synchronise_batch_norm()
    kinds = {name: [type(m) for m in part.modules()] for name, part in network.parts()}
    assert nn.SyncBatchNorm in kinds["c"] and nn.BatchNorm2d not in kinds["c"]
    assert nn.SyncBatchNorm not in kinds["a"] + kinds["b"]
    assert list(network.state_dict()) == names and network.frozen_hash() == frozen


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_exchanges(count, tmp_path):
    text = finished(torchrun(PROJECT, count, PROJECT / "tests/helpers/several.py", tmp_path))
    assert text.count("all as it should be") == count


# ---- what ends a run ----


def kill(run, rank, words):
    """The process of this rank, once the first one has printed the words."""
    seen = []
    while words not in (seen or [""])[-1]:
        seen.append(run.stdout.readline())
        assert run.poll() is None, "".join(seen)
    children = subprocess.run(["pgrep", "-P", str(run.pid)], capture_output=True, text=True)
    pids = {}
    for pid in map(int, children.stdout.split()):
        with open(f"/proc/{pid}/environ", "rb") as file:
            pids[int(re.search(rb"\0RANK=(\d+)", file.read())[1])] = pid
    assert sorted(pids) == [0, 1]
    os.kill(pids[rank], signal.SIGKILL)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_process_ends_the_others(tmp_path, rank):
    options = [*TINY, "--train.epochs=5000"]
    project = copy_project(tmp_path / "project", *options)
    run = torchrun(project, 2, f"{NAMES[0]}/run.py", *options)
    kill(run, rank, "epoch 2/5000")
    text, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    other = "" if rank == 1 else "process 1: "
    goes_on = "the same command with --resume goes on"
    lines = [line for line in text.splitlines() if goes_on in line]
    assert len(lines) == 1 and re.match(f"{other}(error: another process|stopped)", lines[0]), text
    content = checkpoint.load(project / "runs/digits" / NAMES[0] / "last.pt")
    assert len(content["history"]) >= 1, "and the last whole epoch is there"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_started_again_they_go_on_by_themselves(tmp_path, rank):
    options = [*TINY, "--train.epochs=8", "--reports=reports"]
    whole, project = (copy_project(tmp_path / name, *options) for name in ("whole", "project"))
    script = [f"{NAMES[0]}/run.py", *options]
    finished(torchrun(whole, 2, *script))
    for name in ("runs", "reports"):  # a finished run is there, which is not what they go on with
        shutil.copytree(whole / name, project / name)
    for again in project.glob("runs/*/*/last.pt"):
        os.utime(again, (0, 0))
    run = torchrun(project, 2, *script, "--anew", restarts=1)
    kill(run, rank, "epoch 3/8")
    text = finished(run)
    (epoch,) = re.findall(r"resumed after epoch (\d)", text)
    assert 2 <= int(epoch) < 8 and "epoch 8/8" in text
    assert outcome(project, NAMES[0]) == outcome(whole, NAMES[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--train.epohcs=3"], "unknown option '--train.epohcs'; did you mean 'train.epochs'"),
        pytest.param(["--network.weights=gone.pth"], "no file gone.pth", marks=pytest.mark.slow),
        pytest.param(
            ["--train.device=cuda:0"],
            "several processes take auto, cpu or cuda, not cuda:0",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--train.batch_size=3"],
            "each of 2 processes needs at least 2 pictures a step",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--ranks_lr"],
            "processes 0 and 1 differ in their options; give every machine the same",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["option", "weights", "device", "batch", "differ"],
)
def test_errors_are_said_once(tmp_path, arguments, words):
    project, ranks = copy_project(tmp_path / "project", *TINY), tmp_path / "ranks.py"
    ranks.write_text(
        "import os, runpy, sys\n"
        "lr = '0.1' if os.environ['RANK'] == '1' else '0.2'\n"
        "options = [o.replace('--ranks_lr', f'--train.lr={lr}') for o in sys.argv[1:]]\n"
        f"sys.argv = [{f'{NAMES[0]}/run.py'!r}, *options]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    run = torchrun(project, 2, ranks, *TINY, *arguments)
    text, _ = run.communicate(timeout=120)
    lines = [line for line in text.splitlines() if "error: " in line and "Error" not in line]
    assert run.returncode != 0 and words in lines[0], text
    assert [line for line in lines[1:] if "another process of this run" not in line] == [], text


def test_commands_for_one_process_say_so(monkeypatch, capsys):
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    line = "error: this command is for one process; torchrun is for a level's run.py\n"
    for rank, said in (("0", line), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        with pytest.raises(SystemExit) as stopped:
            cli.command(lambda: pytest.fail("it ran"))
        assert stopped.value.code == 2 and capsys.readouterr().err == said
