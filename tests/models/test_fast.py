"""The fast way gives the plain way's logits, for every shipped network; and what turns it off."""

import shutil
from dataclasses import replace

import pytest
import torch

from common import levels
from common.config import TrainConfig, load_config
from common.models import Trunk
from common.runtime import start_runtime
from common.utils.errors import UserError
from helpers.networks import CPU, small_network
from helpers.projects import NAMES, PROJECT
from helpers.shipped import TRANSFER

PLAIN = replace(CPU, fast=False)


def logits(network, machine, images):
    """Through the trunk and what follows it, as a run computes them."""
    features = Trunk(network, machine)(images)
    with torch.no_grad(), machine.arithmetic():
        return network.forward_suffix(features)


@pytest.mark.parametrize("file", TRANSFER, ids=lambda f: str(f.relative_to(PROJECT)))
@pytest.mark.parametrize("size", [32, 64])
def test_in_float32_every_level_and_ablation_is_exact_to_1e_5(file, size):
    """With the folded trunk, in groups, and small maps by matrix products."""
    config = load_config(file, ["--network.weights=tiny-imagenet", f"--network.image_size={size}"])
    torch.manual_seed(0)
    level = next(parent for parent in file.parents if parent.name.startswith("level"))
    network = levels.load_module(level).build_network(config, 10).eval()
    images = torch.randn(67, 3, size, size)
    plain, fast = (logits(network, machine, images) for machine in (PLAIN, CPU))
    with torch.no_grad():
        assert torch.equal(plain, network(images)), "the plain way is the network's own forward"
    assert plain.std() > 0.01
    assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()
    assert not torch.equal(fast, plain), "nothing fast was done"


def test_fast_false_folds_keeps_groups_and_compiles_nothing():
    machine = start_runtime(TrainConfig(precision="float32", device="cpu", compile=True), False)
    assert machine == replace(PLAIN, compile=False)
    network = small_network(["c", "head"])
    assert Trunk(network, machine).stages is network.stages


def test_compilation_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"train.compile: no C\+\+ compiler here; install g\+\+"):
        start_runtime(TrainConfig(device="cpu", compile=True))
    assert not start_runtime(TrainConfig(device="cpu")).compile


@pytest.mark.slow
def test_a_compiled_run_is_the_same_run():
    config = load_config(PROJECT / NAMES[2] / "config.yaml", ["--offline"])
    torch.manual_seed(0)
    network = levels.load_module(PROJECT / NAMES[2]).build_network(config, 10).eval()
    images = torch.randn(5, 3, 64, 64)
    compiled = replace(CPU, compile=True)
    features = Trunk(network, compiled)(images)
    with torch.no_grad(), compiled.arithmetic():
        seen = compiled.compiled(network.forward_suffix)(features)
    plain = logits(network, PLAIN, images)
    assert (seen - plain).abs().max() <= 1e-5 * plain.abs().max()
