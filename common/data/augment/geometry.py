"""Geometry: one matrix a sample from all steps together, and one resampling.

A matrix (3, 3) takes a pixel's place (x, y, 1) in the new picture to its place in the old one, in
pixels, the centre of the first at 0. What enters from outside is reflected.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def reflected(index: Tensor, size: int) -> Tensor:
    """Fold indices outside [0, size) back inside, as reflection padding without the edge does."""
    period = max(2 * (size - 1), 1)
    index = index.abs() % period
    return torch.where(index < size, index, period - index)


def matrices(batch: int, device: torch.device, **entries: Tensor | float) -> Tensor:
    """Identities (B, 3, 3) with some entries replaced: `xx`, `xy`, `x1`, `yx`, `yy`, `y1`.

    `x1` is what is added to x, `xy` what y contributes to x.
    """
    m = torch.eye(3, device=device).repeat(batch, 1, 1)
    places = {"x": 0, "y": 1, "1": 2}
    for (row, column), value in entries.items():
        m[:, places[row], places[column]] = value
    return m


def rotations(degrees: Tensor, height: int, width: int) -> Tensor:
    """Rotations about the centre, counter-clockwise as the picture is seen, by (B,) degrees."""
    angle = torch.deg2rad(degrees)
    cos, sin = angle.cos(), angle.sin()
    x, y = (width - 1) / 2, (height - 1) / 2  # the centre, seen from the first pixel's
    there = matrices(len(degrees), degrees.device, x1=-x, y1=-y)
    turned = matrices(len(degrees), degrees.device, xx=cos, xy=-sin, yx=sin, yy=cos)
    back = matrices(len(degrees), degrees.device, x1=x, y1=y)
    return back @ turned @ there


def resample(images: Tensor, m: Tensor, whole: bool) -> Tensor:
    """Pictures (B, 3, H, W) of 0 to 255 moved by matrices (B, 3, 3).

    With `whole`, by mirroring and whole pixels alone: exact, in the pictures' own type; else
    bilinear, float32.
    """
    batch, _, height, width = images.shape
    device = images.device
    x = torch.arange(width, device=device, dtype=torch.float32)
    y = torch.arange(height, device=device, dtype=torch.float32)
    if whole:
        rows = reflected((m[:, 1, 1:2] * y + m[:, 1, 2:]).round().long(), height)  # (B, H)
        columns = reflected((m[:, 0, :1] * x + m[:, 0, 2:]).round().long(), width)  # (B, W)
        sample = torch.arange(batch, device=device)[:, None, None]
        # indexing with the channel in between puts it last: (B, H, W, 3)
        return images[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (H, W, 2)
    places = places @ m[:, None, :2, :2].transpose(2, 3) + m[:, None, None, :2, 2]  # (B, H, W, 2)
    grid = (2 * places + 1) / places.new_tensor([width, height]) - 1
    options = {"mode": "bilinear", "padding_mode": "reflection", "align_corners": False}
    return F.grid_sample(images.float(), grid, **options).clamp(0, 255)
