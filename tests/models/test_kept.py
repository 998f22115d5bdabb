"""Augmented views, and what the frozen stages make of pictures, kept while they come again."""

import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.config import LevelConfig
from common.data import Batches, build_augmentation
from common.models import trunk
from common.models.staged import Features
from common.models.trunk import FeatureBatches, Trunk
from common.runtime import Runtime
from common.utils.errors import UserError
from helpers.networks import CPU, built, fitted, quick, small_network, small_splits

PLAIN = Runtime(torch.device("cpu"), torch.float32, fast=False)
AUGMENT = ["flip", "crop", {"jitter": {"hue": 0.1}}]


def stream(data, views, runtime=CPU, augment=AUGMENT, folder=None, trainable=("c", "head")):
    network = small_network(list(trainable))
    transform = build_augmentation(augment, mirror=True)
    batches = Batches(data.train, network.weights, 8, runtime, transform, 0, views)
    return FeatureBatches(batches, Trunk(network, runtime), folder)


def seen(epoch):
    """Features, taps and labels of an epoch, in its order."""
    parts = [(features.x, labels) for features, labels in epoch]
    return torch.cat([x for x, _ in parts]), torch.cat([labels for _, labels in parts])


@pytest.mark.parametrize("augment", [AUGMENT, ["mixup", "cutmix"]])
def test_epochs_take_the_views_in_turn(augment):
    """Epoch 4 of 3 views: the pictures as epoch 1 augmented them, in an order of their own."""
    data = small_splits()
    kept, new = stream(data, 3, augment=augment), stream(data, None, augment=augment)
    for epoch in (1, 2, 3, 4, 6):
        view = (epoch - 1) % 3 + 1
        order, first = (torch.cat(new.batches.order(e)) for e in (epoch, view))
        assert epoch == view or not torch.equal(order, first)
        place = torch.empty_like(first)
        place[first] = torch.arange(len(first))  # where each picture stood in the view's epoch
        x, labels = seen(new.epoch(view))
        own_x, own_labels = seen(kept.epoch(epoch))
        assert torch.equal(own_x, x[place[order]]) and torch.equal(own_labels, labels[place[order]])


def test_kept_features_are_those_of_the_pictures_of_the_plain_way():
    data = small_splits()
    for epoch in (1, 3, 4):
        fast, plain = (seen(stream(data, 2, runtime).epoch(epoch)) for runtime in (CPU, PLAIN))
        torch.testing.assert_close(fast[0], plain[0], rtol=1e-5, atol=1e-5)
        assert torch.equal(fast[1], plain[1])


def test_a_view_goes_through_the_trunk_once():
    kept = stream(small_splits(), 2)
    calls, run = [], kept.trunk._run
    kept.trunk._run = lambda images: calls.append(len(images)) or run(images)
    for epoch in range(1, 7):
        list(kept.epoch(epoch))
    assert sum(calls) == 2 * 30


def test_as_many_views_as_epochs_are_todays_augmentation(tmp_path):
    states = []
    for views in (None, 3, 7):
        config = LevelConfig(train=quick(epochs=3, views=views), augment=AUGMENT)
        network = small_network(["c", "head"])
        history = fitted(network, small_splits(), config, tmp_path / str(views))
        figures = [{k: v for k, v in e.items() if "second" not in k} for e in history]
        states.append((figures, network.state_dict()))
    for figures, state in states[1:]:
        assert figures == states[0][0]
        assert all(torch.equal(value, states[0][1][key]) for key, value in state.items())


def test_fewer_views_are_another_training(tmp_path):
    losses = []
    for views in (None, 1):
        config = LevelConfig(train=quick(epochs=3, views=views), augment=AUGMENT)
        history = fitted(small_network(["c"]), small_splits(), config, tmp_path / str(views))
        losses.append([e["train_loss"] for e in history])
    assert losses[0][0] == losses[1][0] and losses[0][1] != losses[1][1]


def test_nothing_is_kept_of_pictures_that_come_once():
    data, network = small_splits(), small_network(["c", "head"])
    trunk = Trunk(network, CPU)
    batches = Batches(data.train, network.weights, 8, CPU)
    list(FeatureBatches(batches, trunk, epochs=1).epoch())
    assert not trunk.kept and trunk.kept_bytes == 0


def test_what_is_kept_is_counted():
    data, network = small_splits(), small_network(["c", "head"])
    trunk = Trunk(network, CPU)
    batches = FeatureBatches(Batches(data.train, network.weights, 8, CPU), trunk, epochs=3)
    list(batches.epoch(1))
    list(batches.epoch(2))
    kept = [part for part in batches.held.values() if part]
    assert trunk.kept_bytes == sum(part.features.nbytes for part in kept) > 0


def test_a_view_that_does_not_come_again_is_not_kept():
    data = small_splits()
    every, some = stream(data, 2), stream(data, 2)
    some.epochs = 3
    for epoch in (1, 2, 3):
        for a, b in zip(seen(every.epoch(epoch)), seen(some.epoch(epoch)), strict=True):
            assert torch.equal(a, b)
    assert every.held[1] and every.held[2] and some.held[1] and some.held[2] is None


def test_a_refusal_is_remembered(monkeypatch):
    monkeypatch.setattr(trunk, "free_memory", lambda device: 100)
    kept = stream(small_splits(), 2)
    asked, room = [], trunk.room
    monkeypatch.setattr(trunk, "room", lambda *a: asked.append(a) or room(*a))
    for epoch in range(1, 7):
        list(kept.epoch(epoch))
    assert len(asked) == 2 and kept.held == {1: None, 2: None}


