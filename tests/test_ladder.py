"""The four levels, end to end and tiny: as a user runs them, and what they leave."""

import contextlib
import json
import logging
import os
import pickle
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from scipy.special import logsumexp

import common.config
from common import ladder, levels, plots
from common.evaluation import evaluate
from common.experiment import Experiment
from common.options import load_config
from common.runtime import file_hash
from common.training import fit
from makers import make_cifar_archive, write_sitecustomize

PROJECT = common.config.PROJECT
NAMES = ["level1_baseline", "level2_augmentation", "level3_fusion", "level4_finetune_tta"]
TRAINS = [["head"], ["layer4", "head"], ["layer4", "head"], ["layer3", "layer4", "head"]]
TINY = [
    "--offline",
    "--data.limit=60",
    "--train.epochs=1",
    "--network.image_size=32",
    "--audit=false",
]
REPORT = {"metrics.json", "history.json", "predictions.npz", "report.md"}
REPORT |= {"training_curves.png", "confusion_matrix.png"}
FIXED = {"schema", "level", "config", "seed", "data", "weights", "image_size", "trainable"}
FIXED |= {"epochs", "best_epoch", "train", "val", "test", "test_single", "frozen", "below"}
FIXED |= {"seconds", "command", "commit", "machine", "versions"}
FURTHER = {"parameters", "trained_parameters", "tta", "detail", "settings"}
log = logging.getLogger("rungs")


def copy_project(place):
    """The four levels and common/, without what runs left; the bundled weights are linked."""
    for folder in [PROJECT / name for name in (*NAMES, "common")]:
        ignored = shutil.ignore_patterns("__pycache__", "weights")
        shutil.copytree(folder, place / folder.name, ignore=ignored)
    (place / "common/weights").symlink_to(PROJECT / "common/weights")
    return place


def python(*arguments, cwd, **environment):
    """A process of its own; it must end well. Returns its stdout."""
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


class Reports:
    """A folder of reports, read again."""

    def __init__(self, folder):
        self.folder = folder

    def metrics(self, name):
        return json.loads((self.folder / name / "metrics.json").read_text(encoding="utf-8"))

    def history(self, name):
        return json.loads((self.folder / name / "history.json").read_text(encoding="utf-8"))

    def predictions(self, name):
        with np.load(self.folder / name / "predictions.npz", allow_pickle=False) as saved:
            return dict(saved)

    def rows(self):
        """The ladder's rows: cells by level."""
        text = (self.folder / "README.md").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if re.match(r"\| \[?level\d", line)]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return {re.search(r"level\d\w*", row[0])[0]: row for row in rows}

    def check_gain(self, name, below):
        """The gain over the level below is the difference of the two test accuracies."""
        own, other = self.metrics(name), self.metrics(below)
        suffix = re.compile(r"-seed\d+$")
        assert own["below"]["level"] == suffix.sub("", below)
        difference = own["test"]["correct"] - other["test"]["correct"]
        assert own["below"]["gain"] == difference / own["test"]["total"]
        assert own["test"]["accuracy"] - other["test"]["accuracy"] == pytest.approx(
            own["below"]["gain"], abs=1e-12
        )


