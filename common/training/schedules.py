"""Learning-rate schedules: the factor on the configured rate at each step.

A schedule is a function of (step, steps), steps being those of the whole run, that returns the
factor; its further parameters are the config's. To add one, add a function to `FUNCTIONS`. Two
depend on more than the step: `plateau` on val's loss so far, `gradual` on the stage.
"""

import math
from typing import Annotated

from common.config import Step
from common.config.ranges import whole, within
from common.config.registry import Registry

SHARE = within(0, 1)
Share = Annotated[float, SHARE]
Epochs = Annotated[int, whole(1, 2**31 - 1)]


def constant(step: int, steps: int) -> float:
    """The same rate throughout."""
    return 1.0


def cosine(step: int, steps: int, warmup: Share = 0.0, final: Share = 0.0) -> float:
    """Rise linearly over the share `warmup` of the steps, then fall to `final` by half a cosine.

    Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983 (without restarts).
    """
    rising = warmup * steps
    if step < rising:
        return (step + 1) / (rising + 1)
    progress = (step - rising) / max(steps - rising, 1)
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def one_cycle(step: int, steps: int, warmup: Share = 0.3, start: Share = 0.04) -> float:
    """Rise by half a cosine from `start` over the share `warmup`, then fall to zero by another.

    Smith and Topin, 2018, https://arxiv.org/abs/1708.07120.
    """
    rising = warmup * steps
    if step < rising:
        return start + (1 - start) * (1 - math.cos(math.pi * step / rising)) / 2
    return (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1))) / 2


def plateau(step: int, steps: int, factor: Share = 0.1, patience: Epochs = 2) -> float:
    """Multiply by `factor` whenever val loss has not fallen for more than `patience` epochs.

    What it has multiplied so far comes from the history: see `Schedule.see`.
    """
    return 1.0


def gradual(step: int, steps: int, epochs: Epochs = 1) -> float:
    """The head alone at first; every `epochs` epochs the next stage down unfreezes.

    Howard and Ruder, 2018, https://arxiv.org/abs/1801.06146.
    """
    return 1.0


FUNCTIONS = constant, cosine, one_cycle, plateau, gradual
SCHEDULES = Registry(
    "train.schedule",
    {function.__name__: function for function in FUNCTIONS},
    common={"layer_decay": (SHARE, 1.0)},
)


class Schedule:
    """The factor on the rate, by step and by depth below the head.

    Args:
        name, parameters: as configured; `layer_decay` belongs to every schedule: each stage learns
            at that share of the rate of the one above it.
        steps: of the whole run.
    """

    def __init__(self, name: str, parameters: dict[str, float], steps: int):
        self.name = name
        self.layer_decay = parameters.pop("layer_decay")
        self.parameters = parameters
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


def build_schedule(schedule: Step, steps: int) -> Schedule:
    """The configured schedule over `steps` steps.

    Raises:
        UserError: a schedule or a parameter that does not exist, or a value out of range.
    """
    name, parameters = SCHEDULES.find(schedule)
    return Schedule(name, parameters, steps)
