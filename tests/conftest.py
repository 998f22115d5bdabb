"""Slow tests, the proofs, run only when asked for: `make proof`, or pytest --run-slow.

And what all test files share: a fixture, and pytest's words for the helpers' asserts.
"""

import logging
import signal

import pytest
from hypothesis import HealthCheck, settings

# the same examples each time, however slow the machine
settings.register_profile(
    "steady",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=80,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("steady")
pytest.register_assert_rewrite("helpers.projects", "helpers.refusals", "helpers.reports")


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow alone")


def pytest_collection_modifyitems(config, items):
    slow = config.getoption("--run-slow")
    left_out = [item for item in items if bool(item.get_closest_marker("slow")) != slow]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


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
def coursed(tmp_path_factory):
    """A copy of the project in which the course has run on some digits; `printed`, `reports`."""
    from helpers.projects import copy_project, python

    tiny = ["--offline", "--data.limit=120", "--train.epochs=1", "--network.image_size=32"]
    project = copy_project(tmp_path_factory.mktemp("course") / "project")
    project.printed = python("-m", "common.course", *tiny, "--audit=false", cwd=project)
    project.reports = project / "runs/digits/reports"
    return project
