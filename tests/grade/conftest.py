"""A project with runs, made once, copies of it to do things to, and the grader's command line."""

import hashlib
import json
import logging
import os
import pickle
import shutil
import sys

import pytest
import torch

from common import cli
from common.grade import __main__, sandbox
from common.training.checkpoint import read_checkpoint
from helpers.handed_in import MINE, TOTAL
from helpers.makers import make_picture_folder
from helpers.projects import NAMES, copy_project, python

TINY = ["--network.weights=tiny-imagenet", "--network.image_size=32", "--audit=false"]
TINY += ["--train.precision=float32", "--train.epochs=1", "--train.lr=5e-4"]
TINY += ["--train.batch_size=32", "--data.name=folder", "--data.title=pets"]
log = logging.getLogger("rungs")


@pytest.fixture(scope="session")
def pictures(made_once):
    """Four classes that differ in colour, 60 pictures each to train on and 25 to test on."""
    classes = ["cat", "dog", "eel", "fox"]
    return made_once("pictures", lambda root: make_picture_folder(root, classes, 60, TOTAL // 4))


@pytest.fixture(scope="session")
def handed_in(made_once, pictures):
    """A project with runs: the four levels, level 4 again as its reader's own, and of level 1
    another recipe.
    """

    def make(folder):
        options = [*TINY, f"--data.root={pictures}"]
        project = copy_project(folder, *options)
        shutil.copytree(project / NAMES[3], project / MINE)
        python("-m", "common.course", *options, cwd=project)
        python(f"{NAMES[0]}/run.py", *options, "--name=wide", "--train.lr=2e-3", cwd=project)
        for last in project.glob("runs/*/*/last.pt"):
            last.unlink()
        for file in (project / "common").rglob("*.py"):  # the grader has its own
            file.write_text("raise SystemExit('not the grader')\n", encoding="utf-8")

    return made_once("handed_in", make)


@pytest.fixture
def remembered(made_once, monkeypatch):
    """Each network runs once, whatever is done to reports, and whichever process asks."""
    run = sandbox.test_logits

    def test_logits(level, config, checkpoint, data, timeout):
        code = (level / "run.py").read_text(encoding="utf-8")
        tensors = read_checkpoint(checkpoint)["network"]
        state = repr([(name, value.double().sum().item()) for name, value in tensors.items()])
        key = level.name, code, state, repr(config.network), repr(config.test)
        name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]

        def keep(place):
            place.write_bytes(pickle.dumps(run(level, config, checkpoint, data, timeout)))

        return pickle.loads(made_once(f"logits-{name}", keep).read_bytes())

    monkeypatch.setattr(sandbox, "test_logits", test_logits)


@pytest.fixture
def copy(handed_in, tmp_path):
    """A copy to do things to; weights are linked, so replace them, never write to them."""
    return shutil.copytree(handed_in, tmp_path / "copy", copy_function=os.link, symlinks=True)


@pytest.fixture
def run(monkeypatch, capsys, remembered):
    """A function: the command line -> exit status, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["grade", *map(str, arguments)])
        monkeypatch.setattr(log, "handlers", [])
        threads, code = torch.get_num_threads(), 0
        try:
            cli.command(__main__.main)
        except SystemExit as stopped:
            code = stopped.code
        torch.set_num_threads(threads)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def failures(run):
    """A function: grade a copy that must fail -> {level: {check: what was seen}}."""

    def failures(project, *arguments):
        code, out, _ = run(project, "--format", "json", *arguments)
        assert code == 1
        graded = json.loads(out)
        assert graded["passed"] is False
        return {
            level["level"]: {
                c["check"]: c["seen"] for c in level["checks"] if c["outcome"] == "failed"
            }
            for level in graded["levels"]
            if not level["passed"]
        }

    return failures
