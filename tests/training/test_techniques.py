"""Techniques of the loop: plateau, layer-wise decay, gradual unfreezing, averaged weights."""

import pytest
import torch

from common.config import LevelConfig
from common.training import Trainer, checkpoint
from common.training.ema import EMA
from common.training.schedules import build_schedule
from common.utils.errors import UserError
from helpers.networks import built, fitted, quick, small_network, small_splits


def config(**train) -> LevelConfig:
    return LevelConfig(train=quick(**train))


def test_a_plateau_falls_by_what_val_loss_did():
    rate = build_schedule({"plateau": {"factor": 0.5, "patience": 2}}, 100)
    history, factors = [], []
    for loss in (1.0, 0.9, 0.95, 0.9, 0.91, 0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86):
        rate.see(history)
        factors.append(rate(0))
        history.append({"val_loss": loss})
    rate.see(history)
    # no better than 0.9 in three epochs, then than 0.8 in three, and three more
    assert [*factors, rate(0)] == [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]


def test_an_epoch_without_a_figure_is_no_best_one():
    schedule = build_schedule({"plateau": {"patience": 1, "factor": 0.5}}, 10)
    for losses, factor in (([1.0, float("nan"), 0.9], 1), ([1.0, float("nan"), 1.1], 0.5)):
        schedule.see([{"val_loss": loss} for loss in losses])
        assert schedule(0) == factor


def test_each_stage_learns_at_a_share_of_the_one_above():
    network = small_network(["b", "c", "head"])
    settings = config(lr=0.1, schedule={"constant": {"layer_decay": 0.5}}, optimizer="sgd")
    trainer = built(network, small_splits(), settings)
    trainer.step(0, *next(trainer.train.epoch(1)))
    rates = {}
    for group in trainer.optimizer.param_groups:
        for name, parameter in network.named_parameters():
            if any(parameter is p for p in group["params"]):
                rates[name.split(".")[0] if "head" in name else name.split(".")[1]] = group["lr"]
    assert rates == {"head": 0.1, "c": 0.05, "b": 0.025}


def test_gradual_unfreezing_moves_one_stage_more_an_epoch():
    network = small_network(["b", "c", "head"])
    settings = config(epochs=3, lr=0.05, schedule="gradual")
    trainer = built(network, small_splits(), settings)
    moved = []
    for epoch in (1, 2, 3):
        before = {key: value.clone() for key, value in network.state_dict().items()}
        trainer.epoch(epoch)
        after = network.state_dict()
        changed = {
            key.split(".")[-3 if "head" in key else 1]
            for key in after
            if not torch.equal(before[key], after[key])
        }
        moved.append(changed)
    assert moved == [{"head"}, {"c", "head"}, {"b", "c", "head"}], "batch statistics included"
    every_other = build_schedule({"gradual": {"epochs": 2}}, 10)
    assert [every_other.unfrozen(["b", "c", "head"], e) for e in (2, 3)] == [
        ["head"],
        ["c", "head"],
    ]


def test_the_average_is_the_moving_average(tmp_path):
    network = small_network(["c", "head"])
    trainer = built(network, small_splits(), config(lr=0.05, ema=0.5))
    mean = network.head.classify.weight.detach().clone()
    for step, (features, targets) in enumerate(trainer.train.epoch(1)):
        network.train()
        trainer.step(step, features, targets)
        decay = min(0.5, (2 + step) / (11 + step))
        mean = decay * mean + (1 - decay) * network.head.classify.weight.detach()
    live = network.head.classify.weight.detach().clone()
    with trainer.ema.in_place():
        torch.testing.assert_close(network.head.classify.weight.detach(), mean)
        assert not torch.allclose(mean, live)
    assert torch.equal(network.head.classify.weight.detach(), live)
    kept = set(trainer.ema.live)
    assert "stages.c.1.running_mean" in kept and not any(key.startswith("stages.b") for key in kept)
    assert not EMA(network, None).live


def test_what_is_scored_and_saved_is_the_average(tmp_path):
    network = small_network(["c", "head"])
    history = fitted(network, small_splits(), config(epochs=3, lr=0.05, ema=0.9), tmp_path)
    best = checkpoint.load(tmp_path / "best.pt")["network"]["head.classify.weight"]
    last = checkpoint.load(tmp_path / "last.pt")
    assert not torch.allclose(best, last["network"]["head.classify.weight"])
    if max(history, key=lambda e: (e["val_accuracy"], -e["epoch"]))["epoch"] == 3:
        torch.testing.assert_close(best, last["ema"]["mean"]["head.classify.weight"])


@pytest.mark.parametrize(
    "train",
    [
        {"schedule": {"plateau": {"patience": 1, "factor": 0.2}}},
        {"schedule": {"gradual": {"layer_decay": 0.5}}, "ema": 0.8},
        {"schedule": "one_cycle", "ema": 0.95, "optimizer": "sgd"},
    ],
)
def test_resume_is_exact_with_each(train, tmp_path, monkeypatch):
    def run(folder, resume):
        settings = config(epochs=4, lr=0.03, **train)
        settings.augment, settings.resume = ["mixup"], resume
        network = small_network(["b", "c", "head"])
        history = fitted(network, small_splits(), settings, folder)
        return network.state_dict(), [
            {**e, "seconds": 0, "pictures_per_second": 0} for e in history
        ]

    whole, history = run(tmp_path / "whole", resume=False)
    epoch = Trainer.epoch

    def interrupted(trainer, number):
        if number == 3:
            raise KeyboardInterrupt
        return epoch(trainer, number)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "epoch", interrupted)
        run(tmp_path / "parts", resume=False)
    resumed, resumed_history = run(tmp_path / "parts", resume=True)
    assert resumed_history == history
    assert all(torch.equal(value, whole[key]) for key, value in resumed.items())


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ({"plateau": {"patience": 0}}, "patience must be a whole number from 1 to"),
        ({"plateau": {"factor": 2}}, "factor must be a number from 0 to 1"),
        ({"gradual": {"epochs": 1.5}}, "epochs must be a whole number from 1 to"),
        ({"constant": {"layer_decay": -1}}, "layer_decay must be a number from 0 to 1"),
        ({"constant": {"decay": 0.5}}, "did you mean 'layer_decay'"),
    ],
)
def test_wrong_schedules(schedule, says):
    with pytest.raises(UserError, match=says):
        build_schedule(schedule, 10)
