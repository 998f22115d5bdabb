"""Bad input from the command line: one line on stderr that says what, where and what to do."""

import os
import subprocess
import sys

import pytest

from refusals import LEVELS, TINY, one_line

# ---- as a user's shell sees it ----


def shell(tmp_path, *command):
    """A command as a process of its own, from another folder."""
    environment = os.environ | {"TORCH_HOME": str(tmp_path / "torch")}
    environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        **{"env": environment, "cwd": tmp_path, "capture_output": True, "text": True},
    )
    return done.returncode, done.stderr


def test_in_a_process_unknown_option(tmp_path):
    code, text = shell(tmp_path, LEVELS[1] / "run.py", "--train.epohcs", "3")
    one_line(code, text, "command line", "--train.epohcs", "did you mean 'train.epochs'")


def test_in_a_process_no_network(tmp_path):
    """A real connection that is refused, not a patched one."""
    root = tmp_path / "archives"
    code, text = shell(tmp_path, LEVELS[2] / "run.py", "--data.root", root)
    weights = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    one_line(code, text, root / "cifar-10-python.tar.gz", weights, "--offline")
    assert list(root.iterdir()) == [], "nothing half-written"


# ---- config ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--train.epochs", "two"], ["train.epochs", "a whole number", "'two'"]),
        (
            ["--data.name", "imagenette"],
            ["data.name", "cifar10, cifar100, cifar100_coarse, folder, digits"],
        ),
        (["--data.val_fraction", "0"], ["data.val_fraction", "between 0 and 1", "not 0"]),
        (["--data.val_fraction", "1"], ["data.val_fraction", "between 0 and 1", "not 1"]),
        (["--data.val_fraction", "1.5"], ["data.val_fraction", "between 0 and 1", "1.5"]),
        (["--data.val_fraction=-1"], ["data.val_fraction", "between 0 and 1", "-1"]),
        (["--network.image_size", "31"], ["network.image_size", "at least 32", "31"]),
        (["--train.epochs", "0"], ["train.epochs", "at least 1", "0"]),
        (["--train.batch_size", "0"], ["train.batch_size", "at least 1", "0"]),
    ],
)
def test_values(refused, arguments, words):
    refused(1, [*TINY, *arguments], "command line", *words)


def test_unknown_key_in_a_config_file(refused, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("train: {batchsize: 3}", encoding="utf-8")
    refused(3, ["--config", file], file, "'train.batchsize'", "did you mean 'train.batch_size'")
    refused(3, ["--config", tmp_path / "none.yaml"], tmp_path / "none.yaml", "cannot read")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--network.trainable", "layr4", "head"], ["network.trainable", "'layr4'", "'layer4'"]),
        (["--network.arch", "resnet19"], ["network.arch", "'resnet19'", "mean 'resnet18'"]),
        (["--augment", "flipp"], ["augment", "'flipp'", "did you mean 'flip'"]),
        (["--augment", "[{crop: {pading: 1}}]"], ["augment", "'pading'", "mean 'padding'"]),
        (["--augment", "[{crop: {padding: 1.5}}]"], ["augment", "crop: padding", "whole number"]),
        (["--augment", "[{crop: {padding: -1}}]"], ["augment", "crop: padding", "at least 0"]),
        (["--augment", "[{flip: {probability: 2}}]"], ["flip: probability", "from 0 to 1"]),
        (["--augment", "[{flip: {probability: often}}]"], ["flip: probability", "'often'"]),
        (["--augment", "[{flip: {}, crop: {}}]"], ["a step has one name"]),
        (["--train.schedule", "cosin"], ["train.schedule", "'cosin'", "mean 'cosine'"]),
        (["--train.schedule", "{cosine: {warmp: 0.1}}"], ["train.schedule", "mean 'warmup'"]),
        (["--train.schedule", "{cosine: {warmup: 2}}"], ["train.schedule", "within 0 and 1"]),
        (["--train.device", "warp"], ["train.device", "'warp'", "auto or cpu"]),
        (["--train.device", "cuda:99"], ["train.device", "'cuda:99'", "auto or cpu"]),
        (["--train.device", "meta"], ["train.device", "'meta'", "auto or cpu"]),
        (
            ["--train.device", "cpu", "--train.precision", "float16"],
            ["train.precision", "float16", "bfloat16 or float32"],
        ),
    ],
)
def test_names_and_parameters(refused, arguments, words):
    refused(1, [*TINY, *arguments], *words)
