"""A network stage by stage: its figures are right, and it is left as it was."""

import pytest
import torch
import torchinfo
from torch import nn

from common.config import NetworkConfig
from common.models import Classifier, StagedNetwork, build_backbone
from common.models.staged import state_hash
from common.models.weights import PUBLISHED
from common.reports.summary import network_rows, network_summary
from helpers.networks import small_network
from helpers.reports import leave, titled_tables


def network_of(arch, size, trainable=("head",), classes=1000):
    backbone = build_backbone(NetworkConfig(arch, "none", image_size=size))
    last = list(backbone.stages)[-1]
    head = Classifier([backbone.channels[last]], classes)
    return StagedNetwork(backbone, head, list(trainable), [last])


@pytest.mark.parametrize(
    ("arch", "size"), [("resnet18", 224), ("vit_b_16", 224), ("densenet121", 224)]
)
def test_multiply_adds_and_parameters_are_those_that_are_published(arch, size):
    known = PUBLISHED[arch].meta
    rows = network_rows(network_of(arch, size), size)
    assert sum(row["multiply_adds"] for row in rows) / 1e9 == pytest.approx(known["_ops"], rel=0.01)
    assert sum(row["parameters"] for row in rows) == known["num_params"]


def test_rows_say_shape_and_what_trains():
    network = network_of("resnet18", 64, trainable=("layer4", "head"), classes=10)
    rows = network_rows(network, 64)
    assert [row["name"] for row in rows] == [*network.stages, "head"]
    assert [row["output"] for row in rows] == [
        *([64, 16, 16], [64, 16, 16], [128, 8, 8]),
        *([256, 4, 4], [512, 2, 2], [10]),
    ]
    assert [row["trains"] for row in rows] == [False] * 4 + [True] * 2
    for row, (_, part) in zip(rows, network.parts(), strict=True):
        assert row["parameters"] == sum(p.numel() for p in part.parameters())
        assert row["trained_parameters"] == row["parameters"] * row["trains"]
    total = torchinfo.summary(network, (1, 3, 64, 64), verbose=0).total_mult_adds
    assert sum(row["multiply_adds"] for row in rows) == pytest.approx(total, rel=1e-3)


def test_batch_norm_that_does_not_train_is_left_out_of_what_trains():
    network = small_network(["c", "head"], size=16)
    network.freeze_batch_norm()
    row = network_rows(network, 16)[2]
    norm = sum(p.numel() for p in network.stages["c"][1].parameters())
    assert row["trains"] and row["trained_parameters"] == row["parameters"] - norm


def test_network_and_random_numbers_are_left_as_they_were():
    network = small_network(["c", "head"], size=16)
    network.stages["b"].append(nn.Dropout())
    network.train()
    before = state_hash(network), torch.get_rng_state()
    modes = [module.training for module in network.modules()]
    trained = [p.requires_grad for p in network.parameters()]
    fused = torch.backends.mha.get_fastpath_enabled()
    network_rows(network, 16)
    network_summary(network, 16)
    assert state_hash(network) == before[0] and torch.equal(torch.get_rng_state(), before[1])
    assert [module.training for module in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == trained
    assert torch.backends.mha.get_fastpath_enabled() == fused
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("arch", ["resnet18", "vit_b_16"])
def test_the_text_is_torchinfos_and_can_be_read(arch):
    network = network_of(arch, 64, classes=10)
    lines = network_summary(network, 64).splitlines()
    assert max(map(len, lines)) <= 100
    said = {row["name"]: row for row in network_rows(network, 64)}
    for name in network.stages:
        (line,) = [line for line in lines if f"({name})" in line]
        assert f"({said[name]['parameters']:,})" in line and line.endswith("False")
        assert f"{said[name]['multiply_adds']:,}" in line
    total = sum(row["multiply_adds"] for row in said.values())
    unit = 1e9 if arch == "vit_b_16" else 1e6
    assert f"Total mult-adds ({'G' if unit == 1e9 else 'M'}): {total / unit:.2f}" in lines


def test_a_report_shows_the_rows_where_it_has_them(tmp_path):
    rows = network_rows(small_network(["c", "head"], size=16), 16)
    leave(tmp_path, "new", lambda m: m | {"network": rows})
    table = titled_tables((tmp_path / "new" / "report.md").read_text("utf-8"))["The network"]
    assert [row["stage"] for row in table] == ["a", "b", "c", "head", "all"]
    assert [row["what trains"] for row in table[:4]] == ["frozen", "frozen", "trains", "trains"]
    assert table[0]["output"] == "4 × 8 × 8"
    total = sum(row["parameters"] for row in rows)
    assert int(table[-1]["parameters"].replace(",", "")) == total

    leave(tmp_path, "old")
    assert "The network" not in (tmp_path / "old" / "report.md").read_text("utf-8")
