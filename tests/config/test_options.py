"""Options: what overrides what, and every way to get one wrong."""

import pytest

from common.config import load_config
from common.utils.errors import UserError, nearest
from helpers.projects import PROJECT

LEVEL2 = PROJECT / "level2_augmentation" / "config.yaml"


def refused(*words, file=LEVEL2, arguments=()):
    """The one-line UserError that names all the words."""
    with pytest.raises(UserError) as caught:
        load_config(file, list(arguments))
    text = str(caught.value)
    assert "\n" not in text
    assert [word for word in words if word not in text] == [], text


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


def test_a_value_may_be_called_like_a_group():
    config = load_config(LEVEL2, ["--data.name", "folder", "--data.root", "data", "--reports=test"])
    assert (config.data.root, config.reports) == ("data", "test")
    assert load_config(LEVEL2, ["--train", "{lr: 0.5}"]).train.lr == 0.5


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
    for order in (["--config", str(file)], [f"--config={file}"]):
        for place in (order + ["--train.epochs", "9"], ["--train.epochs", "9"] + order):
            assert load_config(LEVEL2, place).train.epochs == 9, "an option overrides the file"
    config = load_config(LEVEL2, ["--config", str(file), "--train.epochs", "9"])
    assert config.recipe == "long-epochs-9" and config.file == file
    assert (config.seed, config.train.epochs) == (3, 9)
    assert config.augment == [] and config.train.lr == 1e-3, "nothing of level 2's own is left"
    assert load_config(LEVEL2, ["--train.epochs=9", f"--config={file}"]).settings() == (
        config.settings()
    )
    assert load_config(LEVEL2).recipe == "config"
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
        ("data: {name: imagenette}", ["data.name", "cifar10, cifar100, cifar100_coarse, folder"]),
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
        (["--fast"], ["--fast", "expected one argument"]),
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


@pytest.mark.parametrize("line", [["--resume"], ["--resume", "--seed", "1"], ["--resume", "true"]])
def test_resume_is_a_word_of_its_own(line):
    assert load_config(PROJECT / "level1_baseline" / "config.yaml", line).resume is True


def test_an_option_without_its_group_is_found_by_its_last_word():
    assert nearest("lr", ["train.lr", "train.epochs", "augment"]) == "; did you mean 'train.lr'?"
    assert nearest("train.epoch", ["train.epochs", "data"]) == "; did you mean 'train.epochs'?"
    assert nearest("zzz", ["a", "b"]) == "; known: a, b"


@pytest.mark.parametrize("first", [True, False])
def test_offline_stands_for_what_is_not_given(first):
    given = ["--data.name", "folder", "--data.root", "pets"]
    options = ["--offline", *given] if first else [*given, "--offline"]
    config = load_config(LEVEL2, options)
    assert (config.data.name, config.network.weights) == ("folder", "tiny-imagenet")