# ---- the four scripts without any option ----


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Each run.py with no option, from another folder: CIFAR-10's format, torchvision's name."""
    place = tmp_path_factory.mktemp("plain")
    project = copy_project(place / "project")
    table = make_cifar_archive(project / "data", per_class=5, test_per_class=2)
    write_sitecustomize(place / "site", table)
    torch.manual_seed(0)
    weights = place / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    environment = {"TORCH_HOME": str(place / "torch"), "PYTHONPATH": str(place / "site")}
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    printed = [python(project / name / "run.py", cwd=elsewhere, **environment) for name in NAMES]
    assert list(elsewhere.iterdir()) == [], "nothing is left where the user stands"
    reports = Reports(project / "runs/cifar-10/reports")
    reports.project, reports.weights, reports.printed = project, weights, printed
    return reports


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_level_with_no_option(plain, number):
    name, trains = NAMES[number - 1], TRAINS[number - 1]
    m, saved = plain.metrics(name), plain.predictions(name)
    assert m.keys() == FIXED | FURTHER
    assert {file.name for file in (plain.folder / name).iterdir()} >= REPORT
    assert (m["schema"], m["level"], m["config"], m["seed"]) == (1, name, "config", 0)
    assert (m["image_size"], m["trainable"]) == (224, trains)
    assert m["weights"] == {"name": "imagenet", "sha256": file_hash(plain.weights)}
    assert m["epochs"] == [5, 3, 3, 2][number - 1] and m["seconds"] > 0
    assert m["command"] == f"python {name}/run.py"

    classes, test_labels = archive_test_set(plain.project / "data")
    assert saved["classes"].tolist() == classes
    assert saved["labels"].tolist() == test_labels, "the official test set, in its order"
    hits = saved["predictions"] == saved["labels"]
    assert m["test"]["correct"] == hits.sum() and m["test"]["total"] == len(hits) == 20
    assert m["test"]["accuracy"] == hits.sum() / 20
    logits = saved["logits"].astype(np.float64)
    assert saved["logits"].dtype == np.float16 and logits.shape == (20, 10)
    assert (logits[np.arange(20), saved["predictions"]] == logits.max(1)).all()
    loss = (logsumexp(logits, axis=1) - logits[np.arange(20), saved["labels"]]).mean()
    assert m["test"]["loss"] == pytest.approx(loss, abs=5e-3), "up to float16's rounding"

    history = plain.history(name)
    kept = plain.project / "runs/cifar-10" / name
    assert load_config(kept / "config.yaml").settings() == m["settings"]
    assert json.loads((kept / "history.json").read_text()) == history
    accuracies = [entry["val_accuracy"] for entry in history]
    assert len(history) == m["epochs"]
    assert m["best_epoch"] == accuracies.index(max(accuracies)) + 1, "the earliest of the best"
    assert m["val"]["accuracy"] == max(accuracies) and m["val"]["total"] == 10
    assert m["train"]["total"] == 40 and m["data"]["title"] == "CIFAR-10"
    if number < 4:
        assert (m["test_single"], m["tta"]) == (m["test"], "none")
    else:
        assert m["tta"] == "flip" and m["test_single"]["loss"] != m["test"]["loss"]


def archive_test_set(data):
    """Class names and test labels, by pickle alone."""
    folder = data / "cifar-10-batches-py"
    names = pickle.loads((folder / "batches.meta").read_bytes())["label_names"]
    return names, pickle.loads((folder / "test_batch").read_bytes())["labels"]


def test_frozen_means_frozen(plain):
    hashes = [plain.metrics(name)["frozen"] for name in NAMES]
    assert all(h["before"] == h["after"] and len(h["before"]) == 64 for h in hashes)
    assert hashes[1] == hashes[2] != hashes[3], "levels 2 and 3 freeze the same, level 4 less"
    start = torch.load(plain.weights, weights_only=True)
    for name, trains in zip(NAMES, TRAINS, strict=True):
        best = torch.load(plain.folder.parent / name / "best.pt", weights_only=True)["network"]
        for key, value in start.items():
            part = key.split(".")[0]
            if part != "fc":
                own = f"stages.{key}" if part.startswith("layer") else f"stages.stem.{key}"
                changed = not torch.equal(best[own], value)
                assert changed == (part in trains), (name, key)


def test_gains_and_the_ladder_page(plain):
    assert plain.metrics(NAMES[0])["below"] is None
    for below, name in zip(NAMES, NAMES[1:], strict=False):
        plain.check_gain(name, below)
    same = [{k: plain.metrics(n)["data"][k] for k in ("fingerprint", "split")} for n in NAMES]
    assert same[0] == same[1] == same[2] == same[3], "the same pictures, the same split"
    rows = plain.rows()
    assert list(rows) == NAMES
    for name, row in rows.items():
        accuracy = plain.metrics(name)["test"]["accuracy"]
        assert f"{100 * accuracy:.1f}" in " ".join(row), row


def test_level_4_starts_from_level_3s_best(plain):
    best = torch.load(plain.folder.parent / NAMES[2] / "best.pt", weights_only=True)
    assert (
        f"starts from runs/cifar-10/level3_fusion/best.pt, epoch {best['epoch']}"
        in (plain.printed[3])
    )
    assert plain.metrics(NAMES[2])["best_epoch"] == best["epoch"]


# ---- the course on the bundled digits, with two seeds, and a level of the reader's own ----


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """`python -m common.course --offline`, tiny, with seeds 0 and 1."""
    project = copy_project(tmp_path_factory.mktemp("course") / "project")
    printed = python("-m", "common.course", *TINY, "--seeds", "0", "1", cwd=project)
    reports = Reports(project / "runs/digits/reports")
    reports.project, reports.printed = project, printed
    return reports


@contextlib.contextmanager
def inside(project):
    """This process takes a copy of the project for the project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common.config, "PROJECT", project)
        patch.setattr(sys, "path", sys.path[:])
        patch.setattr(log, "handlers", [])
        threads = torch.get_num_threads()
        yield patch
        torch.set_num_threads(threads)
        for handler in log.handlers:
            handler.close()


def run_inside(project, script, *arguments):
    with inside(project) as patch:
        patch.setattr(sys, "argv", [str(script), *arguments])
        runpy.run_path(str(script), run_name="__main__")


def test_course_gives_four_rows(course):
    rows = course.rows()
    assert list(rows) == NAMES
    page = course.printed[course.printed.rindex(NAMES[0]) :]
    assert [name for name in NAMES if name in page] == NAMES
    assert page.rstrip().endswith(str(course.folder / "README.md"))
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
    assert "starts from runs/digits/level3_fusion-seed1/best.pt" in course.printed
    accuracies = [100 * course.metrics(NAMES[1] + s)["test"]["accuracy"] for s in ("", "-seed1")]
    assert (
        f"2 seeds: test accuracy {np.mean(accuracies):.2f} +- {np.std(accuracies, ddof=1):.2f}"
        in (course.printed)
    )


def test_same_seed_gives_the_same_run(course, tmp_path):
    name = NAMES[1]
    copy = copy_project(tmp_path / "project")
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
        gain = plots.points(course.metrics(mine.name)["below"]["gain"])
        row = " ".join(course.rows()[mine.name])
        assert re.search(rf" {re.escape(gain)} .*over level4", row), row
    finally:
        shutil.rmtree(mine)
        shutil.rmtree(course.folder / mine.name, ignore_errors=True)
        ladder.write_ladder(course.folder)


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
            fit(network, run.data, config, run.runtime, run.folder)
            results = evaluate(network, run.data, config, run.runtime)
            logits.append(results.test.logits)
    plain = logits[1]
    assert plain.shape == (60, 10) and plain.std() > 0.1
    assert (logits[0] - plain).abs().max() <= 1e-5 * plain.abs().max()
    assert not torch.equal(logits[0], plain), "folded and plain convolutions round differently"
