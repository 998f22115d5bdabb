"""Augmentation: one random change a sample, made on the whole batch at once, on the device.

A step is a class whose instance takes uint8 pictures (B, 3, H, W) and a generator, and returns
pictures of the same shape. Each sample draws for itself. To add a step, add a class to `STEPS`.
"""

import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor

from common.config import Step, UserError, named_step, nearest


class Flip:
    """Mirror left-right with the given probability.

    Where a mirrored picture would not keep its label (`mirror` false), it does nothing.
    """

    def __init__(self, probability: float = 0.5, *, mirror: bool = True):
        check_number("flip: probability", probability, 0, 1)
        self.probability = probability if mirror else 0.0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draws = torch.rand(len(images), generator=generator, device=images.device)
        flipped = (draws < self.probability)[:, None, None, None]
        return torch.where(flipped, images.flip(3), images)


class Crop:
    """Pad by reflection and cut the original size out again at a random place.

    `padding` in pixels; by default an eighth of the picture's side.
    """

    def __init__(self, padding: int | None = None):
        if padding is not None:
            check_number("crop: padding", padding, 0, kind=int)
        self.padding = padding

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        batch, _, height, width = images.shape
        pad = min(height, width) // 8 if self.padding is None else self.padding
        device = images.device
        shifts = torch.randint(-pad, pad + 1, (2, batch, 1), generator=generator, device=device)
        rows = reflected(torch.arange(height, device=device) + shifts[0], height)  # (B, H)
        columns = reflected(torch.arange(width, device=device) + shifts[1], width)  # (B, W)
        sample = torch.arange(batch, device=device)[:, None, None]
        # indexing with the channel in between puts it last: (B, H, W, 3)
        return images[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def check_number(
    what: str, value: object, low: float, high: float = math.inf, kind: type = float
) -> None:
    """Refuse a step's parameter that is no number from low to high, or not whole where kind is int.

    Raises:
        UserError: it names the step and the parameter.
    """
    good = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not good or not low <= value <= high:
        name = "a whole number" if kind is int else "a number"
        limits = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
        raise UserError(f"augment: {what} must be {name} {limits}, not '{value}'")


def reflected(index: Tensor, size: int) -> Tensor:
    """Fold indices outside [0, size) back inside, as reflection padding without the edge does."""
    period = max(2 * (size - 1), 1)
    index = index.abs() % period
    return torch.where(index < size, index, period - index)


STEPS: dict[str, Callable] = {"flip": Flip, "crop": Crop}


class Augmentation:
    """The configured steps, one after another."""

    def __init__(self, steps: list[Callable[[Tensor, torch.Generator], Tensor]]):
        self.steps = steps

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch: uint8 (B, 3, H, W) in and out."""
        for step in self.steps:
            images = step(images, generator)
        return images


def build(steps: list[Step], mirror: bool) -> Augmentation | None:
    """The augmentation of a config's `augment` list; None where the list is empty.

    Raises:
        UserError: a step or a parameter that does not exist.
    """
    built = []
    for step in steps:
        name, parameters = named_step(step)
        if name not in STEPS:
            raise UserError(f"augment: unknown step '{name}'{nearest(name, STEPS)}")
        known = inspect.signature(STEPS[name]).parameters
        for key in parameters:
            if key not in known or key == "mirror":
                options = [k for k in known if k != "mirror"]
                raise UserError(f"augment: {name} has no parameter '{key}'{nearest(key, options)}")
        built.append(STEPS[name](**parameters, **({"mirror": mirror} if "mirror" in known else {})))
    return Augmentation(built) if built else None
