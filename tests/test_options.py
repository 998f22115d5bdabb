"""Configurations: each that is shipped, what overrides what, and every way to get one wrong."""

import dataclasses
import re
import runpy
import sys

import pytest
import yaml

import common.config
from common import augment, schedules
from common.config import LevelConfig, UserError
from common.options import load_config

PROJECT = common.config.PROJECT
SHIPPED = sorted(PROJECT.glob("level*/**/*.yaml"))
NAMES = ["level1_baseline", "level2_augmentation", "level3_fusion", "level4_finetune_tta"]
LEVEL2 = PROJECT / "level2_augmentation" / "config.yaml"


def refused(*words, file=LEVEL2, arguments=()):
    """The one-line UserError that names all the words."""
    with pytest.raises(UserError) as caught:
        load_config(file, list(arguments))
    text = str(caught.value)
    assert "\n" not in text
    assert [word for word in words if word not in text] == [], text


@pytest.fixture
def written(tmp_path):
    """A function that writes a YAML file and returns its path."""

    def write(text, name="mine.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def run_script(script, arguments, monkeypatch, capsys):
    """A level's run.py with a command line; returns exit status, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    return stopped.value.code, *capsys.readouterr()


# ---- what is shipped ----


def test_the_four_levels_are_shipped():
    assert {PROJECT / name / "config.yaml" for name in NAMES} <= set(SHIPPED)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: str(f.relative_to(PROJECT)))
def test_shipped_config_loads_and_means_what_it_says(file):
    config = load_config(file)
    settings = config.settings()
    for key, value in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        shown = {k: settings[key][k] for k in value} if isinstance(value, dict) else settings[key]
        assert shown == value
    augment.build(config.augment, mirror=True)
    rate = schedules.build(config.train.schedule, 10)
    assert 0 < max(rate(step) for step in range(10)) <= 1
    assert config.file == file and config.stem == file.stem
    if file.parent.name not in NAMES:
        return  # a reader's own level
    header = file.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in header)
    assert f"python {file.parent.name}/run.py" in "\n".join(header), "the claim's command"


def test_the_ladder_of_recipes():
    """Levels 2 and 3 share a recipe; each level's rate and trained stages are the course's."""
    recipes = {int(name[5]): load_config(PROJECT / name / "config.yaml") for name in NAMES}
    assert {n: (c.train.lr, c.train.epochs) for n, c in recipes.items()} == {
        **{1: (1e-3, 5), 2: (1e-4, 3)},
        **{3: (1e-4, 3), 4: (5e-5, 2)},
    }
    assert recipes[1].network.trainable == ["head"] and recipes[1].augment == []
    assert recipes[4].network.trainable == ["layer3", "layer4", "head"]
    assert {n: c.test.tta for n, c in recipes.items()} == {1: "none", 2: "none", 3: "none"} | {
        4: "flip"
    }
    second, third = recipes[2].settings(), recipes[3].settings()
    assert second.pop("benchmarks") != third.pop("benchmarks")
    assert second["network"].pop("taps") is None
    assert third["network"].pop("taps") == ["layer3", "layer4"]
    assert second == third, "levels 2 and 3 differ in the head alone"
    assert all(c.train.batch_size == 128 for c in recipes.values())


# ---- defaults < YAML < command line ----


def test_defaults_then_yaml_then_command_line(written):
    file = written("train: {epochs: 7, lr: 0.5}\nseed: 4\n")
    config = load_config(file, ["--train.lr", "0.25", "--network.image_size=48"])
    assert (config.train.batch_size, config.train.optimizer) == (128, "adam"), "defaults"
    assert (config.train.epochs, config.seed) == (7, 4), "YAML"
    assert (config.train.lr, config.network.image_size) == (0.25, 48), "command line"


def test_numbers_as_people_write_them(written):
    config = load_config(written("train: {lr: 1e-3, weight_decay: 5.0E-4, clip_norm: 1}"))
    assert (config.train.lr, config.train.weight_decay, config.train.clip_norm) == (1e-3, 5e-4, 1.0)
    assert load_config(LEVEL2, ["--train.lr", "3e-4"]).train.lr == 3e-4


def test_seeds():
    assert load_config(LEVEL2).seeds is None
    assert load_config(LEVEL2, ["--seeds", "0", "1", "2"]).seeds == [0, 1, 2]
    assert load_config(LEVEL2, ["--seeds", "5", "--train.epochs", "1"]).seeds == [5]
    assert load_config(LEVEL2, ["--seeds=[3,4]"]).seeds == [3, 4]
    config = load_config(LEVEL2)
    other = config.with_seed(9)
    assert (other.seed, config.seed) == (9, 0) and other.train is config.train
    refused("command line", "seeds", "at least 0", arguments=["--seeds", "0", "-1"])
    refused("command line", "seeds", "whole number", arguments=["--seeds", "0", "x"])
    refused("command line", "seeds", "one or more", arguments=["--seeds"])


def test_lists_from_the_command_line():
    assert load_config(LEVEL2, ["--network.trainable", "layer3", "head"]).network.trainable == [
        "layer3",
        "head",
    ]
    assert load_config(LEVEL2, ["--augment", "crop", "flip"]).augment == ["crop", "flip"]
    steps = load_config(LEVEL2, ["--augment", "[flip, {crop: {padding: 2}}]"]).augment
    assert steps == ["flip", {"crop": {"padding": 2}}]


def test_offline_is_short_for_bundled_data_and_weights():
    config = load_config(LEVEL2, ["--offline", "--train.epochs", "1"])
    assert (config.data.name, config.network.weights) == ("digits", "tiny-imagenet")
    assert config.train.epochs == 1
    assert config.network.trainable == load_config(LEVEL2).network.trainable, "all else stays"
    assert "offline" not in config.settings()


def test_another_config_replaces_the_levels_own(written):
    file = written("seed: 3\n", "long.yaml")
    config = load_config(LEVEL2, ["--config", str(file), "--train.epochs", "9"])
    assert config.stem == "long" and config.file == file
    assert (config.seed, config.train.epochs) == (3, 9)
    assert config.augment == [] and config.train.lr == 1e-3, "nothing of level 2's own is left"
    assert load_config(LEVEL2, ["--train.epochs=9", f"--config={file}"]).settings() == (
        config.settings()
    )
    assert load_config(LEVEL2).stem == "config"
    refused("nowhere.yaml", "cannot read", arguments=["--config", "nowhere.yaml"])


# ---- mistakes ----


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: {epohcs: 3}", ["unknown key 'train.epohcs'", "mean 'train.epochs'"]),
        ("trian: {epochs: 3}", ["unknown key 'trian'", "mean 'train'"]),
        ("train.epochs: 3\nsede: 1", ["unknown key 'sede'", "mean 'seed'"]),
        ("xyzzy: 3", ["unknown key 'xyzzy'", "known: data, "]),
        ("file: x", ["unknown key 'file'"]),
        ("train: {epochs: three}", ["train.epochs", "a whole number", "'three'"]),
        ("train: {epochs: 3.5}", ["train.epochs", "a whole number", "'3.5'"]),
        ("train: {epochs: }", ["train.epochs", "a whole number", "nothing"]),
        ("train: {lr: fast}", ["train.lr", "a number", "'fast'"]),
        ("train: {optimizer: sgdd}", ["train.optimizer", "adam, adamw, sgd", "'sgdd'"]),
        ("data: {name: imagenette}", ["data.name", "cifar10, cifar100, folder, digits"]),
        ("data: {limit: many}", ["data.limit", "a whole number or nothing", "'many'"]),
        ("network: {trainable: head}", ["network.trainable", "a list", "'head'"]),
        ("augment: [[1]]", ["augment", "a list"]),
        ("seeds: 3", ["seeds", "a list", "'3'"]),
        ("fast: perhaps", ["fast", "true or false", "'perhaps'"]),
        ("train: 3", ["train", "a mapping", "'3'"]),
        ("train:", ["train", "a mapping", "nothing"]),
        ("- 1", ["a mapping"]),
        ("# nothing", ["a mapping", "not nothing"]),
        ("a: [", ["not YAML"]),
        ("benchmarks: [{data: x}]", ["benchmarks", "weights", "accuracy"]),
    ],
)
def test_mistakes_in_yaml(written, text, words):
    refused("mine.yaml", *words, file=written(text))
    refused("mine.yaml", *words, arguments=["--config", str(written(text))])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--train.epohcs", "3"], ["unknown option '--train.epohcs'", "mean 'train.epochs'"]),
        (["--train.epohcs=3"], ["unknown option '--train.epohcs'", "mean 'train.epochs'"]),
        (["--ofline"], ["unknown option '--ofline'", "mean 'offline'"]),
        (["--train.epochs", "two"], ["train.epochs", "a whole number", "'two'"]),
        (["--train.precision", "half"], ["train.precision", "auto, float32, bfloat16, float16"]),
        (["--resume"], ["--resume", "expected one argument"]),
        (["pets"], ["unrecognized", "pets"]),
    ],
)
def test_mistakes_on_the_command_line(arguments, words):
    refused("command line", *words, arguments=arguments)


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("data.val_fraction", ["0", "1", "1.5", "-1", "nan"], "0.999"),
        ("data.stored_size", ["0", "-1"], "1"),
        ("data.limit", ["0"], "1"),
        ("network.image_size", ["31", "0", "-32"], "32"),
        ("train.epochs", ["0", "-1"], "1"),
        ("train.batch_size", ["0"], "1"),
        ("train.lr", ["0", "-1", "inf", "nan"], "1e-9"),
        ("train.weight_decay", ["-0.1"], "0"),
        ("train.label_smoothing", ["1", "-0.1"], "0"),
        ("train.clip_norm", ["0"], "0.1"),
        ("train.early_stopping", ["0"], "1"),
        ("train.threads", ["0"], "1"),
        ("seed", ["-1"], "0"),
    ],
)
def test_values_out_of_range(written, key, bad, good):
    load_config(LEVEL2, [f"--{key}", good])
    group, _, name = key.rpartition(".")
    for value in bad:
        refused("command line", key, value, arguments=[f"--{key}={value}"])
        if value not in ("nan", "inf"):
            text = f"{group}: {{{name}: {value}}}" if group else f"{name}: {value}"
            refused("mine.yaml", key, value, file=written(text))


# ---- --print_config and --help ----


@pytest.mark.parametrize("level", ["level2_augmentation", "level4_finetune_tta"])
def test_printed_config_loads_again(level, monkeypatch, capsys, written):
    script = PROJECT / level / "run.py"
    options = ["--offline", "--train.schedule", "{cosine: {warmup: 0.1}}", "--seeds", "0", "1"]
    for arguments in ([], options):
        code, printed, complaints = run_script(
            script, [*arguments, "--print_config"], monkeypatch, capsys
        )
        assert (code, complaints) == (0, "")
        file = written(printed, "my.yaml")
        own = load_config(PROJECT / level / "config.yaml", arguments)
        again = load_config(PROJECT / level / "config.yaml", ["--config", str(file)])
        assert again.settings() == own.settings() and again.stem == "my"
        assert set(yaml.safe_load(printed)) == {
            f.name for f in dataclasses.fields(LevelConfig) if f.init
        }
        second = run_script(script, ["--config", str(file), "--print_config"], monkeypatch, capsys)
        assert second[:2] == (0, printed)


def options_of(cls=LevelConfig, prefix="--"):
    for f in dataclasses.fields(cls):
        if f.init and dataclasses.is_dataclass(f.default_factory):
            yield from options_of(f.default_factory, f"{prefix}{f.name}.")
        elif f.init:
            yield prefix + f.name


def test_help_says_what_every_option_means(monkeypatch, capsys):
    script = PROJECT / "level2_augmentation" / "run.py"
    code, text, _ = run_script(script, ["--help"], monkeypatch, capsys)
    assert code == 0 and "usage: python level2_augmentation/run.py" in text
    body = text[text.index("\noptions:") :]
    entries = {}  # option -> all that stands under it
    for line in body.splitlines():
        if match := re.match(r"  (-\S+.*)", line):
            words, _, rest = match[1].partition("  ")
            option = re.search(r"--[\w.]+", words)[0]
            entries[option] = rest.strip()
        elif line.startswith(" " * 20) and entries:
            entries[option] = f"{entries[option]} {line.strip()}".strip()
    meanings = {option: re.sub(r"\(type: .*", "", text) for option, text in entries.items()}
    expected = {*options_of(), "--config", "--print_config", "--offline", "--help"}
    assert expected <= meanings.keys()
    assert {"--seed", "--train.lr", "--test.tta", "--benchmarks"} <= expected
    without = [option for option, text in meanings.items() if len(text.split()) < 2]
    assert without == []
    assert "default: 3)" in entries["--train.epochs"], "the level's own value, from its YAML"
    assert entries["--data.val_fraction"].endswith("(type: float, default: 0.2)")
