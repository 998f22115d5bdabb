"""Reads a configuration: defaults < the level's YAML < the command line.

A key nobody knows is an error that names the key, where it stands and the nearest right one; so is
a value of the wrong type or out of range.
"""

import argparse
import dataclasses
import functools
import glob
import os
import re
import sys
import textwrap
import types
import typing
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings

from common.config import yaml_files
from common.config.completion import completion_script
from common.config.ranges import broken_rules
from common.config.recipe import NAME, name_recipe
from common.config.schema import LevelConfig, Step, flat
from common.utils.errors import UserError, nearest
from common.utils.paths import OWN, VARIABLE, expanded

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # help stands under its field

FLAGS = "--resume", "--anew", "--summary"  # which need no value
LISTS = "--seeds", "--network.trainable", "--network.taps", "--augment"
OFFLINE = ["--data.name", "digits", "--network.weights", "tiny-imagenet"]
HELP = """\
usage: {prog} [--OPTION VALUE ...]

  --offline       short for --data.name digits --network.weights tiny-imagenet,
                  where these are not given
  --config FILE   another config than the level's own
  --print_config  print the configuration as it would be run, and stop
  --print_shtab SHELL
                  print tab completion for bash or zsh, and stop
  --help          print this, and stop

Below, each option stands with its value in the config. Lists are words or YAML:
--augment flip crop, --augment '[flip, {{crop: {{padding: 2}}}}]'.
"""


def load_config(file: Path, arguments: list[str] = (), prog: str | None = None) -> LevelConfig:
    """Read a level's YAML, then the command line's options (`--config FILE` replaces the YAML).

    Raises:
        UserError: an unknown key, a wrong type, a value out of range, or an unreadable file.
    """
    arguments = _expand(arguments)
    options = _options(arguments)
    chosen = [value for name, value in options if name == "config"]
    if len(chosen) > 1:
        raise UserError("command line: --config takes one file; give it once")
    usual, file = file, expanded(chosen[0]) if chosen and chosen[0] else file
    _check_file(file)
    _check_options(options)
    parser = _parser(prog)
    # escaped: jsonargparse takes names for patterns, and passes over what matches none
    parser.default_config_files = [] if chosen else [glob.escape(str(file))]
    for shell in (value for name, value in options if name == "print_shtab"):
        print(_completion(parser, shell))
        sys.exit()
    try:
        namespace = parser.parse_args(arguments)
        config = parser.instantiate(namespace)
    except Exception as error:  # jsonargparse has no one base class for what it raises
        raise _plain(error, file, options) from error
    config = LevelConfig(
        **{f.name: config[f.name] for f in dataclasses.fields(LevelConfig) if f.init}
    )
    config.file = file.resolve()
    for key, value in flat(config.settings()).items():
        if odd := [name for name in _names(value) if not isinstance(name, str)]:
            where = _where(key, config.file, options)
            raise UserError(f"{where}: {key}: a name is a text, not {yaml_files.shown(odd[0])}")
    for key, (value, rule) in broken_rules(config).items():
        raise UserError(f"{_where(key, config.file, options)}: {key} must be {rule}, not {value}")
    recipe = (config.network.start_from or "").partition("/")[2]
    if recipe and not NAME.fullmatch(recipe):
        where = _where("network.start_from", config.file, options)
        raise UserError(f"{where}: network.start_from: no recipe can be called '{recipe}'")
    if config.runs:
        os.environ[VARIABLE] = config.runs  # for all of this command, and those that it starts
    named_alike = file.stem == usual.stem and file.resolve() != usual.resolve()
    base = load_config(usual if named_alike else file) if options else config
    name_recipe(config, base, _below(config, arguments) if options else None)
    return config


