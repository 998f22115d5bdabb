"""What values options and parameters may have beyond their types, said in their annotations:

epochs: Annotated[int, at_least(1)] = 5
"""

import dataclasses
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LARGEST = 2**63  # what torch counts with
SIDE = 4096  # pixels: more is no picture to classify


@dataclass(frozen=True)
class Range:
    """A rule for a value, and its words, which follow "must be"; in `--help`, the type."""

    words: str
    holds: Callable[[Any], bool]

    def __repr__(self) -> str:
        return self.words


def at_least(low: int) -> Range:
    """And no larger than what torch counts with; a number with a fraction is finite."""
    return Range(
        f"at least {low}",
        lambda value: low <= value < (LARGEST if isinstance(value, int) else math.inf),
    )


def within(low: float, high: float) -> Range:
    """Both of them included."""
    return Range(f"from {low} to {high}", lambda value: low <= value <= high)


ABOVE_ZERO = Range("above 0", lambda value: 0 < value < math.inf)
PART = Range("between 0 and 1", lambda value: 0 < value < 1)
SHARE = Range("in [0, 1)", lambda value: 0 <= value < 1)
STAGES = Range("at least one stage", bool)
SEEDS = Range(
    "one or more numbers, each at least 0 and given once",
    lambda seeds: 0 < len(seeds) == len(set(seeds)) and all(0 <= s < LARGEST for s in seeds),
)


def broken_rules(config: Any, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Dotted key -> value and rule, of a dataclass's values that are out of range.

    None, where an option takes it, is in range.
    """
    broken = {}
    for name, kind in typing.get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            broken |= broken_rules(value, f"{prefix}{name}.")
        for rule in getattr(kind, "__metadata__", ()):
            if value is not None and not rule.holds(value):
                huge = isinstance(value, int) and value >= LARGEST
                words = f"{rule.words} and below 2**63" if huge else rule.words
                broken[prefix + name] = value, words
    return broken
