"""Backbones: their stages are torchvision's own, and what follows from the weights."""

import pytest
import torch
import torchvision

from common.config import NetworkConfig
from common.models import Classifier, StagedNetwork, input_size
from helpers.networks import build, torchvision_network


@pytest.fixture(scope="module")
def reference():
    return torchvision_network()


@pytest.fixture(scope="module")
def state(reference):
    return reference.state_dict()


# ---- the stages ----


def test_stages_are_torchvisions_own(reference, state, tmp_path):
    """Stages, pooling and a linear head that carries torchvision's: its logits to 1e-6."""
    torch.save(state, tmp_path / "w.pth")
    backbone = build(tmp_path / "w.pth")
    assert list(backbone.stages) == ["stem", "layer1", "layer2", "layer3", "layer4"]
    head = Classifier([backbone.channels["layer4"]], 7, normalised=False)
    head.classify.load_state_dict({"weight": state["fc.weight"], "bias": state["fc.bias"]})
    network = StagedNetwork(backbone, head, trainable=["head"], taps=["layer4"]).eval()
    images = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, logits = reference(images), network(images)
    assert expected.std() > 0.1 and logits.shape == (4, 7)
    assert (logits - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_channels_are_what_the_stages_give():
    backbone = build()
    x = torch.zeros(1, 3, 64, 64)
    sides = []
    for name, stage in backbone.stages.items():
        x = stage(x)
        assert x.shape[1] == backbone.channels[name]
        sides.append(x.shape[2])
    assert sides == [16, 16, 8, 4, 2]


# ---- what follows from the weights ----


@pytest.mark.parametrize(
    ("weights", "size"),
    [("imagenet", 224), ("tiny-imagenet", 64), ("none", 32), ("some/file.pth", 224)],
)
def test_image_size_follows_the_weights(weights, size):
    assert input_size(NetworkConfig(weights=weights)) == size
    assert input_size(NetworkConfig(weights=weights, image_size=100)) == 100


def test_size_and_normalisation_in_the_weights(state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    published = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    for weights, size in (("none", 32), ("tiny-imagenet", 64), (tmp_path / "w.pth", 224)):
        found = build(weights).weights
        assert found.image_size == size
        assert list(found.mean) == published.mean == [0.485, 0.456, 0.406]
        assert list(found.std) == published.std == [0.229, 0.224, 0.225]
    assert published.crop_size == [224], "imagenet's default size is torchvision's"
    assert build("none", image_size=48).weights.image_size == 48
