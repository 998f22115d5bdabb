"""Stages, taps and heads; frozen means frozen; the prefix and its folded copy are the network."""

import os
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn
from torchvision import models

from common.config import LevelConfig, NetworkConfig
from common.data import Batches
from common.models import Classifier, FeatureBatches, Trunk, as_map, trunk
from common.models.backbones import Backbone
from common.models.staged import average, state_hash
from common.utils.errors import UserError
from helpers.networks import CPU, built, fitted, quick, small_network, small_splits
from level3_fusion.fusion_head import FusionHead, halving_convolution, way_down
from level3_fusion.run import build_network


@pytest.mark.parametrize("trainable", [["head"], ["c", "head"], ["a", "head"], ["b"]])
def test_what_is_named_trains_and_nothing_else_changes(trainable, tmp_path):
    network = small_network(trainable)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    hashed = network.frozen_hash()
    config = LevelConfig(train=quick(lr=0.01))
    fitted(network, small_splits(), config, tmp_path)
    assert network.frozen_hash() == hashed
    for key, value in network.state_dict().items():
        part = key.removeprefix("stages.").split(".")[0]
        if part not in trainable:
            assert torch.equal(value, before[key]), key
        elif value.is_floating_point():
            assert not torch.equal(value, before[key]), key


def test_frozen_hash_sees_parameters_and_buffers():
    network = small_network(["c", "head"])
    hashes = {network.frozen_hash()}
    network.stages["a"][1].running_mean[0] += 1e-3
    hashes.add(network.frozen_hash())
    with torch.no_grad():
        network.stages["b"][0].weight[0, 0, 0, 0] += 1e-3
    hashes.add(network.frozen_hash())
    assert len(hashes) == 3
    with torch.no_grad():
        network.stages["c"][0].weight.zero_()
    assert network.frozen_hash() in hashes


def test_train_mode_is_for_what_trains():
    network = small_network(["b", "head"])
    network.train()
    modes = {name: part.training for name, part in network.parts()}
    assert modes == {"a": False, "b": True, "c": False, "head": True}
    network.eval()
    assert not any(part.training for _, part in network.parts())


