"""Configs that nobody thought of: each is read and printed back the same, or refused in a line."""

import dataclasses
import math
import string
import tempfile
import types
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from common.config import LevelConfig, load_config, yaml_files
from common.utils.errors import UserError
from helpers.projects import NAMES, PROJECT

# ---- what a config may hold ----

COUNT, OPEN = st.integers(1, 2**31 - 1), st.floats(0, 1, exclude_min=True, exclude_max=True)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["yes", "1e5", "-1.5E+3", ".5", "1_000", "0x1F", "2024-02-30", "=", "<<", "a: b", "[1]", "a\nb"]
)
NOTHING = ["null", "Null", "~", "#", "# pets", "---", "!!null x"]  # to YAML, without quotes
TEXT = TEXT.filter(lambda text: not yaml_files.is_nothing(text) and "\0" not in text)
NUMBER = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
PLAIN = NUMBER | TEXT
STEP = TEXT | st.dictionaries(  # no step takes texts: "0" in quotes is read as 0 there
    TEXT, st.none() | st.dictionaries(TEXT, NUMBER, max_size=2), min_size=1, max_size=1
)
GOOD = {
    "data.name": st.sampled_from(["cifar10", "cifar100", "cifar100_coarse", "digits", "folder"]),
    "data.root": st.none() | TEXT,
    "data.title": st.none() | TEXT,
    "data.mirror": st.none() | st.booleans(),
    "data.stored_size": st.none() | st.integers(1, 4096),
    "data.split_seed": st.integers(0, 2**32 - 1),
    "data.val_fraction": OPEN,
    "data.limit": st.none() | COUNT,
    "data.skip_unreadable": st.booleans(),
    "data.drop_copies": st.booleans(),
    "network.arch": STEP,
    "network.weights": TEXT,
    "network.weights_title": st.none() | TEXT,
    "network.image_size": st.none() | st.integers(32, 4096),
    "network.trainable": st.lists(TEXT, min_size=1, max_size=3),
    "network.taps": st.none() | st.lists(TEXT, max_size=3),
    "network.start_from": st.none() | TEXT,
    "augment": st.lists(STEP, max_size=3),
    "train.epochs": COUNT,
    "train.batch_size": COUNT,
    "train.optimizer": st.sampled_from(["adam", "adamw", "sgd"]),
    "train.lr": st.floats(0, exclude_min=True, allow_infinity=False),
    "train.weight_decay": st.floats(0, allow_infinity=False),
    "train.schedule": STEP,
    "train.label_smoothing": st.floats(0, 1, exclude_max=True),
    "train.clip_norm": st.none() | st.floats(0, exclude_min=True, allow_infinity=False),
    "train.ema": st.none() | OPEN,
    "train.early_stopping": st.none() | COUNT,
    "train.freeze_batch_norm": st.booleans(),
    "train.deterministic": st.booleans(),
    "train.precision": st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    "train.device": TEXT,
    "train.threads": st.none() | st.integers(1, 1024),
    "train.compile": st.booleans(),
    "test.tta": st.sampled_from(["none", "flip", "shifts", "flip_shifts"]),
    "benchmarks": st.lists(
        st.fixed_dictionaries(
            {"data": TEXT, "weights": TEXT, "image_size": COUNT, "accuracy": st.floats(0, 100)}
        ),
        max_size=2,
    ),
    "seed": st.integers(0, 2**63 - 1),
    "seeds": st.none() | st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True),
    "resume": st.booleans(),
    "anew": st.booleans(),
    "audit": st.booleans(),
    "log": st.sampled_from(["none", "tensorboard"]),
    "fast": st.booleans(),
    "reports": st.none() | TEXT,
}
JUNK = st.recursive(
    PLAIN | st.just(math.nan) | st.dates() | st.sampled_from(NOTHING),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
    max_leaves=5,
)


def configs(spoil):
    """Nested configs of some of the keys; `spoil` of them with anything for a value, or a key."""

    @st.composite
    def build(draw):
        flat = {key: draw(GOOD[key]) for key in draw(st.sets(st.sampled_from(list(GOOD))))}
        for _ in range(spoil):
            flat[draw(st.sampled_from([*GOOD, "data", "train", "epohcs", "data.tilte"]))] = draw(
                JUNK
            )
        nested = {}
        for key, value in flat.items():
            group, _, name = key.rpartition(".")
            if not group:
                nested[name] = value
            elif isinstance(nested.setdefault(group, {}), dict):
                nested[group][name] = value
        return nested

    return build()


# ---- what is demanded ----


