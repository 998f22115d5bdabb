"""Named things of a config with their parameters: looked up, and checked at the door."""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from common.config.ranges import Range
from common.config.schema import Step
from common.config.yaml_files import shown
from common.utils.errors import UserError, nearest

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


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


class Registry(dict[str, Callable[..., Any]]):
    """Functions and classes that a config names, with their parameters.

    A parameter with a default is the config's to set, one without is the caller's. Its annotation
    says what it takes: bool, int, float, str, a Literal, or list[float] for [low, high]; the
    numbers may be kept within a range, as in `Annotated[float, within(0, 1)]`.

    Args:
        option: where the names stand in a config.
        entries: by name.
        common: what each of them takes besides: parameter -> annotation and default.
    """

    def __init__(
        self,
        option: str,
        entries: dict[str, Callable[..., Any]],
        common: dict[str, tuple[Any, Any]] | None = None,
    ):
        super().__init__(entries)
        self.option, self.common = option, common or {}

    def find(self, step: Step) -> tuple[str, dict[str, Any]]:
        """Name and parameters of a step, defaults among them.

        Raises:
            UserError: an unknown name or parameter, or a value that the parameter does not take.
        """
        name, given = named_step(step)
        if name not in self:
            raise UserError(f"{self.option}: unknown '{name}'{nearest(name, self)}")
        found = inspect.signature(self[name], eval_str=True).parameters.values()
        known = {p.name: (p.annotation, p.default) for p in found if p.default is not p.empty}
        known |= self.common
        for key, value in given.items():
            if key not in known:
                hint = nearest(key, known) if known else "; it has none"
                raise UserError(f"{self.option}: {name} has no option '{key}'{hint}")
            kind, default = known[key]
            words = _demand(value, kind)
            if words and not value is default is None:
                text = f"{name}: {key} must be {words}, not {shown(value)}"
                raise UserError(f"{self.option}: {text}")
        return name, {key: default for key, (_, default) in known.items()} | given

    def build(self, step: Step, **context: Any) -> Any:
        """Call what a step names with its parameters, and with what it asks for of the context.

        Raises:
            UserError: as `find`.
        """
        name, parameters = self.find(step)
        known = inspect.signature(self[name]).parameters
        return self[name](**parameters, **{k: v for k, v in context.items() if k in known})


def _demand(value: object, annotation: Any) -> str | None:
    """What a value must be by its parameter's annotation; None if it is."""
    rules = getattr(annotation, "__metadata__", ())
    kind = annotation.__origin__ if rules else annotation
    if isinstance(kind, types.UnionType):  # with None, for a default that is no number
        kind = typing.get_args(kind)[0]
    within = "".join(f" {rule.words}" for rule in rules)
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        words = f"one of {', '.join(map(str, choices))}"
        fine = value in choices and not isinstance(value, bool)
    elif typing.get_origin(kind) is list:
        words = f"[low, high], numbers{within}"
        pair = isinstance(value, list | tuple) and len(value) == 2
        fine = pair and all(_is(v, float, rules) for v in value) and value[0] <= value[1]
    else:
        words, fine = TYPES[kind] + within, _is(value, kind, rules)
    return None if fine else words


def _is(value: object, kind: type, rules: tuple[Range, ...]) -> bool:
    if isinstance(value, bool) != (kind is bool):  # True is no 1
        return False
    of_kind = isinstance(value, int | float if kind is float else kind)
    return of_kind and all(rule.holds(value) for rule in rules)
