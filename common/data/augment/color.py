"""Changes of the pixels' values, each sample by a factor of its own; as torchvision defines them.

Pictures are float32 (B, 3, H, W) of 0 to 255; factors are (B,).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

GREY = 0.2989, 0.587, 0.114  # the weights of red, green and blue in brightness


def blend(images: Tensor, others: Tensor, factor: Tensor) -> Tensor:
    """`factor` of the pictures and the rest of the others, within 0 to 255; it may exceed 1."""
    factor = factor.view(-1, 1, 1, 1)
    return (factor * images + (1 - factor) * others).clamp(0, 255)


def grey(images: Tensor) -> Tensor:
    """Brightness (B, 1, H, W)."""
    return (images * images.new_tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return blend(images, torch.zeros_like(images), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the picture's mean brightness."""
    return blend(images, grey(images).mean((1, 2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the picture without its colours."""
    return blend(images, grey(images), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend with the smoothed picture; the outermost pixels stay."""
    kernel = images.new_ones(3, 3)
    kernel[1, 1] = 5.0
    kernel = (kernel / kernel.sum()).expand(3, 1, 3, 3)
    smooth = images.clone()
    if min(images.shape[2:]) > 2:
        smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel, groups=3)
    return blend(images, smooth, factor)


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue by a share of the colour circle (B,), by way of HSV."""
    red, green, blue = (images / 255).unbind(1)
    value, low = (images / 255).amax(1), (images / 255).amin(1)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1)
    angle = torch.where(
        value == red,
        (green - blue) / safe % 6,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    angle = torch.where(chroma > 0, angle, 0) + 6 * turn.view(-1, 1, 1)
    # each channel from hue, chroma and value: en.wikipedia.org/wiki/HSL_and_HSV, "HSV to RGB"
    k = [(n + angle) % 6 for n in (5, 3, 1)]
    channels = [value - chroma * torch.minimum(x, 4 - x).clamp(0, 1) for x in k]
    return 255 * torch.stack(channels, dim=1)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of each value: (B,) of 0 to 8."""
    step = 2 ** (8 - bits).view(-1, 1, 1, 1)
    return (images.round() / step).floor() * step


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert what is at or above the threshold (B,)."""
    return torch.where(images >= threshold.view(-1, 1, 1, 1), 255 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch each channel to 0 to 255; one of a single value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = high == low
    stretched = (images - low) * (255 / torch.where(flat, 1, high - low))
    return torch.where(flat, images, stretched).clamp(0, 255)


def equalize(images: Tensor) -> Tensor:
    """Spread each channel's values so that they are about equally frequent, as Pillow does."""
    flat = images.round().long().flatten(2).flatten(0, 1)  # (3 B, pixels)
    counts = torch.zeros(len(flat), 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    last = torch.where(counts > 0, torch.arange(256, device=images.device), -1).amax(1)
    step = (flat.shape[1] - counts.gather(1, last[:, None])) // 255  # (3 B, 1)
    below = F.pad(counts.cumsum(1), (1, 0))[:, :-1]  # how many are smaller
    table = ((below + step // 2) // step.clamp_min(1)).clamp(0, 255)
    spread = torch.where(step > 0, table.gather(1, flat), flat)
    return spread.view(images.shape).float()
