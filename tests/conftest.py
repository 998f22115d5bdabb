"""Slow tests, the proofs, run only when asked for: `make proof`, or pytest --run-slow.

And what all test files share: a fixture, and pytest's words for the helpers' asserts.
"""

import logging
import os
import signal

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, is_hypothesis_test, settings

# the same examples each time, however slow the machine
for name, count in (("quick", 30), ("proof", 600)):
    settings.register_profile(
        name,
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=count,
        suppress_health_check=list(HealthCheck),
    )
pytest.register_assert_rewrite("helpers.projects", "helpers.refusals", "helpers.reports")


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow alone")


def pytest_configure(config):
    settings.load_profile("proof" if config.getoption("--run-slow") else "quick")


def is_in_tier(item, slow):
    """Whether a test is a fast or a slow one; Hypothesis's are both, with few examples and many."""
    marked = item.get_closest_marker("slow") is not None
    return marked == slow or (slow and is_hypothesis_test(getattr(item, "obj", None)))


def pytest_collection_modifyitems(config, items):
    slow = config.getoption("--run-slow")
    left_out = [item for item in items if not is_in_tier(item, slow)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    # others wait for what is made once: it is begun with, by a file each
    makers = {
        next((item.path for item in items if shared in item.fixturenames), None)
        for shared in ("handed_in", "coursed")
    }
    items.sort(key=lambda item: item.path not in makers)


@pytest.fixture(autouse=True)
def process_as_it_was():
    """What commands set for their whole process is set back after a test that runs one here."""
    log, signals = logging.getLogger("rungs"), (signal.SIGINT, signal.SIGTERM)
    before = log.level, log.handlers[:], logging.raiseExceptions
    handlers = [signal.getsignal(number) for number in signals]
    yield
    level, log.handlers[:], logging.raiseExceptions = before
    log.setLevel(level)
    for number, handler in zip(signals, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def written(tmp_path):
    """A function that writes a YAML file and returns its path."""

    def write(text, name="mine.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A function: a name, and what makes a folder -> the folder, one for all test processes."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent

    def made_once(name, make):
        folder, made = place / name, place / f"{name}.made"
        with FileLock(place / f"{name}.lock"):
            if not made.exists():
                make(folder)
                made.touch()
        return folder

    return made_once


@pytest.fixture(scope="session")
def coursed(made_once):
    """A project in which the course has run on some digits; `printed`, `reports`. Only to read."""
    from helpers.projects import Place, copy_project, python

    def make(folder):
        tiny = ["--offline", "--data.limit=120", "--train.epochs=1", "--network.image_size=32"]
        tiny += [
            "--train.precision=float32"
        ]  # as predict answers: bfloat16 rounds such networks away
        project = copy_project(folder, *tiny)
        text = python("-m", "common.course", *tiny, "--audit=false", cwd=project, draws=True)
        (project / "printed.txt").write_text(text, encoding="utf-8")

    project = Place(made_once("coursed", make))
    project.printed = (project / "printed.txt").read_text(encoding="utf-8")
    project.reports = project / "runs/digits/reports"
    return project