def fits(value, kind):
    """Whether a value is of an option's declared type, by this file's reading of it."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        own = [f.name for f in dataclasses.fields(kind)]
        return isinstance(value, kind) and all(fits(getattr(value, n), hints[n]) for n in own)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, part) for part in arguments)
    if origin is list:
        return type(value) is list and all(fits(part, arguments[0]) for part in value)
    if origin is dict:
        pairs = value.items() if type(value) is dict else [(None, None)]
        return all(fits(k, arguments[0]) and fits(v, arguments[1]) for k, v in pairs)
    return kind is Any or (isinstance(value, kind) if kind is Path else type(value) is kind)


def in_range(c):
    """Whether every figure is where its option's documentation has it."""
    whole = [c.data.stored_size, c.data.limit, c.train.epochs, c.train.batch_size]
    whole += [c.train.early_stopping, c.train.threads]
    return (
        all(n is None or 1 <= n < 2**63 for n in whole)
        and (c.data.stored_size is None or c.data.stored_size <= 4096)
        and (c.network.image_size is None or 32 <= c.network.image_size <= 4096)
        and 0 < c.data.val_fraction < 1
        and 0 <= c.data.split_seed < 2**32
        and 0 < c.train.lr < math.inf
        and 0 <= c.train.weight_decay < math.inf
        and 0 <= c.train.label_smoothing < 1
        and (c.train.clip_norm is None or 0 < c.train.clip_norm < math.inf)
        and (c.train.ema is None or 0 < c.train.ema < 1)
        and all(0 <= seed < 2**63 for seed in [c.seed, *(c.seeds or [])])
        and (c.seeds is None or 0 < len(c.seeds) == len(set(c.seeds)))
        and c.network.trainable != []
    )


def read(text, arguments=()):
    """The config, fit, in range and printed back the same; None if it is refused, in one line."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "[1].yaml"  # a name that is a pattern, too
        file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        try:
            config = load_config(file, list(arguments))
        except UserError as error:
            line = str(error)
            assert len(line.splitlines()) == 1 and len(line) < 3000
            assert all(c.isprintable() or c.isspace() for c in line)
            return None
        assert fits(config, LevelConfig) and in_range(config)
        file.write_text(yaml_files.write(config.settings()), encoding="utf-8")
        assert repr(load_config(file).settings()) == repr(config.settings())
        return config


@given(configs(spoil=0))
@example({"data": {"title": "\x85"}, "reports": "a\u2028b"})
def test_a_good_config_is_taken_as_it_is(content):
    config = read(yaml_files.write(content))
    for group, value in content.items():
        own = getattr(config, group)
        for key, wanted in value.items() if dataclasses.is_dataclass(own) else [(None, value)]:
            found = getattr(own, key) if key else own
            plain = [dataclasses.asdict(x) for x in found] if group == "benchmarks" else found
            assert plain == wanted


@given(configs(spoil=1))
def test_anything_for_a_value_is_taken_or_refused(content):
    read(yaml.safe_dump(content, allow_unicode=True))


@given(JUNK)
def test_any_yaml_is_taken_or_refused(content):
    read(yaml.safe_dump(content))


@given(st.text(st.characters(codec="utf-8")) | st.text("{}[]:,-&*!|>'\"%@`#? \n\tabtrain1.~"))
@example("seed: " + 5000 * "1")
@example("data: {title: 2001-99-99}")
@example("a: " + 3000 * "[")
@example("train: &a {schedule: {cosine: *a}}")
@example("train: {lr: 1}\ntrain: {epochs: 3}")
@example('"\\e[2J\\n\\u2028": 1')
def test_any_text_is_taken_or_refused(text):
    read(text)


@given(st.sampled_from(NAMES), st.randoms(use_true_random=False), st.integers(1, 6))
def test_a_shipped_config_with_other_bytes_is_taken_or_refused(name, random, changes):
    text = bytearray((PROJECT / name / "config.yaml").read_bytes())
    for _ in range(changes):
        text[random.randrange(len(text))] = random.choice(string.printable.encode())
    read(bytes(text))


@given(st.sampled_from(list(GOOD)), TEXT | st.text("[]{}:,-=+ 01eE.ax"), st.booleans())
def test_any_option_is_taken_or_refused(key, value, joined):
    read("{}", [f"--{key}={value}"] if joined else [f"--{key}", value])


@pytest.mark.parametrize("text", NOTHING)
def test_a_text_is_never_taken_for_nothing(text):
    for key in ("title", "root"):
        assert read(yaml_files.write({"data": {key: text}})) is None
    assert text in ("null", "~") or read("{}", [f"--data.title={text}"]) is None


def test_a_key_that_stands_twice_is_refused(written):
    with pytest.raises(UserError, match="the key 'lr' stands twice .*line 1"):
        load_config(written("train: {lr: 1, lr: 2}"))
