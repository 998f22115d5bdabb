"""What values the options may have, beyond their types."""

import math
from collections.abc import Callable
from typing import Any

from common.config.schema import LevelConfig

LARGEST = 2**63  # what torch counts with
SIDE = 4096  # pixels: more is no picture to classify
Rule = tuple[Callable[[Any], bool], str]


def _whole(least: int, below: int = LARGEST) -> Rule:
    words = f"at least {least}" if below == LARGEST else f"at least {least}, at most {below - 1}"
    return lambda value: least <= value < below, words


RULES: dict[str, Rule] = {
    "data.val_fraction": (lambda value: 0 < value < 1, "between 0 and 1"),
    "data.stored_size": _whole(1, SIDE + 1),
    "data.split_seed": _whole(0, 2**32),
    "data.limit": _whole(1),
    "network.image_size": _whole(32, SIDE + 1),
    "network.trainable": (bool, "at least one stage"),
    "train.epochs": _whole(1),
    "train.batch_size": _whole(1, 2**31),
    "train.lr": (lambda value: 0 < value < math.inf, "above 0"),
    "train.weight_decay": (lambda value: 0 <= value < math.inf, "at least 0"),
    "train.label_smoothing": (lambda value: 0 <= value < 1, "in [0, 1)"),
    "train.clip_norm": (lambda value: 0 < value < math.inf, "above 0"),
    "train.ema": (lambda value: 0 < value < 1, "between 0 and 1"),
    "train.early_stopping": _whole(1),
    "train.threads": _whole(1, 1025),
    "seed": _whole(0),
    "seeds": (
        lambda seeds: 0 < len(seeds) == len(set(seeds)) and all(0 <= s < LARGEST for s in seeds),
        "one or more numbers, each at least 0 and given once",
    ),
}


def broken_rules(config: LevelConfig) -> dict[str, tuple[Any, str]]:
    """Key -> value and rule, of the options whose value is out of range; none given is in range."""
    settings, broken = config.settings(), {}
    for key, (good, rule) in RULES.items():
        group, _, name = key.rpartition(".")
        value = (settings[group] if group else settings)[name]
        if value is not None and not good(value):
            huge = isinstance(value, int) and value >= LARGEST
            broken[key] = value, f"{rule} and below 2**63" if huge else rule
    return broken
