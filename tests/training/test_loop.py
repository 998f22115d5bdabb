"""The loop: its optimisers, rates, best epoch, precision, resume, and what stops it."""

import math

import pytest
import torch
from torch.nn import functional as F

from common.config import LevelConfig, TrainConfig
from common.runtime import Runtime
from common.training import Trainer, checkpoint
from common.training.loop import build_optimizer
from common.training.schedules import SCHEDULES, build_schedule
from common.utils.errors import UserError
from helpers.networks import built, fitted, quick, small_network, small_splits


def config(**train) -> LevelConfig:
    return LevelConfig(train=quick(**train))


def test_one_step_is_the_gradient_of_the_mean_cross_entropy():
    network = small_network(["c", "head"], normalised=False)
    trainer = built(network, small_splits(), config(optimizer="sgd", lr=0.1))
    features, targets = next(trainer.train.epoch(0))
    network.train()
    weight = network.head.classify.weight.detach().clone()
    logits = network.forward_suffix(features)
    chance = logits.softmax(1) - F.one_hot(targets, 3)
    pooled = network.run(features, ["c"]).taps["c"]
    gradient = chance.T @ pooled / len(targets)
    trainer.step(0, features, targets)
    # the first step with Nesterov momentum 0.9 from rest is 1.9 gradients
    torch.testing.assert_close(network.head.classify.weight, weight - 0.1 * 1.9 * gradient)


def test_gradients_do_not_pile_up():
    network = small_network()
    trainer = built(network, small_splits(), config(optimizer="sgd", lr=1e-9))
    features, targets = next(trainer.train.epoch(0))
    norms = []
    for step in range(3):
        trainer.step(step, features, targets)
        norms.append(network.head.classify.weight.grad.norm())
    torch.testing.assert_close(norms[2], norms[0])


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_each_optimizer_learns(name, tmp_path):
    lr = 0.05 if name == "sgd" else 0.02
    settings = config(epochs=8, optimizer=name, lr=lr)
    history = fitted(small_network(["c", "head"]), small_splits(), settings, tmp_path)
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    assert history[-1]["val_accuracy"] > 0.5


def test_weight_decay_is_decoupled_for_adamw_alone():
    for name, moved in (("adamw", 1 - 0.1 * 0.5), ("sgd", 1 - 0.1 * 0.5 * 1.9)):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = build_optimizer([weight], TrainConfig(optimizer=name, lr=0.1, weight_decay=0.5))
        weight.grad = torch.zeros(3)
        optimizer.step()
        torch.testing.assert_close(weight.detach(), torch.full((3,), moved))


def test_label_smoothing_and_clipping():
    network = small_network()
    trainer = built(network, small_splits(), config(label_smoothing=0.3, clip_norm=0.01))
    features, targets = next(trainer.train.epoch(0))
    logits = network.forward_suffix(features)
    target = 0.7 * F.one_hot(targets, 3) + 0.1
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    loss, _ = trainer.step(0, features, targets)
    torch.testing.assert_close(loss, expected.detach())
    norm = torch.stack([p.grad.norm() for p in trainer.parameters]).norm()
    torch.testing.assert_close(norm, torch.tensor(0.01), rtol=1e-3, atol=0)


def test_best_epoch_is_the_first_with_the_highest_val_accuracy(tmp_path, monkeypatch):
    accuracies = iter([0.2, 0.6, 0.5, 0.6])
    states = {}

    def epoch(trainer, number):
        with torch.no_grad():
            trainer.network.head.classify.bias.fill_(number)
        states[number] = trainer.network.head.classify.bias.clone()
        score = {"train_loss": 1, "train_accuracy": 0, "val_loss": 1, "seconds": 0, "lr": 1}
        return {"epoch": number, "val_accuracy": next(accuracies), **score}

    monkeypatch.setattr(Trainer, "epoch", epoch)
    network = small_network()
    fitted(network, small_splits(), config(epochs=4), tmp_path)
    assert torch.equal(network.head.classify.bias, states[2])
    assert checkpoint.load(tmp_path / "best.pt")["epoch"] == 2


def test_early_stopping(tmp_path):
    settings = config(epochs=9, lr=1e-9, early_stopping=2)
    history = fitted(small_network(), small_splits(), settings, tmp_path)
    assert len(history) == 3


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_history_counts_correct_over_seen(precision, tmp_path):
    runtime = Runtime(torch.device("cpu"), precision)
    network, data = small_network(["c", "head"]), small_splits()
    history = fitted(network, data, config(lr=1e-9, epochs=1), tmp_path, runtime)
    assert round(history[0]["train_accuracy"] * 30, 9) % 1 == 0  # a 30th: 8 + 8 + 8 + 6 pictures
    assert history[0]["train_loss"] < 5
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path):
    network = small_network()
    with torch.no_grad():
        network.head.classify.weight.fill_(
            1e30
        )  # the first update overflows, if the start does not
    with pytest.raises(UserError, match=r"not finite at epoch 1, step [1-4]: lower train.lr"):
        fitted(network, small_splits(), config(lr=1e38), tmp_path)
    assert not (tmp_path / "best.pt").exists()