def _below(config: LevelConfig, arguments: list[str]) -> LevelConfig | None:
    """The config that a config starts from, given the same options; None where there is none."""
    level = next((p for p in config.file.parents if (p / "run.py").is_file()), config.file.parent)
    name, _, recipe = (config.network.start_from or "").partition("/")
    file = next((level.parent / name).rglob(f"{recipe or OWN}.yaml"), None) if name else None
    if file is None or file.resolve() == config.file:
        return None
    shared, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        value = rest[:1] if "=" not in argument else []
        if argument.split("=")[0] not in ("--config", "--name", "--network.start_from"):
            shared.append(argument)
        else:
            del rest[: len(value)]
    return load_config(file, shared)


class LevelParser(ArgumentParser):
    """jsonargparse's, with a help that is read at 80 columns."""

    def format_help(self) -> str:
        """The options by group, each with its value in this config, as YAML."""
        values, lines = self.get_defaults(), [HELP.format(prog=self.prog)]
        for title, options in self.options().items():
            lines.append(f"{title}:")
            for key, words in options.items():
                lines.append(f"  --{key} {yaml_files.inline(values[key])}")
                lines += textwrap.wrap(words, 78, initial_indent=" " * 6, subsequent_indent=" " * 6)
            lines.append("")
        return "\n".join(lines)

    def options(self) -> dict[str, dict[str, str]]:
        """The options that stand on a command line: by group's title and key, what each means."""
        shown = {key for key, kind in KNOWN.items() if not dataclasses.is_dataclass(kind)}
        shown.remove("benchmarks")  # which stand in a file alone
        return {
            group.title: {a.dest: " ".join(a.help.split()) for a in actions}
            for group in self._action_groups
            if (actions := [a for a in group._group_actions if a.dest in shown])
        }


@functools.cache  # a tenth of a second to build
def _parser(prog: str | None) -> LevelParser:
    parser = LevelParser(prog=prog, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action=ActionConfigFile)
    # no key of a config: --print_config must not print it
    parser.add_argument("--offline", action="store_true", default=argparse.SUPPRESS)
    parser.add_class_arguments(LevelConfig)
    return parser


def _completion(parser: LevelParser, shell: str | None) -> str:
    """The script for --print_shtab."""
    options = {
        "--offline": (None, " ".join(OFFLINE)),
        "--config": (str, "another config than the level's own"),
        "--print_config": (None, "print the configuration as it would be run, and stop"),
    }
    for group in parser.options().values():
        options |= {f"--{key}": (KNOWN[key], words) for key, words in group.items()}
    return completion_script(shell, options, dict.fromkeys(FLAGS, "?") | dict.fromkeys(LISTS, "*"))


def _expand(arguments: list[str]) -> list[str]:
    """Spell out `--offline`, `--resume`, `--anew` and `--summary` without a value, and lists like
    `--seeds 0 1 2`.

    `--config FILE` goes first, then `--offline`: other options override them wherever they stand.
    """
    first, offline, spelled, rest = [], [], [], list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--offline":
            offline = OFFLINE
        elif argument in FLAGS and (not rest or rest[0].startswith("--")):
            spelled += [argument, "true"]
        elif argument == "--config" and rest:
            first += [argument, rest.pop(0)]
        elif argument.startswith("--config="):
            first.append(argument)
        elif argument in LISTS:
            values = []
            while rest and not rest[0].startswith("--"):
                values += rest.pop(0).strip("[]").split(",")
            nothing = values in (["null"], ["~"])
            spelled += [argument, "null" if nothing else "[" + ",".join(values) + "]"]
        else:
            spelled.append(argument)
    return first + offline + spelled


def _options(arguments: list[str]) -> list[tuple[str, str | None]]:
    """Each option's name, and its value: what follows it, or its equals sign."""
    options = []
    for argument, following in zip_longest(arguments, arguments[1:]):
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            options.append((name.removesuffix("+"), value if equals else following))
    return options


def _known_keys(cls: type = LevelConfig, prefix: str = "") -> dict[str, type]:
    """Dotted key -> its dataclass for groups and lists of dataclasses, else its type."""
    keys = {}
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        if f.init:
            keys[prefix + f.name] = hints[f.name]
            if dataclasses.is_dataclass(hints[f.name]):
                keys |= _known_keys(hints[f.name], prefix + f.name + ".")
    return keys


