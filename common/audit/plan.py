"""What a config says of rates and of what trains, worked out apart from the code that trains."""

import copy
import math

from torch import nn

from common.config import LevelConfig, TrainConfig
from common.config.registry import named_step
from common.models import StagedNetwork
from common.training.schedules import build_schedule


def rate_at(
    config: TrainConfig, part: str, depth: int, step: int, steps: int, losses: list[float] = ()
) -> float:
    """The rate of the head or a stage at a step of the run, from the schedule's own formula.

    Args:
        depth: parts that train above this one.
        losses: val's, of the epochs so far.
    """
    name, given = named_step(config.schedule)
    peak = config.head_lr if part == "head" and config.head_lr else config.lr
    if name not in ("constant", "cosine", "one_cycle", "plateau", "gradual"):  # the reader's own
        return peak * build_schedule(config.schedule, steps)(step, depth)
    factor, progress = 1.0, step / steps
    if name == "cosine":
        warm = given.get("warmup", 0.0) * steps
        low = given.get("final", 0.0)
        falling = (step - warm) / max(steps - warm, 1)
        factor = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * falling))
        factor = (step + 1) / (warm + 1) if step < warm else factor
    elif name == "one_cycle":
        top, low = given.get("warmup", 0.3) * steps, given.get("start", 0.04)
        rise = low + (1 - low) * math.sin(math.pi * step / top / 2) ** 2 if top else 1.0
        fall = math.cos(math.pi * (step - top) / max(steps - top, 1) / 2) ** 2
        factor = rise if progress < top / steps else fall
    elif name == "plateau":
        best, waited = math.inf, 0
        for loss in losses:
            best, waited = (loss, 0) if loss < best else (best, waited + 1)
            if waited > given.get("patience", 2):
                factor, waited = factor * given.get("factor", 0.1), 0
    return peak * factor * given.get("layer_decay", 1.0) ** depth


def parts_in(config: LevelConfig, network: StagedNetwork, epoch: int) -> list[str]:
    """What trains in an epoch, from the head down."""
    parts = [p for p in reversed([*network.stages, "head"]) if p in config.network.trainable]
    name, given = named_step(config.train.schedule)
    return parts[: 1 + (epoch - 1) // given.get("epochs", 1)] if name == "gradual" else parts


def without_schedule(config: LevelConfig) -> LevelConfig:
    """With all parts training from the start."""
    config = copy.deepcopy(config)
    config.train.schedule = "constant"
    return config


def batch_norm_keys(network: nn.Module) -> set[str]:
    """Names of the parameters and buffers of the stages' batch norms; a head's own train."""
    return {
        f"{name}.{key}"
        for name, module in network.named_modules()
        if "BatchNorm" in type(module).__name__ and name.startswith("stages.")
        for key in module.state_dict()
    }


def key_starts(parts: list[str]) -> tuple[str, ...]:
    """How the names of these stages', or the head's, parameters and buffers begin."""
    return tuple("head." if part == "head" else f"stages.{part}." for part in parts)
