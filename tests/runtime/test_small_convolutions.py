"""Convolutions as matrix products: the convolution's own result and gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from common.runtime import small_convolutions
from common.runtime.small_convolutions import Product, SmallMaps, WholeMap

SHAPES = [  # channels, filters, side, kernel, stride, padding
    (5, 7, 2, 3, 1, 1),
    (5, 7, 4, 3, 2, 1),
    (4, 6, 1, 3, 1, 1),
    (3, 8, 9, 5, 2, 2),
    (3, 8, 6, 3, 3, 0),
    (6, 4, 5, 1, 2, 0),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_result_and_gradients(shape):
    channels, filters, side, kernel, stride, padding = shape
    torch.manual_seed(0)
    x = torch.randn(3, channels, side, side + 1).requires_grad_()
    weight = torch.randn(filters, channels, kernel, kernel).requires_grad_()
    expected = F.conv2d(x, weight, None, stride, padding)
    seen = Product.apply(x, weight, stride, padding)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(seen, expected)
    gradient = torch.randn_like(expected)
    pairs = (torch.autograd.grad(y, (x, weight), gradient) for y in (seen, expected))
    for own, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(own, plain)


@pytest.mark.parametrize("size", [(2, 2), (1, 2), (2, 1), (1, 1)])
def test_whole_maps(size):
    torch.manual_seed(0)
    x = torch.randn(3, 5, *size).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(7, 5, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    expected = F.conv2d(x, weight, None, 1, 1)
    seen = WholeMap.apply(x, weight)
    torch.testing.assert_close(seen, expected)
    gradient = torch.randn_like(expected)
    pairs = (torch.autograd.grad(y, (x, weight), gradient) for y in (seen, expected))
    for own, plain in zip(*pairs, strict=True):
        torch.testing.assert_close(own, plain)


@pytest.fixture
def products(monkeypatch):
    """Shapes and types of the weights that went through a product."""
    seen = []
    for kind in (small_convolutions.Product, small_convolutions.WholeMap):

        def spy(x, weight, *options, apply=kind.apply):
            seen.append((tuple(weight.shape), weight.dtype))
            return apply(x, weight, *options)

        monkeypatch.setattr(kind, "apply", spy)
    return seen


def test_a_small_map_under_autocast_is_a_product_of_bfloat16(products):
    conv = nn.Conv2d(4, 6, 3, padding=1)
    x = torch.randn(5, 4, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        plain = conv(x)
        with SmallMaps():
            seen = conv(x)
    assert products == [((6, 4, 3, 3), torch.bfloat16)]
    assert seen.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(seen, plain, atol=0.02, rtol=0.02)
    seen.float().sum().backward()
    assert conv.weight.grad.dtype == torch.float32 and conv.weight.grad.abs().sum() > 0
    torch.testing.assert_close(conv.bias.grad, torch.full((6,), 20.0))


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2),
        nn.Conv2d(4, 8, 3, padding="same"),
        nn.Conv2d(4, 8, 3, padding=1, stride=(1, 2)),
        nn.Conv2d(4, 8, (3, 1), padding=(1, 0)),
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"),
    ],
    ids=str,
)
def test_other_convolutions_are_left_as_they_are(conv, products):
    x = torch.randn(2, 4, 3, 3)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        plain = conv(x)
        with SmallMaps():
            assert torch.equal(conv(x), plain)
    assert not products


def test_other_types_and_large_maps_are_left_as_they_are(products):
    conv = nn.Conv2d(4, 8, 3, padding=1)
    with SmallMaps(), torch.no_grad():
        conv.double()(torch.ones(2, 4, 2, 2).double())
        conv.float()(torch.randn(2, 4, 4, 4))
        with torch.autocast("cpu", torch.bfloat16):
            conv(torch.randn(2, 4, 9, 9))
        assert not products
        conv(torch.randn(2, 4, 2, 2))
    assert products == [((8, 4, 3, 3), torch.float32)]


@pytest.mark.parametrize(("side", "stride", "gains"), [(3, 1, True), (4, 1, False), (8, 2, True)])
def test_a_map_of_16_pixels_is_a_product_where_the_stride_is_2(side, stride, gains, products):
    conv = nn.Conv2d(256, 512, 3, padding=1, stride=stride).bfloat16()
    with SmallMaps(), torch.no_grad():
        conv(torch.randn(2, 256, side, side).bfloat16())
    assert len(products) == gains