def test_a_runs_folder_is_made_with_those_above_it(tmp_path):
    folder = tmp_path / "data" / "level"
    fitted(small_network(), small_splits(), config(epochs=1), folder)
    assert (folder / "best.pt").exists()


def test_pictures_a_second_are_those_of_training(monkeypatch):
    """By a clock that goes on by two seconds at each look: training is between the first two."""
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr("common.training.loop.time.perf_counter", lambda: next(clock))
    entry = built(small_network(), small_splits(30), config()).epoch(1)
    assert entry["pictures_per_second"] == 15 and entry["seconds"] == 4


def test_batch_norm_on_one_processor_needs_no_word(caplog):
    caplog.set_level("INFO", "rungs")
    built(small_network(["c", "head"]), small_splits(), config())
    assert not caplog.records


def test_resume_ends_where_an_uninterrupted_run_ends(tmp_path, monkeypatch):
    def run(folder, resume):
        settings = config(epochs=4, lr=0.01, schedule="cosine")
        settings.augment, settings.resume = ["flip", "crop"], resume
        network = small_network(["c", "head"], taps=("b", "c"))
        network.head.dropout = torch.nn.Dropout(0.5)
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


def test_resume_refuses_another_config(tmp_path):
    fitted(small_network(), small_splits(), config(epochs=1), tmp_path)
    changed = config(epochs=2, lr=0.5)
    changed.resume = True
    with pytest.raises(UserError, match="made with other train.epochs, train.lr"):
        fitted(small_network(), small_splits(), changed, tmp_path)


def test_batches_of_one_are_refused_where_batch_norm_trains():
    built(small_network(["head"], normalised=False), small_splits(), config(batch_size=1))
    for network in (small_network(), small_network(["c", "head"], normalised=False)):
        with pytest.raises(UserError, match="at least 2 pictures"):
            built(network, small_splits(), config(batch_size=1))


def test_the_head_has_its_own_rate():
    settings = {"optimizer": "sgd", "lr": 0.01, "schedule": {"cosine": {"layer_decay": 0.5}}}
    rates = []
    for head_lr in (None, 0.2):
        trainer = built(
            small_network(["b", "c", "head"]), small_splits(), config(**settings, head_lr=head_lr)
        )
        trainer.step(0, *next(trainer.train.epoch(0)))
        rates.append({g["part"]: g["lr"] for g in trainer.optimizer.param_groups})
    assert rates[0] == {"head": 0.01, "c": 0.005, "b": 0.0025}
    assert rates[1] == {"head": 0.2, "c": 0.005, "b": 0.0025}


def test_checkpoints_are_whole_or_absent(tmp_path):
    path = tmp_path / "best.pt"
    checkpoint.save(path, {"network": {}, "epoch": 1})
    with pytest.raises(Exception, match="pickle|Can't get|lambda"):
        checkpoint.save(path, {"network": lambda: 0})
    assert checkpoint.load(path) == {"network": {}, "epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="not a readable checkpoint"):
        checkpoint.load(path)


def test_schedules_at_their_corners():
    at = {name: build_schedule(name, 100) for name in SCHEDULES}
    assert [at["constant"](s) for s in (0, 50, 99)] == [1, 1, 1]
    assert at["cosine"](0) == 1 and math.isclose(at["cosine"](50), 0.5)
    assert at["cosine"](99) < 0.001
    assert math.isclose(at["one_cycle"](0), 0.04) and at["one_cycle"](30) == 1
    assert math.isclose(at["one_cycle"](65), 0.5)
    warm = build_schedule({"cosine": {"warmup": 0.1, "final": 0.2}}, 100)
    assert math.isclose(warm(0), 1 / 11) and warm(10) == 1 and math.isclose(warm(100), 0.2)


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ("cosin", "did you mean 'cosine'"),
        ({"cosine": {"warm": 0.1}}, "did you mean 'warmup'"),
        ({"cosine": {"warmup": 3}}, "warmup must be a number from 0 to 1, not '3'"),
    ],
)
def test_wrong_schedules(schedule, says):
    with pytest.raises(UserError, match=says):
        build_schedule(schedule, 10)


def test_the_rate_moves_as_configured():
    trainer = built(small_network(), small_splits(), config(schedule="cosine", lr=0.2))
    features, targets = next(trainer.train.epoch(0))
    for step in (0, 3, 7):
        trainer.step(step, features, targets)
        expected = 0.2 * (1 + math.cos(math.pi * step / 8)) / 2
        assert math.isclose(trainer.optimizer.param_groups[0]["lr"], expected)


def test_a_run_that_goes_on_from_another_level_has_orders_and_views_of_its_own():
    """The level below has seen its own: they would come again in the first epochs."""
    data, batches = small_splits(), []
    for start in (None, "level3_fusion", "level3_fusion"):
        config = LevelConfig(augment=["crop"], train=quick())
        config.network.start_from = start
        train = built(small_network(["c", "head"]), data, config).train.batches
        batches.append((train.order(1), train.batch(torch.arange(8), epoch=1)[0]))
    (order, views), (other, others), (again, same) = batches
    assert not all(torch.equal(a, b) for a, b in zip(order, other, strict=True))
    assert not torch.equal(views, others)
    assert all(torch.equal(a, b) for a, b in zip(other, again, strict=True))
    assert torch.equal(others, same)
