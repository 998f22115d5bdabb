"""What values options and parameters may have, said in their annotations:

epochs: Annotated[int, whole(1)] = 5
"""

import dataclasses
import math
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

LARGEST = 2**63 - 1  # what torch counts with
SIDE = 4096  # pixels: more is no picture to classify


class Rule(NamedTuple):
    """What a value must be, in words, and whether one is."""

    words: str
    holds: Callable[[Any], bool]


def whole(low: int, high: int = LARGEST) -> Rule:
    """Whole numbers from low to high."""
    bounded = f"a whole number from {low} to {high}"
    return Rule(
        f"at least {low}" if high == LARGEST else bounded,
        lambda value: type(value) is int and low <= value <= high,
    )


def number(words: str, holds: Callable[[float], bool]) -> Rule:
    """Numbers of which something holds."""
    return Rule(words, lambda value: type(value) in (int, float) and holds(value))


def within(low: float, high: float) -> Rule:
    """Numbers from low to high."""
    return number(f"a number from {low} to {high}", lambda value: low <= value <= high)


def pair(low: float, high: float) -> Rule:
    """Two of them, the smaller one first."""
    each = within(low, high)

    def holds(value: Any) -> bool:
        two = isinstance(value, list | tuple) and len(value) == 2
        return two and all(map(each.holds, value)) and value[0] <= value[1]

    return Rule(f"[low, high], each {each.words}", holds)


def one_of(*values: int) -> Rule:
    """Some whole numbers."""
    words = f"one of {', '.join(map(str, values))}"
    return Rule(words, lambda value: type(value) is int and value in values)


FLAG = Rule("true or false", lambda value: isinstance(value, bool))
POSITIVE = number("above 0", lambda value: 0 < value < math.inf)
NOT_NEGATIVE = number("at least 0", lambda value: 0 <= value < math.inf)
PART = number("between 0 and 1", lambda value: 0 < value < 1)
SHARE = number("in [0, 1)", lambda value: 0 <= value < 1)
STAGES = Rule("at least one stage", bool)
PICTURES = Rule(
    "auto, 0, or at least 2", lambda value: value == "auto" or value == 0 or whole(2).holds(value)
)
SEEDS = Rule(
    "one or more numbers, each at least 0 and given once",
    lambda seeds: 0 < len(seeds) == len(set(seeds)) and all(map(whole(0).holds, seeds)),
)


def broken_rules(config: Any, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Dotted key -> value and rule, of a dataclass's options that break theirs.

    None breaks no rule, where an option takes it.
    """
    broken = {}
    for name, kind in typing.get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            broken |= broken_rules(value, f"{prefix}{name}.")
        for rule in getattr(kind, "__metadata__", ()):
            if value is not None and not rule.holds(value):
                huge = type(value) is int and value > LARGEST
                broken[prefix + name] = value, f"{rule.words}{' and below 2**63' * huge}"
    return broken
