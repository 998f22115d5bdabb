"""YAML, read strictly and written so that it is read back as it was."""

import re
from pathlib import Path
from typing import Any

import yaml

from common.utils.errors import UserError
from common.utils.files import read_bytes

LONGEST = 2**20  # bytes of a config


def read(file: Path) -> dict[str, Any]:
    """A config's mapping of keys to values.

    Raises:
        UserError: a file that cannot be read, is no YAML or no mapping, or has a key twice.
    """
    try:
        content = yaml.load(read_bytes(file, LONGEST).decode("utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"{file}: cannot read this config ({error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a 13th month
        raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: a config is a mapping of keys to values, not {shown(content)}")
    return content


def write(content: dict[str, Any]) -> str:
    """Plain data as YAML, in its order; texts that another reader takes for numbers are quoted."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def inline(value: Any) -> str:
    """Plain data as YAML in one line: [flip, {crop: {padding: 4}}]."""
    text = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=10**9, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()


def is_nothing(text: str) -> bool:
    """Whether YAML reads a text, were it not in quotes, as null."""
    try:
        return bool(text.strip()) and yaml.safe_load(text) is None
    except (yaml.YAMLError, ValueError, RecursionError):
        return False


def shown(value: Any) -> str:
    """A value as an error shows it."""
    text = str(value)
    return "nothing" if value is None else f"'{text[:100]}{'...' if text[100:] else ''}'"


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would forget the first, and aliases, of which
    few bytes make any number of values.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            alias = self.peek_event()
            text = f"'*{alias.anchor}' is an alias; write the value itself"
            raise yaml.composer.ComposerError(None, None, text, alias.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                twice = f"the key '{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, twice, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes 1e5 the text as '1e5': YAML 1.1 knows no such number, but jsonargparse does.

    And Unicode's line breaks as escapes, which YAML would otherwise fold into spaces.
    """

    def represent_str(self, text: str) -> yaml.ScalarNode:
        style = '"' if set(text) & set("\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_str)

_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.[\d_]+)([eE][-+]?\d+)?$"),
    list("-+.0123456789"),
)
