"""Named things of a config with their parameters: looked up, and checked at the door."""

from typing import Any

from common.config.schema import Step
from common.utils.errors import UserError


def named_step(step: Step) -> tuple[str, dict[str, Any]]:
    """Name and parameters of a step: "flip" or {"crop": {"padding": 4}}.

    Raises:
        UserError: a mapping with any other number of names than one.
    """
    if isinstance(step, str):
        return step, {}
    if len(step) != 1:
        raise UserError(f"a step has one name, with its parameters indented below it; got {step}")
    ((name, parameters),) = step.items()
    return name, dict(parameters or {})


WIDEST = 4096  # channels, or what else a network's option counts


def check_range(what: str, value: object, low: float, high: float) -> None:
    """Refuse a step's parameter that is no [low, high] of numbers within these.

    Raises:
        UserError: it names the step and the parameter.
    """
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise UserError(f"augment: {what} must be [low, high], not {value}")
    for number in value:
        check_number(what, number, low, high)
    if value[0] > value[1]:
        raise UserError(f"augment: {what} must be [low, high], not {value}")


def check_number(what: str, value: object, low: float, high: float, kind: type = float) -> None:
    """Refuse a step's parameter that is no number from low to high, or not whole where kind is int.

    Raises:
        UserError: it names the step and the parameter.
    """
    good = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not good or not low <= value <= high:
        name = "a whole number" if kind is int else "a number"
        raise UserError(f"augment: {what} must be {name} from {low} to {high}, not '{value}'")


def check_option(what: str, value: object, default: bool | int | float) -> None:
    """Refuse a network's option of another kind than its default, or out of range.

    Raises:
        UserError: it names the network and the option.
    """
    kind = bool if isinstance(default, bool) else int if isinstance(default, int) else float
    kinds = {
        bool: (lambda v: isinstance(v, bool), "true or false"),
        int: (lambda v: type(v) is int and 1 <= v <= WIDEST, f"a whole number up to {WIDEST}"),
        float: (lambda v: type(v) in (int, float) and 0 <= v < 1, "a share in [0, 1)"),
    }
    fine, words = kinds[kind]
    if not fine(value):
        raise UserError(f"network.arch: {what} must be {words}, not {value}")
