"""Bad input from the command line: one line on stderr that says what, where and what to do."""

import http.client
import logging
import os
import pickle
import re
import runpy
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import pytest
import torch
import torchvision

import common.config
from common.options import load_config
from makers import make_picture_folder

PROJECT = common.config.PROJECT
LEVELS = {
    int(folder.name[5]): folder for folder in PROJECT.glob("level*_*") if folder.name[5] in "1234"
}
TINY = ["--offline", "--data.limit=60", "--network.image_size=32", "--train.epochs=1"]
TINY += ["--train.precision=float32", "--audit=false"]
log = logging.getLogger("rungs")


def no_network(*_, **__):
    raise urllib.error.URLError("no route to host")


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """Runs, data and weights go below tmp_path, nothing can be downloaded, the log is put back."""
    place = tmp_path / "project"
    monkeypatch.setattr(common.config, "PROJECT", place)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr(torch.hub, "urlopen", no_network)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(log, "handlers", [])
    threads = torch.get_num_threads()
    yield place
    torch.set_num_threads(threads)
    for handler in log.handlers:
        handler.close()


@pytest.fixture
def run(monkeypatch, capsys):
    """A function: a level's run.py with a command line -> exit status, stdout, stderr."""

    def run(level, *arguments):
        script = LEVELS[level] / "run.py"
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        code = 0
        with warnings.catch_warnings():
            warnings.simplefilter("always")  # as a new process would: also those seen before
            try:
                runpy.run_path(str(script), run_name="__main__")
            except SystemExit as stopped:
                code = stopped.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(run):
    """A function: run it, and demand status 2 and one line on stderr with all the words."""

    def refused(level, arguments, *words):
        code, _, text = run(level, *arguments)
        return one_line(code, text, *words)

    return refused


def one_line(code, text, *words):
    assert code == 2, text
    assert text.startswith("error: ") and text.count("\n") == 1 and text.endswith("\n"), text
    assert "Traceback" not in text
    assert [word for word in words if str(word) not in text] == [], text
    return text


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
        (["--data.name", "imagenette"], ["data.name", "cifar10, cifar100, folder, digits"]),
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


# ---- data ----


@pytest.fixture
def pictures(tmp_path):
    return make_picture_folder(tmp_path / "pets")


def on(root):
    return ["--data.name=folder", f"--data.root={root}", *TINY[1:], "--network.weights=none"]


def test_missing_root(refused, tmp_path):
    refused(1, [*TINY, "--data.name=folder"], "data.root is missing", "--data.root")
    refused(1, on(tmp_path / "nowhere"), tmp_path / "nowhere", "train/<class>/")


def test_class_folders_that_differ(refused, pictures):
    (pictures / "train/emu").mkdir()
    refused(1, on(pictures), pictures / "train/emu", "no counterpart in test/", "in both")


def test_empty_class(refused, pictures):
    for half in ("train", "test"):
        (pictures / half / "emu").mkdir()
    refused(1, on(pictures), pictures / "train/emu", "no readable picture", "add some")


def test_one_class_only(refused, tmp_path):
    root = make_picture_folder(tmp_path / "one", ("cat",))
    refused(1, on(root), root / "train", "two at least", "cat")


def test_unreadable_picture(refused, pictures):
    (pictures / "train/cat/003.png").write_bytes(b"no picture")
    refused(1, on(pictures), pictures / "train/cat/003.png", "skip_unreadable")


def test_too_few_pictures(refused):
    refused(1, [*TINY, "--data.limit=10"], "10 training pictures", "data.val_fraction")


