"""Learning-rate schedules: the factor on the configured rate at each step.

A schedule is a function of (step, steps), steps being those of the whole run, that returns the
factor; its further parameters are the config's. To add one, add a function to `SCHEDULES`.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial

from common.config import Step, UserError, named_step, nearest


def constant(step: int, steps: int) -> float:
    """The same rate throughout."""
    return 1.0


def cosine(step: int, steps: int, warmup: float = 0.0, final: float = 0.0) -> float:
    """Rise linearly over the share `warmup` of the steps, then fall to `final` by half a cosine.

    Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983 (without restarts).
    """
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    progress = (step - rising) / max(steps - rising, 1)
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def one_cycle(step: int, steps: int, warmup: float = 0.3, start: float = 0.04) -> float:
    """Rise by half a cosine from `start` over the share `warmup`, then fall to zero by another.

    Smith and Topin, 2018, https://arxiv.org/abs/1708.07120.
    """
    rising = warmup * steps
    if step < rising:
        return start + (1 - start) * (1 - math.cos(math.pi * step / rising)) / 2
    return (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1))) / 2


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


def build(schedule: Step, steps: int) -> Callable[[int], float]:
    """The configured schedule over `steps` steps: step (from 0) -> factor on the rate.

    Raises:
        UserError: a schedule or a parameter that does not exist.
    """
    name, parameters = named_step(schedule)
    if name not in SCHEDULES:
        raise UserError(f"train.schedule: unknown '{name}'{nearest(name, SCHEDULES)}")
    options = list(inspect.signature(SCHEDULES[name]).parameters)[2:]
    for key, value in parameters.items():
        if key not in options:
            raise UserError(f"train.schedule: {name} has no '{key}'{nearest(key, options)}")
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f"train.schedule: {name}: {key} must be within 0 and 1, not {value}")
    return partial(SCHEDULES[name], steps=steps, **parameters)