def test_frozen_batch_norm_stays_in_a_stage_that_trains(tmp_path):
    network = small_network(["c", "head"], normalised=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    train = quick(lr=0.1, freeze_batch_norm=True, batch_size=1)  # one picture is enough, then
    fitted(network, small_splits(), LevelConfig(train=train), tmp_path)
    moved = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    assert moved == {"stages.c.0.weight", "head.classify.weight", "head.classify.bias"}
    network.train()
    assert network.stages["c"].training and not network.stages["c"][1].training


def test_gradients_reach_a_trainable_stage_through_a_frozen_one():
    network = small_network(["b", "head"])
    network(torch.randn(4, 3, 8, 8)).sum().backward()
    grads = {n: any(p.grad is not None for p in part.parameters()) for n, part in network.parts()}
    assert grads == {"a": False, "b": True, "c": False, "head": True}


def test_unknown_stage():
    with pytest.raises(UserError, match="no stage 'hed'; did you mean 'head'"):
        small_network(["hed"])


@pytest.mark.parametrize("trainable", [["head"], ["c", "head"], ["b", "c", "head"], ["a"]])
@pytest.mark.parametrize("fast", [True, False])
def test_trunk_and_suffix_are_the_network(trainable, fast):
    network = small_network(trainable, taps=("b", "c")).eval()
    images = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        whole = plain_forward(network, images)
        split = network.forward_suffix(Trunk(network, replace(CPU, fast=fast))(images))
    assert (whole - split).abs().max() <= 1e-5 * whole.abs().max()
    assert (whole - network(images)).abs().max() <= 1e-6


def plain_forward(network, images):
    """The stages one by one, as one would write it down."""
    a = network.stages["a"](images)
    b = network.stages["b"](a)
    c = network.stages["c"](b)
    return network.head(b.mean((2, 3)), c.mean((2, 3)))


def test_trunk_leaves_the_network_alone():
    network = small_network(["head"])
    hashed = network.frozen_hash()
    Trunk(network, CPU)(torch.randn(2, 3, 8, 8))
    assert network.frozen_hash() == hashed
    assert isinstance(network.stages["a"][1], nn.BatchNorm2d)


def test_features_are_computed_once_where_they_repeat():
    data, config = small_splits(), LevelConfig(train=quick())
    trainer = built(small_network(), data, config)
    passes = count_calls(trainer.val.trunk)
    kept = [list(trainer.val.epoch()) for _ in range(3)]
    assert len(passes) == 2  # 15 val pictures in batches of 8
    fresh = FeatureBatches(trainer.val.batches, Trunk(trainer.network, CPU))
    for (old, old_labels), (new, new_labels) in zip(kept[2], fresh.epoch(), strict=True):
        assert torch.equal(old.taps["c"], new.taps["c"])
        assert torch.equal(old_labels, new_labels)


def test_features_follow_the_shuffled_order():
    data, config = small_splits(), LevelConfig(train=quick())
    stream = built(small_network(), data, config).train
    calls = count_calls(stream.trunk)
    list(stream.epoch())
    assert len(calls) == 4  # 30 pictures in batches of 8: kept
    for epoch in (0, 1):
        pictures = list(stream.batches.epoch(epoch))
        for (features, labels), (images, own) in zip(stream.epoch(epoch), pictures, strict=True):
            torch.testing.assert_close(features.taps["c"], stream.trunk(images).taps["c"])
            assert torch.equal(labels, own)


def test_augmented_features_are_not_kept():
    config = LevelConfig(train=quick(), augment=["crop"])
    stream = built(small_network(), small_splits(), config).train
    list(stream.epoch())
    assert not any(stream.held.values())


def test_what_training_kept_serves_any_part_of_it_later(monkeypatch):
    data, config = small_splits(), LevelConfig(train=quick())
    trainer = built(small_network(), data, config)
    trainer.epoch(1)
    trunk = trainer.val.trunk
    some = data.train.subset(torch.tensor([3, 4, 20]))
    calls = count_calls(trunk)
    batches = Batches(some, trainer.network.weights, 8, CPU)
    ((features, labels),) = FeatureBatches(batches, trunk).epoch()
    assert not calls and torch.equal(labels, some.labels)
    expected = trunk(batches.batch(torch.arange(3))[0])
    torch.testing.assert_close(features.taps["c"], expected.taps["c"])
    test = Batches(data.test, trainer.network.weights, 8, CPU)
    list(FeatureBatches(test, trunk).epoch())
    assert len(calls) == 3  # of which nothing was kept


def test_a_test_time_view_is_not_taken_from_what_was_kept():
    data, config = small_splits(), LevelConfig(train=quick())
    trainer = built(small_network(), data, config)
    list(trainer.val.epoch())
    mirror = Batches(data.val, trainer.network.weights, 8, CPU, lambda images, _: images.flip(3))
    ((features, _), *_) = FeatureBatches(mirror, trainer.val.trunk).epoch()
    plain = trainer.val.held[0].features.taps["c"][:8]
    assert not torch.allclose(features.taps["c"], plain, atol=1e-3)


def test_features_too_large_for_the_memory_are_computed_anew(monkeypatch):
    monkeypatch.setattr(trunk, "free_memory", lambda device: 100)
    trainer = built(small_network(), small_splits(), LevelConfig(train=quick()))
    first, second = (list(trainer.val.epoch()) for _ in range(2))
    assert not any(trainer.val.held.values())
    assert torch.equal(first[0][0].taps["c"], second[0][0].taps["c"])


def test_free_memory_where_there_is_no_unix(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=12345))
    assert trunk.free_memory(CPU.device) == 12345


def test_groups_of_pictures_give_what_the_batch_gives(monkeypatch):
    network, images = small_network(["c", "head"], taps=("a", "b", "c")), torch.randn(7, 3, 8, 8)
    whole = Trunk(network, CPU)(images)
    for group in ((3, 2**19), (32, 150)):  # 3 and 2 at a time
        monkeypatch.setattr(trunk, "GROUP", group)
        parts = Trunk(network, CPU)(images)
        torch.testing.assert_close(parts.x, whole.x)
        assert parts.x.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(parts.taps, whole.taps)


def count_calls(trunk: Trunk) -> list:
    calls, stages = [], trunk.stages["a"]
    stages.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_level3_reads_three_stages_by_two_blocks():
    """The head written out, and its maps taken from the stages one by one."""
    taps = ["layer4", "layer2", "layer3"]  # in any order
    config = LevelConfig(network=NetworkConfig(weights="none", taps=taps))
    network = build_network(config, 10).eval()
    images, maps = torch.randn(2, 3, 64, 64), {}
    with torch.no_grad():
        x = images
        for name, stage in network.stages.items():
            x = maps[name] = stage(x)
        head, stages = network.head, network.stages
        for block, stage in zip(head.blocks, (stages["layer3"], stages["layer4"]), strict=True):
            for key, value in stage[0].state_dict().items():
                assert torch.equal(block[0].state_dict()[key], value), "begins as the stage does"
        x = stages["layer3"][0](maps["layer2"])
        x = stages["layer4"][0]((x + maps["layer3"]) / 2)
        assert x.shape == maps["layer4"].shape
        both = [x.mean((2, 3)), x.amax((2, 3))]
        both += [maps["layer4"].mean((2, 3)), maps["layer4"].amax((2, 3))]
        normalised = torch.cat(both, 1) / (1 + 1e-5) ** 0.5  # a new batch norm: mean 0, variance 1
        torch.testing.assert_close(network(images), head.classifier.classify(normalised))


