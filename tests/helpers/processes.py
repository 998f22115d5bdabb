"""Processes for the tests, ready at once: forked by one that has imported torch and the rest.

Starting Python and importing what a run needs takes longer than the tests' tiny runs. Each process
is one of its own all the same: it can be killed, and what it sets is its own.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from common.utils import paths

HERE = Path(__file__).resolve().parents[1]
PIXEL = bytes.fromhex(  # a PNG of 1 x 1
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b"
    "550000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)


def forkserver():
    """What makes such processes, as multiprocessing does; the one that forks them is at work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helpers.preloaded"])
    with mock.patch.dict(os.environ, PYTHONPATH=f"{HERE.parent}{os.pathsep}{HERE}"):
        multiprocessing.forkserver.ensure_running()
    return context


class Started:
    """A command at work in a copy of the project; what it has printed so far is in `text()`.

    Args:
        project: where it runs, and what it takes for the project.
        arguments: as Python's: a script or -m and a module, then the command's own.
        draws: whether its pictures are drawn, else each is one pixel.
        environment: variables beside this process's.
    """

    def __init__(self, project, *arguments, draws=False, **environment):
        self.folder = tempfile.TemporaryDirectory(prefix="printed-")
        self.files = [Path(self.folder.name) / name for name in ("out", "err")]
        facts = str(project), [str(a) for a in arguments], self.files, draws
        self.process = forkserver().Process(
            target=_run, args=(*facts, {**os.environ, **environment}), daemon=True
        )
        for file in self.files:
            file.touch()
        self.process.start()

    @property
    def pid(self):
        return self.process.pid

    def text(self):
        """What it has printed: stdout and stderr."""
        return [file.read_text(encoding="utf-8") for file in self.files]

    def wait_for(self, words):
        """Until it has printed the words."""
        while words not in self.text()[0]:
            assert self.process.is_alive() or words in self.text()[0], self.text()
            time.sleep(0.02)

    def wait(self, timeout=None):
        """Its exit status, negative where a signal ended it; None if it is still at work."""
        self.process.join(timeout)
        return self.process.exitcode


def _run(project, arguments, files, draws, environment):
    """In the new process: the command."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(project)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored
    for number, file in enumerate(files, 1):
        target = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(target, number)
        os.close(target)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", line_buffering=True)
    paths.PROJECT = project = Path(project).resolve()
    try:
        with contextlib.nullcontext() if draws else undrawn():
            if arguments[0] == "-m":
                place = project / Path(*arguments[1].split("."))
                script = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
                sys.argv = [str(script), *arguments[2:]]
                runpy.run_module(arguments[1], run_name="__main__")
            else:
                sys.argv = arguments
                runpy.run_path(arguments[0], run_name="__main__")
    finally:
        _keep_coverage()


def _keep_coverage():
    """Such processes end without the usual farewells, coverage's among them."""
    coverage = sys.modules.get("coverage")
    if coverage and (current := coverage.Coverage.current()):
        current.stop()
        current.save()


def undrawn():
    """Pictures are files of one pixel, where nobody looks at them: drawing takes seconds a run."""

    def savefig(figure, file, format="png", **_):
        content = PIXEL if format == "png" else b"<svg><style></style></svg>"
        Path(file).write_bytes(content) if isinstance(file, str | Path) else file.write(content)

    return mock.patch("matplotlib.figure.Figure.savefig", savefig)
