"""What a network sees: class-activation maps, stage maps, filters and last features."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.config import NetworkConfig
from common.evaluation import gradcam
from common.models import Classifier, StagedNetwork, build_backbone
from common.models.staged import average
from helpers.networks import Means, small_backbone, small_network


def images(count=3, size=16):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def staged(arch, size=32, tap=None):
    torch.manual_seed(0)
    backbone = build_backbone(NetworkConfig(arch, "none", image_size=size))
    tap = tap or list(backbone.stages)[-1]
    head = Classifier([backbone.channels[tap]], 5)
    return StagedNetwork(backbone, head, ["head"], [tap]).eval()


def test_with_a_linear_head_it_is_the_weighted_sum_of_the_channels():
    """Zhou et al., 2016: what Grad-CAM becomes where a linear layer reads the mean of a map."""
    network = small_network(["head"], ("c",), size=16).eval()
    with torch.no_grad():
        x = images()
        for stage in network.stages.values():
            x = stage(x)
        weights = network.head.classify.weight
        logits = network(images())
        expected = torch.einsum("bchw,bc->bhw", x, weights[logits.argmax(1)]).relu()
    maps, seen = gradcam.activation_maps(network, images())
    assert maps.shape == (3, 2, 2) and torch.equal(seen, logits)
    assert torch.allclose(maps, expected / expected.amax((1, 2), keepdim=True).clamp_min(1e-12))


def test_taps_are_added_at_the_size_of_the_largest():
    network = small_network(["head"], ("b", "c"), size=16).eval()
    classes = torch.tensor([2, 0, 1])
    maps, _ = gradcam.activation_maps(network, images(), classes)
    with torch.no_grad():
        x, total = images(), 0
        weights = network.head.classify.weight[classes].split([6, 8], 1)
        for name, stage in network.stages.items():
            x = stage(x)
            if name in ("b", "c"):
                own = weights[name == "c"] / x[0, 0].numel()  # a mean's gradient
                part = torch.einsum("bchw,bc->bhw", x, own).relu()
                total = total + F.interpolate(part[:, None], (4, 4), mode="bilinear")[:, 0]
    assert torch.allclose(maps, total / total.amax((1, 2), keepdim=True).clamp_min(1e-12))


def test_where_the_head_reads_no_map_the_gradient_comes_from_further_up():
    network = staged("alexnet")
    maps, logits = gradcam.activation_maps(network, images(2, 32))
    kept = {}

    def keep(_, __, output):
        kept["x"] = output
        output.retain_grad()

    network.requires_grad_(True)
    network.stages["block2"].register_forward_hook(keep)
    with torch.enable_grad():
        x = images(2, 32)
        for stage in network.stages.values():
            x = stage(x)
        network.head(average(x)).gather(1, logits.argmax(1)[:, None]).sum().backward()
    grads = kept["x"].grad.mean((2, 3), keepdim=True)
    expected = (kept["x"].detach() * grads).sum(1).relu()
    expected = expected / expected.amax((1, 2), keepdim=True).clamp_min(1e-12)
    assert maps.shape == expected.shape and torch.allclose(maps, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "size", "shape"),
    [("vit_b_16", 48, (3, 3)), ("mlp", 32, None), ("vgg13", 32, (2, 2)), ("cnn_small", 32, (8, 8))],
)
def test_every_network_is_looked_at_where_it_has_places(arch, size, shape):
    maps, logits = gradcam.activation_maps(staged(arch, size), images(2, size))
    assert logits.shape == (2, 5)
    assert maps is None if shape is None else maps.shape == (2, *shape)
    assert maps is None or (maps.min() >= 0 and maps.max() <= 1)


def test_what_is_lit_is_where_the_picture_is():
    """Convolutions without bias give nothing for black: only the corner with a picture counts."""
    torch.manual_seed(0)
    backbone = small_network(size=32)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
            module.bias.data.zero_()
    picture = torch.zeros(1, 3, 32, 32)
    picture[..., :8, :8] = images(1, 8)
    for label in range(3):
        maps, _ = gradcam.activation_maps(backbone, picture, torch.tensor([label]))
        assert maps[0, 2:].max() == 0 and maps[0, :, 2:].max() == 0


def test_the_network_is_left_as_it_was():
    network = small_network(["c", "head"], size=16).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    gradcam.activation_maps(network, images())
    gradcam.penultimate(network, images())
    gradcam.stage_maps(network, images()[0])
    assert network.training and network.stages["c"].training and not network.stages["a"].training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_stage_maps_are_the_most_active_channels():
    network = small_network(size=16).eval()
    found = gradcam.stage_maps(network, images()[0], count=3)
    assert {name: tuple(maps.shape) for name, maps in found.items()} == {
        **{"a": (3, 8, 8), "b": (3, 4, 4), "c": (3, 2, 2)}
    }
    with torch.no_grad():
        output = network.stages["a"](images()[:1])[0]
    assert torch.equal(found["a"][0], output[output.mean((1, 2)).argmax()])


def test_a_head_without_a_linear_layer_has_no_last_features():
    network = StagedNetwork(small_backbone(16), Means(), ["c"], ["c"])
    assert gradcam.penultimate(network, images()) is None
    maps, logits = gradcam.activation_maps(network, images())
    assert maps.shape == (3, 2, 2) and logits.shape == (3, 3)


def test_filters_and_last_features():
    network = small_network(size=16).eval()
    assert torch.equal(gradcam.first_filters(network), network.stages["a"][0].weight)
    assert gradcam.first_filters(staged("mlp")) is None
    features = gradcam.penultimate(network, images())
    with torch.no_grad():
        assert torch.allclose(network.head.classify(features), network(images()))
