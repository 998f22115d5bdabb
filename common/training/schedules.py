"""Learning-rate schedules: the factor on the configured rate at each step.

A schedule is a function of (step, steps), steps being those of the whole run, that returns the
factor; its further parameters are the config's. To add one, add a function to `SCHEDULES`. Two
depend on more than the step: `plateau` on val's loss so far, `gradual` on the stage.
"""

import inspect
import math
from collections.abc import Callable

from common.config import Step, named_step
from common.utils.errors import UserError, nearest


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


def plateau(step: int, steps: int, factor: float = 0.1, patience: float = 2) -> float:
    """Multiply by `factor` whenever val loss has not fallen for more than `patience` epochs.

    What it has multiplied so far comes from the history: see `Schedule.see`.
    """
    return 1.0


def gradual(step: int, steps: int, epochs: float = 1) -> float:
    """The head alone at first; every `epochs` epochs the next stage down unfreezes.

    Howard and Ruder, 2018, https://arxiv.org/abs/1801.06146.
    """
    return 1.0


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": constant,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "plateau": plateau,
    "gradual": gradual,
}
WHOLE = "patience", "epochs"  # parameters that count epochs; the others are within 0 and 1


class Schedule:
    """The factor on the rate, by step and by depth below the head.

    Args:
        name, parameters: as configured; `layer_decay` belongs to every schedule: each stage learns
            at that share of the rate of the one above it.
        steps: of the whole run.
    """

    def __init__(self, name: str, parameters: dict[str, float], steps: int):
        self.name = name
        self.layer_decay = parameters.pop("layer_decay", 1.0)
        self.parameters = {**_defaults(name), **parameters}
        self.steps, self.fallen = steps, 1.0

    def __call__(self, step: int, depth: int = 0) -> float:
        """The factor at a step (from 0) for the head (depth 0) or a stage below it."""
        factor = SCHEDULES[self.name](step, self.steps, **self.parameters)
        return factor * self.fallen * self.layer_decay**depth

    def see(self, history: list[dict]) -> None:
        """Look at the epochs so far, before the next: a plateau's fall follows from them alone."""
        if self.name != "plateau":
            return
        self.fallen, best, waited = 1.0, float("inf"), 0
        for entry in history:
            waited = 0 if entry["val_loss"] < best else waited + 1
            best = min(best, entry["val_loss"])
            if waited > self.parameters["patience"]:
                self.fallen, waited = self.fallen * self.parameters["factor"], 0

    def unfrozen(self, parts: list[str], epoch: int) -> list[str]:
        """Which of the parts that train, from the picture up, do so in this epoch (from 1)."""
        if self.name != "gradual":
            return parts
        return parts[-1 - int((epoch - 1) / self.parameters["epochs"]) :]


def _defaults(name: str) -> dict[str, float]:
    known = list(inspect.signature(SCHEDULES[name]).parameters.values())[2:]
    return {parameter.name: parameter.default for parameter in known}


def build_schedule(schedule: Step, steps: int) -> Schedule:
    """The configured schedule over `steps` steps.

    Raises:
        UserError: a schedule or a parameter that does not exist.
    """
    name, parameters = named_step(schedule)
    if name not in SCHEDULES:
        raise UserError(f"train.schedule: unknown '{name}'{nearest(name, SCHEDULES)}")
    options = [*_defaults(name), "layer_decay"]
    for key, value in parameters.items():
        if key not in options:
            raise UserError(f"train.schedule: {name} has no '{key}'{nearest(key, options)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key in WHOLE:
            if not number or not 1 <= value < math.inf or value != int(value):
                raise UserError(f"train.schedule: {name}: {key} must be 1 or more, not {value}")
        elif not number or not 0 <= value <= 1:
            raise UserError(f"train.schedule: {name}: {key} must be within 0 and 1, not {value}")
    return Schedule(name, parameters, steps)
