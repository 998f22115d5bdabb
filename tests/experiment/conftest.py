"""Levels in this process, in a project of their own that has no network."""

import runpy
import sys
import urllib.error
import urllib.request
import warnings

import pytest

from helpers.processes import undrawn
from helpers.projects import inside, log
from helpers.refusals import LEVELS, one_line


def no_network(*_, **__):
    raise urllib.error.URLError("no route to host")


@pytest.fixture(autouse=True)
def project(tmp_path):
    """Runs, data and weights go below tmp_path, nothing can be downloaded, the log is put back."""
    with inside(tmp_path / "project") as patch:
        patch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        patch.setattr(urllib.request, "urlopen", no_network)
        yield tmp_path / "project"


@pytest.fixture
def run(monkeypatch, capsys):
    """A function: a level's run.py with a command line -> exit status, stdout, stderr."""

    def run(level, *arguments):
        script = LEVELS[level] / "run.py"
        while log.handlers:  # each process says all
            log.handlers.pop().close()
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
        code = 0
        with warnings.catch_warnings(), undrawn():
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
