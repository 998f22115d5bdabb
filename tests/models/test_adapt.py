"""Batch norm's statistics estimated anew on training pictures."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from common.config import NetworkConfig
from common.data import Batches
from common.models.adapt import adapt_batch_norm, batch_norm_statistics, pictures_to_adapt
from common.models.staged import batch_norms
from common.runtime import Processes
from helpers.networks import CPU, small_network, small_splits


def test_statistics_are_those_of_the_pictures():
    """One batch: mean and variance of what reaches each batch norm, computed apart."""
    network, data = small_network().eval(), small_splits()
    adapt_batch_norm(network, data, 30, CPU)
    x, _ = Batches(data.train, network.weights, 30, CPU).batch(torch.arange(30))
    with torch.no_grad():
        for stage in network.stages.values():
            conv, norm, relu = stage
            x = conv(x)
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
            torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)
            spread = (x.var((0, 2, 3), unbiased=False) + norm.eps).sqrt().view(-1, 1, 1)
            x = relu(
                (x - mean.view(-1, 1, 1)) / spread * norm.weight.view(-1, 1, 1)
                + norm.bias.view(-1, 1, 1)
            )


def test_nothing_but_statistics_changes_and_twice_is_the_same():
    network, data = small_network(["c", "head"]).train(), small_splits()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = {k: v.clone() for k, v in adapt_batch_norm(network, data, 20, CPU).items()}
    moved = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    assert moved and moved <= set(first) == set(batch_norm_statistics(network))
    assert network.stages["c"].training and not network.stages["a"].training
    assert all(norm.momentum == 0.1 for norm in batch_norms(network.stages))
    torch.rand(3)  # no draw of anybody's matters
    again = adapt_batch_norm(network, data, 20, CPU)
    assert all(torch.equal(again[key], first[key]) for key in first)
    fewer = adapt_batch_norm(network, data, 10, CPU)
    assert any(not torch.equal(fewer[key], first[key]) for key in first)


@pytest.mark.parametrize("batch", [10, 12, 29])
def test_each_picture_counts_alike(batch, monkeypatch):
    """The mean over all pictures, also where the last batch is short; no moving average."""
    monkeypatch.setattr("common.models.adapt.BATCH", batch)
    network, data = small_network().eval(), small_splits()
    adapt_batch_norm(network, data, 30, CPU)
    conv, norm, _ = network.stages["a"]
    x, _ = Batches(data.train, network.weights, 30, CPU).batch(torch.arange(30))
    torch.testing.assert_close(norm.running_mean, conv(x).mean((0, 2, 3)))
    parts = [part.var((0, 2, 3)) * len(part) / 30 for part in conv(x).split(batch)]
    if batch == 10:
        torch.testing.assert_close(norm.running_var, torch.stack(parts).sum(0))


def test_a_network_without_batch_norm_is_left_alone():
    network = small_network()
    network.stages = nn.ModuleDict({"a": nn.Conv2d(3, 8, 3)})
    network.taps = ("a",)
    assert adapt_batch_norm(network, small_splits(), 20, CPU) == {}


@pytest.mark.parametrize(
    ("weights", "asked", "count"),
    [
        ("tiny-imagenet", "auto", 7680),
        ("imagenet", "auto", 0),
        ("mine.pth", "auto", 0),
        ("tiny-imagenet", 0, 0),
        ("none", 200, 200),
    ],
)
def test_auto_is_what_was_found_for_the_weights(weights, asked, count):
    config = NetworkConfig(weights=weights, adapt_batch_norm=asked)
    assert pictures_to_adapt(config, small_splits(10_000)) == count
    assert pictures_to_adapt(config, small_splits(30)) == min(count, 30), "as many as there are"


def test_what_is_left_out_by_chance_in_training_is_not_left_out_here():
    """Stages with stochastic depth, or dropout: only batch norm is in training."""
    found = []
    for share in (0.0, 0.9):
        network, data = small_network(["b", "c", "head"]).train(), small_splits()
        network.stages["b"].append(StochasticDepth(share, "row"))
        found.append(adapt_batch_norm(network, data, 30, CPU))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_each_of_several_processes_takes_all_pictures():
    found = []
    for processes in (Processes(), Processes(rank=1, world=2)):
        runtime = replace(CPU, processes=processes)
        found.append(adapt_batch_norm(small_network(), small_splits(), 30, runtime))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