KNOWN = _known_keys()


def _check_file(file: Path) -> None:
    for key, value in _flatten(yaml_files.read(file)):
        if key not in KNOWN:
            raise UserError(f"{file}: unknown key '{key}'{nearest(key, KNOWN)}")
        kind, group = KNOWN[key], dataclasses.is_dataclass(KNOWN[key])
        optional = type(None) in typing.get_args(kind)
        if (group and not isinstance(value, dict)) or (value is None and not optional):
            words = "a mapping of keys to values" if group else _type_name(kind)
            raise UserError(f"{file}: {key}: expected {words}, got {yaml_files.shown(value)}")
        _check_text(str(file), key, value, kind)


def _check_options(options: list[tuple[str, str | None]]) -> None:
    known = [*KNOWN, "config", "print_config", "print_shtab", "offline"]
    for key, value in options:
        if key not in known and key != "help" and not key.endswith(".help"):
            raise UserError(f"command line: unknown option '--{key}'{nearest(key, known)}")
        if dataclasses.is_dataclass(KNOWN.get(key)) and not str(value).lstrip().startswith("{"):
            raise UserError(f"command line: --{key}: give its options one by one, as --{key}.NAME")
        if value not in ("null", "~"):  # which are how one says nothing there
            _check_text("command line", key, value, KNOWN.get(key))


def _check_text(where: str, key: str, value: Any, kind: Any) -> None:
    """A text must not be one that jsonargparse takes for nothing: a comment, or null in quotes."""
    if kind == str | None and isinstance(value, str) and yaml_files.is_nothing(value):
        raise UserError(f"{where}: {key}: '{value}' is YAML for nothing; choose another text")
    if isinstance(value, str) and "\0" in value:
        raise UserError(f"{where}: {key}: a text without NUL characters, not {value!r}")


def _flatten(content: dict, prefix: str = "") -> typing.Iterator[tuple[str, Any]]:
    for name, value in content.items():
        key = f"{prefix}{name}"
        yield key, value
        if isinstance(value, dict) and dataclasses.is_dataclass(KNOWN.get(key)):
            yield from _flatten(value, key + ".")


def _names(value: Any) -> typing.Iterator[Any]:
    """All keys of mappings within a value, which jsonargparse does not look at."""
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _names(part)


def _plain(error: Exception, file: Path, options: list[tuple[str, str | None]]) -> UserError:
    """One line from jsonargparse's several."""
    text = " ".join(str(error).split())
    key = re.search(r'(?:Parser key|option|argument) "?\'?-*([\w.]+)', text)
    name = key.group(1) if key else ""
    typed = text.startswith(("argument", "unrecognized"))  # argparse's own: never from a file
    where = "command line" if typed else _where(name, file, options)
    known = KNOWN.get(name)
    value = re.search(r"(?:Got|Given) value: (.*?)(?: \||$| - Expected)", text)
    if known is not None and value:
        return UserError(f"{where}: {name}: expected {_type_name(known)}, got '{value.group(1)}'")
    return UserError(f"{where}: {text}")


def _where(name: str, file: Path, options: list[tuple[str, str | None]]) -> str:
    """Where an option's value comes from, as far as the command line tells."""
    typed = any(option in (name, name.split(".")[0]) for option, _ in options)
    return "command line" if typed else str(file)


def _type_name(kind: Any) -> str:
    if kind == Step:
        return "a name, or a name with its parameters"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    if isinstance(kind, types.UnionType):
        parts = ["nothing" if a is type(None) else _type_name(a) for a in typing.get_args(kind)]
        return " or ".join(parts)
    if typing.get_origin(kind) is list:
        return "a list, each item " + _type_name(typing.get_args(kind)[0])
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(kind, getattr(kind, "__name__", str(kind)))
