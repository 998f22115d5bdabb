"""Convolutions on small maps as matrix products, on a CPU.

oneDNN's convolutions block over a map's columns. Where a map has only one to three of them, as in
layer4 of a ResNet at 64 to 96 px, they reach a third of a matrix product's speed. There, each
window of the map is written out as a row (im2col), and one product does the convolution; two more
do its gradients. On a map of up to 2x2 pixels every 3x3 window holds all of the map, and the rest
is padding: there the whole map is the row, and no product with a zero is made. Either way it is
the same sum of the same terms.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# Pixels of the largest output for which a product is faster, at stride 1 and at a larger one.
# bfloat16, on an AMD EPYC with AVX-512: at 16 pixels, forward and back, 0.8 times as fast at stride
# 1, 1.2 times at stride 2. float32, on an Intel Xeon with AVX-512: 2 to 10 times up to 9 pixels.
LARGEST = {torch.bfloat16: (9, 16), torch.float32: (9, 9)}


class SmallMaps(TorchFunctionMode):
    """In this context, convolutions that gain by it are done as matrix products."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.conv2d:
            return convolve(*args, **kwargs)
        return function(*args, **kwargs)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] | str = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """`torch.conv2d`, under autocast too: by a matrix product where that is faster."""
    options = stride, padding, dilation, groups
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    plain = dilation == (1, 1) and groups == 1 and len({*stride}) == 1 and len({*padding}) == 1
    if dtype not in LARGEST or not plain or isinstance(padding, str):
        return torch.conv2d(x, weight, bias, *options)
    height, width = (
        (side + 2 * padding[0] - kernel) // stride[0] + 1
        for side, kernel in zip(x.shape[2:], weight.shape[2:], strict=True)
    )
    largest = LARGEST[dtype][stride[0] > 1]
    if height * width > largest or not _gains(height * width, weight):
        return torch.conv2d(x, weight, bias, *options)
    x, weight = x.to(dtype), weight.to(dtype)
    around = weight.shape[2:] == (3, 3) and stride[0] == padding[0] == 1
    if around and max(x.shape[2:]) <= 2:
        y = WholeMap.apply(x, weight)
    else:
        y = Product.apply(x, weight, stride[0], padding[0])
    return y if bias is None else y + bias.to(dtype).view(-1, 1, 1)


def _gains(pixels: int, weight: Tensor) -> bool:
    """Whether a product is faster: measured at batch 128, 64 to 512 channels, 1 to 49 pixels.

    Up to four output pixels it always is; above where the weights outgrow a core's cache.
    """
    window = weight.shape[2] * weight.shape[3]
    return window > 1 and (pixels <= 4 or weight.numel() > 2**20)


class Product(torch.autograd.Function):
    """A convolution, without bias, as a product of windows (im2col) and weights.

    x (B, C, H, W) and weight (O, C, k, l), of one dtype, give (B, O, H', W'), channels last.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        """Keep the windows: the weights' gradient needs them again."""
        rows, columns = weight.shape[2:]
        x_last = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
        windows = x_last.unfold(1, rows, stride).unfold(2, columns, stride)  # (B,H',W',C,k,l)
        windows = windows.permute(0, 1, 2, 4, 5, 3)
        flat = windows.reshape(windows.shape[:3].numel(), -1)  # the copy
        kernels = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)  # a view if channels last
        ctx.save_for_backward(flat, kernels)
        ctx.shapes = windows.shape, x_last.shape
        ctx.stride, ctx.padding = stride, padding
        return (flat @ kernels.T).view(*windows.shape[:3], -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """The weights' gradient from the windows; the input's by adding up its windows'."""
        flat, kernels = ctx.saved_tensors
        windows, padded = ctx.shapes
        _, height, width, rows, columns, channels = windows
        gradient = gradient.permute(0, 2, 3, 1).reshape(len(flat), -1)
        for_x = for_weight = None
        if ctx.needs_input_grad[1]:
            for_weight = (gradient.T @ flat).view(-1, rows, columns, channels).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[0]:
            parts, step, edge = (gradient @ kernels).view(windows), ctx.stride, ctx.padding
            for_x = gradient.new_zeros(padded)
            for i in range(rows):
                for j in range(columns):
                    place = slice(i, i + step * height, step), slice(j, j + step * width, step)
                    for_x[:, place[0], place[1]] += parts[:, :, :, i, j]
            for_x = for_x[:, edge : padded[1] - edge, edge : padded[2] - edge].permute(0, 3, 1, 2)
        return for_x, for_weight, None, None


class WholeMap(torch.autograd.Function):
    """A 3x3 convolution, stride and padding 1, without bias, of maps of 1 or 2 pixels a side.

    x (B, C, H, W) and weight (O, C, 3, 3), of one dtype, give (B, O, H, W), channels last. Each
    output pixel has its own part of the kernel: the taps that meet the map.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        """One product of maps (B, H W C) and taps (H W O, H W C)."""
        batch, _, height, width = x.shape
        taps = weight.permute(0, 2, 3, 1)
        parts = [taps[:, rows, columns] for rows, columns in _met(height, width)]
        parts = torch.stack(parts).view(height * width * len(weight), -1)
        flat = x.permute(0, 2, 3, 1).reshape(batch, -1)
        ctx.save_for_backward(flat, parts)
        ctx.shapes = x.shape, weight.shape
        return (flat @ parts.T).view(batch, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The taps' gradients are added where the same tap met several pixels."""
        flat, parts = ctx.saved_tensors
        (batch, channels, height, width), (filters, _, rows, columns) = ctx.shapes
        gradient = gradient.permute(0, 2, 3, 1).reshape(batch, -1)
        for_x = for_weight = None
        if ctx.needs_input_grad[0]:
            for_x = (gradient @ parts).view(batch, height, width, channels).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            own = (gradient.T @ flat).view(-1, filters, height, width, channels)
            for_weight = gradient.new_zeros(filters, rows, columns, channels)
            for part, place in zip(own, _met(height, width), strict=True):
                for_weight[:, place[0], place[1]] += part
            for_weight = for_weight.permute(0, 3, 1, 2)
        return for_x, for_weight


def _met(height: int, width: int) -> list[tuple[slice, slice]]:
    """For each pixel of a map, the rows and columns of a 3x3 kernel about it that meet the map."""
    pixels = [(y, x) for y in range(height) for x in range(width)]
    return [(slice(1 - y, 1 - y + height), slice(1 - x, 1 - x + width)) for y, x in pixels]