def test_fusion_head_trains_in_all_parts_and_apart_from_the_stages():
    network = build_network(LevelConfig(network=NetworkConfig(weights="none")), 10)
    before = network.frozen_hash()
    network.train()(torch.randn(8, 3, 64, 64)).square().sum().backward()
    for name, parameter in network.head.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in network.stages.parameters())
    assert network.frozen_hash() == before


def test_the_way_down_copies_a_deeper_resnets_blocks():
    network = models.resnet50()
    stages = {f"layer{i}": getattr(network, f"layer{i}") for i in (2, 3, 4)}
    backbone = Backbone(stages, {"layer2": 512, "layer3": 1024, "layer4": 2048}, None)
    way = way_down(backbone, "layer2", "layer4")
    assert way(torch.randn(2, 512, 8, 8)).shape == (2, 2048, 2, 2)
    assert way[0] is not stages["layer3"][0]
    assert torch.equal(way[1].conv3.weight, stages["layer4"][0].conv3.weight)


@pytest.mark.parametrize("sides", [(7, 4, 2), (14, 14, 14), (1, 1, 1), (5, 2, 3)])
def test_fusion_head_takes_maps_that_do_not_halve(sides):
    maps = [torch.randn(3, 4, side, side) for side in sides]
    blocks = [halving_convolution(4, 4) for _ in range(2)]
    assert FusionHead(blocks, 4, 2).eval()(*maps).shape == (3, 2)
    assert FusionHead(blocks[:1], 4, 2).eval()(*maps[:2]).shape == (3, 2)


@pytest.mark.parametrize(
    ("arch", "taps"),
    [
        ("resnet18", ["layer2", "layer4"]),
        ("resnet18", ["stem", "layer1", "layer3"]),
        ("efficientnet_v2_s", ["stage3", "stage5", "top"]),
        ("densenet121", ["block2", "block4"]),
        ("vit_b_16", ["blocks1", "blocks4"]),
        ("cnn_small", ["block1", "dense"]),
    ],
)
def test_fusion_head_reads_any_stages_of_any_network(arch, taps):
    own = NetworkConfig(arch=arch, weights="none", taps=taps, image_size=64)
    network = build_network(LevelConfig(network=own), 5).eval()
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_a_map_is_kept_once():
    """The input of the first stage that trains, where the head reads it, too."""
    network = build_network(
        LevelConfig(network=NetworkConfig(weights="none", trainable=["layer4", "head"])), 10
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = Trunk(network, CPU)(images)
        assert [*features.taps] == ["layer2"] and features.x.shape == (2, 256, 4, 4)
        torch.testing.assert_close(network.forward_suffix(features), network(images))


def test_a_single_tap_at_level3_is_level2s_network():
    config = LevelConfig(network=NetworkConfig(weights="none", taps=["layer4"]))
    network = build_network(config, 10)
    assert isinstance(network.head, Classifier) and network.pool is average


def test_pooling_of_maps_tokens_and_vectors():
    maps, tokens, vectors = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 3), torch.randn(2, 3)
    assert torch.equal(average(maps), maps.mean((2, 3)))
    assert torch.equal(average(tokens), tokens[:, 0]) and average(vectors) is vectors
    tokens = torch.randn(2, 1 + 4, 3)
    assert as_map(maps) is maps and as_map(vectors).shape == (2, 3, 1, 1)
    assert as_map(tokens).shape == (2, 3, 2, 2)
    assert torch.equal(as_map(tokens)[:, :, 1, 0], tokens[:, 1 + 2])


def test_a_classifier_is_blind_to_the_scale_of_its_input():
    head, x = Classifier([8], 3), torch.randn(32, 8)
    with torch.no_grad():
        torch.testing.assert_close(head(1000 * x + 7), head(x), rtol=1e-3, atol=1e-3)
    plain = Classifier([8], 3, normalised=False)
    assert [*plain.state_dict()] == ["classify.weight", "classify.bias"]
    assert not torch.allclose(plain(1000 * x), plain(x))


def test_a_hash_tells_names_and_values():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    names = nn.ModuleDict({"a": first, "b": second}), nn.ModuleDict({"a": first, "c": second})
    assert state_hash(names[0]) != state_hash(names[1]), "the same numbers by other names"
    assert state_hash(names[0], {"a.weight"}) == state_hash(names[1], {"a.weight"})
    before = state_hash(first)
    first.bias.data[0] += 1
    assert state_hash(first) != before


@pytest.mark.parametrize(("side", "half"), [(8, 4), (7, 4), (1, 1)])
def test_a_halving_convolution_halves(side, half):
    halved = halving_convolution(3, 5).eval()(torch.ones(2, 3, side, side))
    assert halved.shape == (2, 5, half, half)