def test_pictures_of_an_earlier_view_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr("common.data.loader.free_memory", lambda device: 100)
    batches = stream(small_splits(), 1, PLAIN)
    with pytest.raises(UserError, match=r"train\.views: .*GiB, over half of what is free"):
        next(batches.epoch(1))
    list(stream(small_splits(), None, PLAIN).epoch(1))


def test_what_is_too_large_for_memory_goes_to_a_file_that_leaves_nothing(tmp_path, monkeypatch):
    data = small_splits()
    expected = [seen(stream(data, 2).epoch(epoch)) for epoch in (1, 2, 3)]
    monkeypatch.setattr(trunk, "free_memory", lambda device: 100)
    kept = stream(data, 2, folder=tmp_path)
    found = [seen(kept.epoch(epoch)) for epoch in (1, 2, 3)]
    assert len(kept.held) == 2
    for (x, labels), (own_x, own_labels) in zip(expected, found, strict=True):
        assert torch.equal(x, own_x) and torch.equal(labels, own_labels)
    assert list(tmp_path.iterdir()) == []


def test_the_file_lies_in_the_folder_for_it(tmp_path, monkeypatch):
    """Where the run is: the system's folder for such files may be small, or in memory."""
    monkeypatch.setattr(trunk, "free_memory", lambda device: 100)
    places, create = [], trunk.tempfile.NamedTemporaryFile

    def spy(**how):
        places.append(Path(how["dir"]))
        return create(**how)

    monkeypatch.setattr(trunk.tempfile, "NamedTemporaryFile", spy)
    list(stream(small_splits(), 2, folder=tmp_path).epoch(1))
    assert places == [tmp_path]


@pytest.mark.parametrize(("free", "kept"), [(2.0, True), (1.999, False)])
def test_features_may_take_half_of_what_is_free(free, kept, monkeypatch):
    part = Features(torch.zeros(2, 5), {"a": torch.zeros(2, 3)})
    need = 4 * (5 + 3) * 9
    monkeypatch.setattr(trunk, "free_memory", lambda device: int(free * need))
    assert (trunk.room(part, 9, None) is not None) == kept


def test_the_file_may_take_half_of_the_disk(tmp_path, monkeypatch):
    part = Features(torch.zeros(2, 5), {})
    need = 4 * 5 * 9
    monkeypatch.setattr(trunk, "free_memory", lambda device: 0)
    for free, kept in ((2 * need + 2, True), (2 * need, False)):
        usage = types.SimpleNamespace(free=free)
        monkeypatch.setattr(trunk.shutil, "disk_usage", lambda folder, usage=usage: usage)
        found = trunk.room(part, 9, tmp_path)
        assert (found is not None) == kept
        assert found is None or found.x.shape == (9, 5)


def test_stages_that_are_compiled_are_those_of_the_trunk(monkeypatch):
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **how: compiled.append((self, how))
    )
    made = Trunk(small_network(["c", "head"]), replace(CPU, compile=True))
    assert compiled == [(stage, {"dynamic": False}) for stage in made.stages.values()]
    assert list(made.stages) == ["a", "b"]


def test_where_there_is_no_room_at_all_each_epoch_computes_its_view(monkeypatch):
    data = small_splits()
    expected = seen(stream(data, 2).epoch(3))
    monkeypatch.setattr(trunk, "free_memory", lambda device: 100)
    kept = stream(data, 2)
    found = seen(kept.epoch(3))
    torch.testing.assert_close(found[0], expected[0])
    assert torch.equal(found[1], expected[1]) and not any(kept.held.values())


def test_alternating_flips_show_both_sides_in_two_epochs():
    data = small_splits()
    batches = stream(data, None, augment=[{"flip": {"alternate": True}}]).batches
    plain = Batches(data.train, batches.spec, 30, CPU).batch(torch.arange(30))[0]
    mirrored = {}
    for epoch in (1, 2, 3):
        for positions, (images, _) in zip(batches.order(epoch), batches.epoch(epoch), strict=True):
            for position, image in zip(positions.tolist(), images, strict=True):
                same = torch.equal(image, plain[position])
                assert same or torch.equal(image, plain[position].flip(2))
                mirrored[epoch, position] = not same
    sides = [[mirrored[epoch, p] for p in range(30)] for epoch in (1, 2, 3)]
    assert sides[0] == sides[2] and sides[1] == [not side for side in sides[0]]
    assert 5 < sum(sides[0]) < 25


def test_where_a_mirrored_picture_is_another_one_nothing_alternates():
    assert not build_augmentation([{"flip": {"alternate": True}}], mirror=False).alternates


def test_resumed_in_the_middle_it_goes_on_to_the_same_bits(tmp_path):
    config = LevelConfig(train=quick(epochs=5, views=2), augment=AUGMENT)
    whole, killed = small_network(["c", "head"]), small_network(["c", "head"])
    history = fitted(whole, small_splits(), config, tmp_path / "whole")
    data = small_splits()
    trainer = built(killed, data, config)
    for epoch in (1, 2, 3):
        entry = trainer.epoch(epoch)
        trainer.progress.save([*history[: epoch - 1], entry], tmp_path)
    config.resume = True
    again = small_network(["c", "head"])
    fitted(again, data, config, tmp_path)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
