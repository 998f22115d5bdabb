"""The course on the bundled digits, tiny: two seeds, a level of the reader's own, the fast way."""

import re
import runpy
import shutil
import sys

import numpy as np
import pytest
import torch

from common import levels
from common.config import load_config
from common.evaluation import evaluate
from common.experiment import Experiment
from common.models import Trunk
from common.reports.text import points
from common.training import fit
from helpers.projects import NAMES, copy_project, inside, python
from helpers.reports import Reports, write_ladder

pytestmark = pytest.mark.xdist_group("course")  # one process makes what they share

TINY = [
    "--offline",
    "--data.limit=60",
    "--train.epochs=1",
    "--network.image_size=32",
    "--audit=false",
]


# ---- the course on the bundled digits, with two seeds, and a level of the reader's own ----


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """`python -m common.course --offline`, tiny, with seeds 0 and 1."""
    project = copy_project(tmp_path_factory.mktemp("course") / "project", *TINY)
    printed = python("-m", "common.course", *TINY, "--seeds", "0", "1", cwd=project)
    reports = Reports(project / "runs/digits/reports")
    reports.project, reports.printed = project, printed
    return reports


def run_inside(project, script, *arguments):
    with inside(project) as patch:
        patch.setattr(sys, "argv", [str(script), *arguments])
        runpy.run_path(str(script), run_name="__main__")


def test_course_gives_four_rows(course):
    rows = course.rows()
    assert list(rows) == NAMES
    page = course.printed[course.printed.rindex(NAMES[0]) :]
    assert [name for name in NAMES if name in page] == NAMES
    lines = [str(course.folder / "README.md"), f"page: {course.folder / 'index.html'}"]
    assert page.rstrip().endswith("\n".join(lines))
    for below, name in zip(NAMES, NAMES[1:], strict=False):
        course.check_gain(name, below)
        m = course.metrics(name)
        assert m["command"] == "python -m common.course " + " ".join([*TINY, "--seeds", "0", "1"])
        assert m["data"]["name"] == "digits" and m["weights"]["name"] == "tiny-imagenet"
        assert m["data"]["train"] + m["data"]["val"] == m["test"]["total"] == 60
    assert course.metrics(NAMES[3])["tta"] == "shifts", "a mirrored digit is no digit"


def test_two_seeds_leave_two_reports(course):
    wanted = {name + suffix for name in NAMES for suffix in ("", "-seed1")}
    folders = {folder.name for folder in course.folder.iterdir() if folder.is_dir()}
    assert folders == wanted
    for name in NAMES:
        first, second = course.metrics(name), course.metrics(f"{name}-seed1")
        assert (first["seed"], second["seed"]) == (0, 1)
        assert first["data"] == second["data"], "a seed never changes the split"
        logits = [course.predictions(n)["logits"] for n in (name, f"{name}-seed1")]
        assert not np.array_equal(*logits)
    course.check_gain(f"{NAMES[3]}-seed1", f"{NAMES[2]}-seed1")
    assert "runs/digits/level3_fusion-seed1/best.pt, epoch" in course.printed
    accuracies = [100 * course.metrics(NAMES[1] + s)["test"]["accuracy"] for s in ("", "-seed1")]
    assert (
        f"2 seeds: test accuracy {np.mean(accuracies):.2f} +- {np.std(accuracies, ddof=1):.2f}"
        in (course.printed)
    )


def test_same_seed_gives_the_same_run(course, tmp_path):
    name = NAMES[1]
    copy = copy_project(tmp_path / "project", *TINY)
    script = copy / name / "run.py"
    run_inside(copy, script, *TINY, f"--reports={tmp_path / 'again'}")
    again = Reports(tmp_path / "again")
    first, second = course.metrics(name), again.metrics(name)
    for key in ("train", "val", "test", "test_single", "frozen", "best_epoch", "data", "weights"):
        assert first[key] == second[key], key
    saved, repeated = course.predictions(name), again.predictions(name)
    assert all(np.array_equal(saved[key], repeated[key]) for key in saved)
    figures = ("lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy")
    for one, other in zip(course.history(name), again.history(name), strict=True):
        assert [one[f] for f in figures] == [other[f] for f in figures]


def test_a_readers_own_level_is_found(course):
    project = course.project
    mine = project / "level5_mine"
    shutil.copytree(project / NAMES[1], mine)
    try:
        assert [level.name for level in levels.find_levels(project)] == [*NAMES, mine.name]
        assert levels.find_level("5", project) == levels.find_level("level5_mine", project) == mine
        run_inside(project, mine / "run.py", *TINY)
        course.check_gain(mine.name, NAMES[3])
        assert list(course.rows()) == [*NAMES, mine.name]
        level2, level5 = course.predictions(NAMES[1]), course.predictions(mine.name)
        assert np.array_equal(level2["logits"], level5["logits"]), "the same recipe and seed"
        gain = points(course.metrics(mine.name)["below"]["gain"])
        row = " ".join(course.rows()[mine.name])
        assert re.search(rf" {re.escape(gain)} .*over level4", row), row
    finally:
        shutil.rmtree(mine)
        shutil.rmtree(course.folder / mine.name, ignore_errors=True)
        write_ladder(course.folder)


# ---- the fast way is the plain way ----


@pytest.mark.parametrize("name", [NAMES[0], NAMES[2]])
def test_fast_and_plain_give_the_same_logits(course, name):
    logits = []
    with inside(course.project):
        level = course.project / name
        module = levels.load_module(level)
        for fast in ("true", "false"):
            options = [*TINY, "--train.precision=float32", f"--fast={fast}"]
            config = load_config(level / "config.yaml", options)
            config.data.title = f"fast {fast}"
            run = Experiment(module.__file__, config)
            network = run.build(module.build_network)
            trunk = Trunk(network, run.runtime)
            fit(network, run.data, config, trunk, run.folder)
            results = evaluate(network, run.data, config, trunk)
            logits.append(results.test.logits)
    plain = logits[1]
    assert plain.shape == (60, 10) and plain.std() > 0.1
    assert (logits[0] - plain).abs().max() <= 1e-4 * plain.abs().max()
    assert not torch.equal(logits[0], plain), "folded and plain convolutions round differently"
