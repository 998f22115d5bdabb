"""Named things of a config with their parameters: looked up, and checked at the door."""

import inspect
from collections.abc import Callable
from typing import Any

from common.config.ranges import Rule
from common.config.schema import Step
from common.config.yaml_files import shown
from common.utils.errors import UserError, nearest


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

    A parameter is the config's to set where its annotation has a rule, and it has a default:
    `padding: Annotated[int, whole(0, 16)] = 4`.

    Args:
        option: where the names stand in a config.
        entries: by name.
        common: parameters that belong to each of them besides, with rule and default.
    """

    def __init__(
        self,
        option: str,
        entries: dict[str, Callable[..., Any]],
        common: dict[str, tuple[Rule, Any]] | None = None,
    ):
        super().__init__(entries)
        self.option, self.common = option, common or {}

    def find(self, step: Step) -> tuple[str, dict[str, Any]]:
        """Name and parameters of a step, defaults among them.

        Raises:
            UserError: an unknown name or parameter, or a value that breaks the parameter's rule.
        """
        name, given = named_step(step)
        if name not in self:
            raise UserError(f"{self.option}: unknown '{name}'{nearest(name, self)}")
        known = self._options(name)
        for key, value in given.items():
            if key not in known:
                hint = nearest(key, known) if known else "; it has none"
                raise UserError(f"{self.option}: {name} has no option '{key}'{hint}")
            rule, default = known[key]
            if value is not default and not rule.holds(value):
                what = f"{self.option}: {name}: {key} must be {rule.words}"
                raise UserError(f"{what}, not {shown(value)}")
            if type(value) is int and type(default) is float:
                given[key] = float(value)
        return name, {key: default for key, (_, default) in known.items()} | given

    def build(self, step: Step, **context: Any) -> Any:
        """Call what a step names with its parameters, and with what it asks for of the context."""
        name, parameters = self.find(step)
        asked = inspect.signature(self[name]).parameters
        return self[name](**parameters, **{k: v for k, v in context.items() if k in asked})

    def _options(self, name: str) -> dict[str, tuple[Rule, Any]]:
        known = inspect.signature(self[name], eval_str=True).parameters.values()
        ruled = [p for p in known if hasattr(p.annotation, "__metadata__")]
        return {p.name: (p.annotation.__metadata__[0], p.default) for p in ruled} | self.common
