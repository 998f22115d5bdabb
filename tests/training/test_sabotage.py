"""Controls of the proof that a killed run loses nothing: whatever of its state is lost, shows."""

import json
import shutil

import numpy as np
import pytest
import torch

from common.config import LevelConfig
from common.data import Batches
from common.evaluation import evaluate
from common.models import Trunk
from common.runtime import Runtime
from common.training import checkpoint, fit, progress
from common.training.loop import Trainer
from common.training.progress import Progress
from common.training.schedules import Schedule
from common.utils.files import npz
from common.verify_resume import outcome
from helpers.networks import quick, small_network, small_splits

NAME, KILLED = "level1_small", 4  # epochs that were whole when it was killed
PLATEAU = {"plateau": {"patience": 1, "factor": 0.5}}
KINDS = {  # optimiser, schedule, precision
    "adam": ("adam", PLATEAU, torch.float32),
    "sgd": ("sgd", "cosine", torch.float32),
    "float16": ("adamw", PLATEAU, torch.float16),
}


def lived(place, kind, resume=False):
    """Train, test and report, in a project of its own; what `--verify-resume` compares of it."""
    optimizer, schedule, dtype = KINDS[kind]
    train = quick(epochs=6, lr=0.03, optimizer=optimizer, ema=0.9, schedule=schedule)
    config = LevelConfig(train=train, seed=3, resume=resume, augment=["flip", "crop"])
    network, data = small_network(["b", "c", "head"]), small_splits()
    data.val.labels[::3] = (data.val.labels[::3] + 1) % 3  # what is learned makes these worse
    trunk = Trunk(network, Runtime(torch.device("cpu"), dtype))
    history = fit(network, data, config, trunk, place / "runs/small" / NAME)
    results, report = evaluate(network, data, config, trunk), place / "reports" / NAME
    metrics = {part: getattr(results, part).score() for part in ("train", "val", "test")}
    metrics |= {"test_single": results.test_single.score(), "detail": {}}
    metrics["best_epoch"] = progress.best_epoch(history)["epoch"]
    report.mkdir(parents=True)
    for name, content in {"metrics": metrics, "history": history}.items():
        (report / f"{name}.json").write_text(json.dumps(content))
    arrays = {"logits": results.test.logits.numpy(), "labels": np.asarray(results.test.labels)}
    (report / "predictions.npz").write_bytes(npz(**arrays))
    return outcome(place, NAME), history


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """By kind: the outcome of a run that nothing stopped, and what a kill would have left of it."""
    found = {}
    for kind in KINDS:
        place, save = tmp_path_factory.mktemp(kind), Progress.save

        def save_and_keep(self, history, folder, place=place, save=save):
            save(self, history, folder)
            if len(history) == KILLED:
                shutil.copytree(folder, place / "killed")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Progress, "save", save_and_keep)
            found[kind] = *lived(place / "whole", kind), place / "killed"
    return found


def resumed(whole, kind, place, spoil=lambda content: None):
    """The outcome of a run that is resumed from a checkpoint in which something is spoiled."""
    folder = place / "runs/small" / NAME
    shutil.copytree(whole[kind][2], folder)
    content = checkpoint.load(folder / "last.pt")
    spoil(content)
    checkpoint.save(folder / "last.pt", content)
    return lived(place, kind, resume=True)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_of_its_state_it_is_the_same(whole, kind, tmp_path):
    found, history, _ = whole[kind]
    assert resumed(whole, kind, tmp_path) == found
    assert history[KILLED]["lr"] < history[0]["lr"], "the schedule had lowered it"


def moment(key):
    """Forget a moment of each parameter, or its count of steps."""

    def spoil(content):
        for state in content["optimizer"]["state"].values():
            state[key].zero_()

    return spoil


def of_one_parameter(content):
    content["optimizer"]["state"].popitem()


def tensor(part, ending):
    """Spoil the first of a network's or an average's tensors of this name."""

    def spoil(content):
        state = content["network"] if part == "network" else content["ema"]["mean"]
        name = next(name for name in state if name.endswith(ending))
        state[name] += 1

    return spoil


def value(*keys):
    """Forget a number."""

    def spoil(content):
        *path, last = keys
        for key in path:
            content = content[key]
        assert content[last]
        content[last] = type(content[last])()

    return spoil


SPOILED = [
    *[("adam", name, moment(name)) for name in ("exp_avg", "exp_avg_sq", "step")],
    ("sgd", "momentum", moment("momentum_buffer")),
    ("adam", "one parameter's moments", of_one_parameter),
    ("adam", "betas", lambda content: content["optimizer"]["param_groups"][0].update(betas=(0, 0))),
    ("adam", "weight", tensor("network", "c.0.weight")),
    ("adam", "statistics of a frozen stage", tensor("network", "a.1.running_mean")),
    ("adam", "statistics of a stage that trains", tensor("network", "c.1.running_var")),
    ("adam", "count of a stage that trains", tensor("network", "c.1.num_batches_tracked")),
    ("adam", "average", tensor("ema", "c.0.weight")),
    ("adam", "average's statistics", tensor("ema", "c.1.running_mean")),
    ("adam", "average's steps", value("ema", "steps")),
    ("float16", "scale", lambda content: content["scaler"].update(scale=1024.0)),
    ("float16", "steps since the scale grew", value("scaler", "_growth_tracker")),
    ("adam", "an epoch of the history", lambda content: content["history"].pop()),
    ("adam", "val loss of an epoch", lambda content: content["history"][1].update(val_loss=0.0)),
]


@pytest.mark.parametrize(("kind", "spoil"), [pytest.param(k, s, id=n) for k, n, s in SPOILED])
def test_whatever_is_lost_of_a_checkpoint_shows(whole, kind, spoil, tmp_path):
    assert resumed(whole, kind, tmp_path, spoil) != whole[kind][0]


def test_each_part_of_a_checkpoint_is_among_those(whole):
    """But for facts of the run, which a resumed one checks or computes anew."""
    content = checkpoint.load(whole["adam"][2] / "last.pt")
    assert {"network", "optimizer", "scaler", "ema", "history"} == {
        key for key, part in content.items() if isinstance(part, dict | list)
    } - {"settings", "classes"}
    state = content["optimizer"]["state"].values()
    assert {name for part in state for name in part} == {"exp_avg", "exp_avg_sq", "step"}
    assert content["ema"].keys() == {"steps", "mean"}


def order(self, epoch, order=Batches.order):
    return order(self, epoch - KILLED)


def step(self, step, *batch, take=Trainer.step):
    return take(self, step % len(self.sizes), *batch)


@pytest.mark.parametrize(
    ("kind", "where", "name", "instead"),
    [
        pytest.param("adam", Schedule, "see", lambda self, history: None, id="plateau"),
        pytest.param("adam", progress, "best_epoch", lambda history: history[-1], id="best epoch"),
        pytest.param("adam", Batches, "order", order, id="epoch, in the order of pictures"),
        pytest.param("sgd", Trainer, "step", step, id="step, in the rate"),
    ],
)
def test_what_a_resumed_run_forgets_to_work_out_shows(
    whole, kind, where, name, instead, tmp_path, monkeypatch
):
    monkeypatch.setattr(where, name, instead)
    assert resumed(whole, kind, tmp_path) != whole[kind][0]