# ---- weights ----


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_the_evil_pickle_works(tmp_path):
    """Else the test below could not fail."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["random", "text", "empty", "pickle", "torch"])
def test_file_that_is_no_weights(refused, tmp_path, kind, ending):
    file, mark = tmp_path / f"weights{ending}", tmp_path / "mark"
    if kind == "torch":
        torch.save({"conv1.weight": Evil(mark)}, file)
    else:
        contents = {"random": torch.randint(256, (999,)).byte().numpy().tobytes(), "empty": b""}
        contents |= {"text": b"my weights", "pickle": pickle.dumps(Evil(mark))}
        file.write_bytes(contents[kind])
    refused(1, [*TINY, f"--network.weights={file}"], "network.weights", file, "no file of weights")
    assert not mark.exists(), "something in the file was run"


def test_weights_that_are_no_state_dict(refused, tmp_path):
    for content in (torch.zeros(3), {"state_dict": {"conv1.weight": torch.zeros(3)}}, [1]):
        torch.save(content, tmp_path / "w.pth")
        words = ["network.weights", tmp_path / "w.pth", "not a state dict"]
        refused(1, [*TINY, f"--network.weights={tmp_path / 'w.pth'}"], *words)


def test_weights_that_are_not_there(refused, tmp_path):
    refused(1, [*TINY, "--network.weights=imagnet"], "no file imagnet", "imagenet, tiny-imagenet")
    refused(1, [*TINY, f"--network.weights={tmp_path}"], f"no file {tmp_path}")


@pytest.mark.parametrize("other", ["resnet34", "resnet50", "mobilenet_v3_small"])
def test_weights_of_another_architecture(refused, tmp_path, other):
    with torch.device("meta"):  # its names and shapes, without its millions of random numbers
        state = torchvision.models.get_model(other).state_dict()
    state = {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}
    torch.save(state, tmp_path / f"{other}.pth")  # a stretched number is saved as one number
    file = tmp_path / f"{other}.pth"
    words = ["network.weights", file, "not for this network", "network.arch"]
    refused(1, [*TINY, f"--network.weights={file}"], *words)


# ---- no network ----


def test_no_network(refused, project, tmp_path):
    archive = project / "data/cifar-10-python.tar.gz"
    weights = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    refused(1, [], "CIFAR-10", "no route to host", "--offline", archive, weights)
    text = refused(1, ["--data.name=digits"], "ImageNet weights", "--offline", weights)
    assert str(archive) not in text, "digits need no archive"
    text = refused(1, ["--network.weights=tiny-imagenet"], "--offline", archive)
    assert "resnet18_tiny_imagenet.pth" not in text, "the bundled file is there"
    assert not weights.exists()


def test_download_of_weights_that_breaks_off(refused, monkeypatch, tmp_path):
    def breaks_off(*_, **__):
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr(torch.hub, "urlopen", breaks_off)
    weights = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    refused(1, ["--data.name=digits"], "cannot download", weights, "--offline")
    assert not weights.exists()


# ---- level 4 stands on level 3 ----


def suggested(text):
    """The command that an error line says to run first, as level 3's config."""
    command = re.search(r"run first: python level3_fusion/run\.py(.*)$", text.strip())
    return load_config(LEVELS[3] / "config.yaml", shlex.split(command[1]))


def test_start_from_a_level_that_is_none(refused):
    arguments = [*TINY, "--network.start_from=level3_fuson"]
    refused(4, arguments, "no level 'level3_fuson'", "did you mean 'level3_fusion'")


def test_level_4_without_level_3(refused, tmp_path):
    title = 'Digits (mine), "small"'
    arguments = [*TINY, f"--data.title={title}", "--data.mirror=true", "--seed=3"]
    arguments += [f"--reports={tmp_path / 'my reports'}"]
    text = refused(4, arguments, "level4_finetune_tta", "level3_fusion", "run first")
    own = load_config(LEVELS[4] / "config.yaml", arguments)
    first = suggested(text)
    assert (first.data, first.seed, first.reports) == (own.data, own.seed, own.reports)
    assert (first.network.weights, first.network.image_size) == ("tiny-imagenet", 32)
    assert first.network.trainable == ["layer4", "head"], "level 3's own"


def test_level_4_on_another_level_3(run, refused, tmp_path):
    """What level 3 left is refused where split, pictures or weights are others."""
    assert run(3, *TINY)[0] == 0
    left = "runs/digits/level3_fusion/best.pt"
    text = refused(4, [*TINY, "--data.split_seed=1"], left, "other split", "run first")
    assert suggested(text).data.split_seed == 1
    text = refused(4, [*TINY, "--network.weights=none"], left, "other starting weights")
    assert suggested(text).network.weights == "none"
    pictures = on(make_picture_folder(tmp_path / "pets"))
    text = refused(4, [*pictures, "--data.title=digits"], left, "other pictures")
    assert suggested(text).data.root == str(tmp_path / "pets")
    refused(4, [*TINY, "--seed=1"], "level3_fusion", "run first", "--seed 1")
    assert run(4, *TINY)[0] == 0, "the same data, split, weights and seed: it runs"


# ---- resuming, and where reports go ----


def test_resuming_with_another_config(run, refused, project):
    assert run(1, *TINY)[0] == 0
    log_file = project / "runs/digits/level1_baseline/last.pt"
    resume = [*TINY, "--resume=true"]
    changed = [*resume, "--train.lr=0.5", "--augment", "flip"]
    refused(1, changed, log_file, "train.lr", "augment", "without --resume")
    refused(1, [*resume, "--data.limit=70"], log_file, "data.limit", "change back")
    code, out, text = run(1, *resume)
    assert (code, text) == (0, "") and "resumed after epoch 1" in out


def test_reports_folder_that_cannot_be_written(refused, project, tmp_path):
    (tmp_path / "file").write_text("x")
    folder = tmp_path / "file" / "reports"
    refused(1, [*TINY, f"--reports={folder}"], folder, "cannot write", "--reports")
    assert not list(project.rglob("*.pt")), "said before any training"


def test_project_folder_that_cannot_be_written(refused, project):
    project.mkdir()
    (project / "runs").write_text("a file where a folder should be")
    refused(1, TINY, project / "runs", "cannot write")
