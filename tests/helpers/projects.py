"""The project and copies of it, and what runs in them: this process, or one of its own."""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.config import load_config, yaml_files
from common.earlier import place_of
from common.utils import paths
from common.utils.paths import VARIABLE
from helpers.processes import Started

PROJECT = paths.PROJECT
NAMES = ["level1_baseline", "level2_augmentation", "level3_fusion", "level4_finetune_tta"]
AS_COMMANDED = {"seed": 0, "reports": None}  # of a copy with options: what stays a command's own
log = logging.getLogger("rungs")


class Place(type(Path())):
    """A path that can be given attributes: what was printed there, for instance."""


def copy_project(place, *options):
    """The four levels and common/, without what runs left; the bundled weights are linked.

    With options these are the copy's own settings: a run with them has its level's own name.
    """
    for folder in [PROJECT / name for name in (*NAMES, "common")]:
        ignored = shutil.ignore_patterns("__pycache__", "weights")
        shutil.copytree(folder, place / folder.name, ignore=ignored)
    (place / "common/weights").symlink_to(PROJECT / "common/weights")
    for file in place.glob("level*/config.yaml") if options else ():
        make_own(file, options)
    return Place(place)


def make_own(file, options):
    """Options become a config file's own settings."""
    settings = load_config(file, list(options)).settings()
    file.write_text(yaml_files.write(settings | AS_COMMANDED), encoding="utf-8")


def folder_of(level, options):
    """Where the run of a level's folder stands with these options."""
    config = load_config(level / "config.yaml", [str(option) for option in options])
    return place_of(level, config).folder


def python(*arguments, cwd, draws=False, **environment):
    """A process of its own, see processes.py; it must end well. Returns its stdout."""
    run = Started(cwd, *arguments, draws=draws, **environment)
    status = run.wait()
    text, complaints = run.text()
    assert status == 0, text + complaints
    assert "Traceback" not in complaints
    return text


def fresh_python(*arguments, cwd, **environment):
    """A process of Python's own start, as a user's; it must end well. Returns its stdout."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=os.environ | environment,
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@contextlib.contextmanager
def inside(project):
    """This process takes a copy of the project for the project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "PROJECT", project)
        patch.setattr(sys, "path", sys.path[:])
        patch.setattr(log, "handlers", [])
        patch.setenv(VARIABLE, "")  # which --runs sets for the rest of a process
        threads = torch.get_num_threads()
        yield patch
        torch.set_num_threads(threads)
        for handler in log.handlers:
            handler.close()
