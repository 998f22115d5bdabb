"""Numbers from a config."""

import math

from common.config import UserError


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
