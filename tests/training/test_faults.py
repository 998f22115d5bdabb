"""A run that is stopped at each point at which it writes, or finds no room there, loses nothing."""

import json
import os
import shutil
from pathlib import Path

import pytest

from common.config import yaml_files
from common.reports.store import Reports
from common.training import checkpoint
from common.training.place import BEGUN, DONE, KEEP
from common.utils.files import read_json, read_npz
from common.verify_resume import CLOCK, outcome
from helpers.makers import make_picture_folder
from helpers.processes import Started
from helpers.projects import NAMES, PROJECT, copy_project, python

SCRIPT, NAME = f"{NAMES[0]}/run.py", f"{NAMES[0]}-seed1"
FOLDER, REPORTS = f"runs/digits/{NAME}", "runs/digits/reports"
NEW = f"{FOLDER}.new"
TINY = ["--offline", "--network.arch=mlp", "--network.weights=none", "--network.image_size=32"]
TINY += ["--train.epochs=3", "--train.batch_size=8", "--train.ema=0.9", "--train.threads=1"]
TINY += ["--audit=false", "--seed=1"]
DIGITS = [*TINY, "--data.name=digits", "--data.limit=60"]
PARTS = 6  # of the points, for as many tests to be shared by processes


class Faulty:
    """A run in a project of its own; its points, and what it leaves when nothing stops it.

    Args:
        place: an empty folder.
        options: of the run.
        again: of the same command once more, where the run was finished once.
    """

    def __init__(self, place, options=DIGITS, again=None):
        self.place, self.options = place, [*options, *([again] if again else [])]
        self.environment = {} if again else {KEEP: "1"}  # the state of training is compared, too
        self.project, self.before = copy_project(place / "project", *DIGITS), place / "before"
        if again:
            python(SCRIPT, *options, cwd=self.project)
        for name in ("runs", "data"):
            (self.project / name).mkdir(exist_ok=True)
            shutil.copytree(self.project / name, self.before / name)
        self.run("count", 0)
        lines = (place / "marks").read_text().splitlines()
        self.points = [tuple(line.split(": ")) for line in lines]

    def numbers(self, *points):
        """Of these points, what and file, the last of each kind; they count from 1."""
        count = len(self.points)
        return [count - self.points[::-1].index(point) for point in points]

    def run(self, how, number):
        """Its exit status and what it complained of, after starting from what was there before."""
        for name in ("runs", "data"):
            shutil.rmtree(self.project / name, ignore_errors=True)
            shutil.copytree(self.before / name, self.project / name)
        script = PROJECT / "tests/helpers/faults.py", self.place / "marks", how, number
        run = Started(self.project, *script, SCRIPT, *self.options, **self.environment)
        return run.wait(), run.text()[1]

    def go_on(self, resume=True):
        """Resume, or give the same command again where there is nothing to go on with."""
        options = self.options
        if "--anew" in options and (resume := (self.project / NEW / "last.pt").is_file()):
            options = options[:-1]
        command = SCRIPT, *options, *["--resume"] * resume
        run = Started(self.project, *command, **self.environment)
        status, complaints = run.wait(), run.text()[1]
        assert status == 0 and "Traceback" not in complaints, complaints


def files(project):
    """All that runs left, by name; but __pycache__."""
    found = (path for name in ("runs", "data") for path in (project / name).rglob("*"))
    return {str(path.relative_to(project)): path for path in found if path.is_file()}


def left(project):
    """What must be the same: which files there are, and all in them but times and --resume."""

    def timeless(history):
        return [{k: v for k, v in epoch.items() if k not in CLOCK} for epoch in history]

    folder = project / FOLDER
    found = {"names": sorted(files(project))}
    if (folder / "last.pt").is_file():
        found |= outcome(reported(project), NAME)
    found["history"] = timeless(json.loads((folder / "history.json").read_text()))
    for name in ("best.pt", "last.pt", "last.previous.pt"):
        if (folder / name).is_file():
            content = checkpoint.load(folder / name)
            content["history"] = timeless(content.get("history", []))
            content["settings"] |= {"resume": None, "anew": None}
            found[name] = checkpoint.digest(content)
    asked = {"resume": None, "anew": None}
    found["config.yaml"] = yaml_files.read(folder / "config.yaml") | asked
    found[DONE] = read_json(folder / DONE) | {"when": None}
    for name, path in files(project).items():
        if path.suffix in (".npz", ".svg", ".webp"):
            found[name] = path.read_bytes()
    return found


def reported(project):
    """The project as `outcome` takes it, its reports in a folder of that name."""
    if not (project / "reports").exists():
        (project / "reports").symlink_to(project / REPORTS)
    return project


def check_readable(project):
    """Whatever runs left there, but drafts and the log, is whole."""
    readers = {".pt": checkpoint.load, ".json": read_json, ".npz": read_npz}
    for name, path in files(project).items():
        if path.suffix in readers and name.startswith("runs/") and ".part/" not in name:
            readers[path.suffix](path)
    assert Reports.read(project / REPORTS).damaged == []


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    faulty = Faulty(tmp_path_factory.mktemp("fresh"))
    faulty.left = left(faulty.project)
    return faulty


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """Where the same run was finished, and is run anew."""
    faulty = Faulty(tmp_path_factory.mktemp("again"), again="--anew")
    faulty.left = left(faulty.project)
    return faulty


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Where the same run was finished, and its report is wanted in another folder, too."""
    faulty = Faulty(tmp_path_factory.mktemp("shown"), again=f"--reports={REPORTS}-too")
    faulty.left = left(faulty.project)
    return faulty


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A run on a folder of pictures, which are decoded into a cache."""
    place = tmp_path_factory.mktemp("pictures")
    root = make_picture_folder(place / "root", per_class=24, size=(32, 32))
    options = "--data.name=folder", f"--data.root={root}", "--data.title=digits"
    faulty = Faulty(place, [*TINY, *options])
    faulty.left = left(faulty.project)
    return faulty


def kill(faulty, number):
    """At this point; then go on, to the same end."""
    what, file = faulty.points[number - 1]
    status, complaints = faulty.run("kill", number)
    assert status == -9, (what, file, complaints)
    check_readable(faulty.project)
    trained = file.startswith(REPORTS)
    faulty.go_on(resume=not trained or number % 2 == 0)
    assert left(faulty.project) == faulty.left, (what, file)


def fill(faulty, number):
    """No room from this point on is one line; with room again, it goes on to the same end."""
    what, file = faulty.points[number - 1]
    status, complaints = faulty.run("full", number)
    assert status == 2 and complaints.startswith("error: "), (what, file, complaints)
    assert complaints.count("\n") == 1 and "make" in complaints, complaints
    check_readable(faulty.project)
    assert not [name for name in files(faulty.project) if name.endswith(".part")]
    if faulty.before.joinpath(REPORTS).exists():
        assert Reports.read(faulty.project / REPORTS).runs, "the old report, or the new"
    faulty.go_on()
    assert left(faulty.project) == faulty.left, (what, file)


def delete(faulty, number):
    """The folder of the file that is written: one line at most, and it can be run again."""
    what, file = faulty.points[number - 1]
    status, complaints = faulty.run("gone", number)
    assert status in (0, 2) and complaints.count("\n") == (status == 2), (what, file, complaints)
    assert complaints == "" or complaints.startswith("error: ")
    faulty.go_on()
    assert left(faulty.project) == faulty.left, (what, file)
    return complaints


def test_all_files_are_written_in_one_place(fresh):
    ways = {what for what, _ in fresh.points}
    assert ways == {"begun", "half", "whole", "synced", "in place", "to be kept", "to be removed"}
    placed = {file for what, file in fresh.points if what == "in place"}
    beside = {f"{FOLDER}/log.txt", f"{FOLDER}/last.previous.pt", f"runs/digits/.locks/{NAME}"}
    assert placed | beside == set(fresh.left["names"]) | {f"{FOLDER}/{BEGUN}"}
    accuracies = [epoch["val_accuracy"] for epoch in fresh.left["history"]]
    assert accuracies.index(max(accuracies)) == 1, "neither the first nor the last epoch"


def test_killed_as_it_writes_it_goes_on_to_the_same_end(fresh):
    last, metrics = f"{FOLDER}/last.pt", f"{REPORTS}/{NAME}/metrics.json"
    for number in fresh.numbers(("half", last), ("in place", last), ("synced", metrics)):
        kill(fresh, number)


def test_killed_as_it_copies_a_report_it_copies_it_again(shown):
    copy = f"{REPORTS}-too/{NAME}"
    assert not [point for point in shown.points if point[1] == copy and "another" in point[0]]
    for number in shown.numbers(("whole", f"{copy}/metrics.json"), ("renamed", copy)):
        kill(shown, number)
        assert Reports.read(shown.project / f"{REPORTS}-too").damaged == []


def test_a_disk_that_fills_as_it_writes_is_one_line_and_nothing_is_lost(fresh):
    points = ("half", f"{FOLDER}/best.pt"), ("begun", f"{REPORTS}/{NAME}/metrics.json")
    for number in fresh.numbers(*points):
        fill(fresh, number)


def test_a_folder_deleted_under_the_run_is_one_line(fresh):
    last, metrics = f"{FOLDER}/last.pt", f"{REPORTS}/{NAME}/metrics.json"
    of_run, of_report = fresh.numbers(("begun", last), ("synced", metrics))
    assert f"{NAME}: this folder is gone, and with it what the run had" in delete(fresh, of_run)
    assert "No such file or directory; see what is there" in delete(fresh, of_report)


BACK = """
import runpy, sys, time
now = time.time()
def back():
    global now
    now -= 3600
    return now
time.time, time.time_ns = back, lambda: int(1e9 * back())
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_clock_that_goes_back_changes_nothing(fresh, tmp_path):
    """Durations are those of another clock, which does not; and files of tomorrow are as good."""
    (number,) = fresh.numbers(("to be kept", f"{FOLDER}/last.previous.pt"))
    assert fresh.run("kill", number)[0] == -9
    for path in files(fresh.project).values():
        tomorrow = path.stat().st_mtime + 24 * 3600
        os.utime(path, (tomorrow, tomorrow))
    (tmp_path / "back.py").write_text(BACK)
    command = tmp_path / "back.py", SCRIPT, *fresh.options, "--resume"
    python(*command, cwd=fresh.project, **fresh.environment)
    assert left(fresh.project) == fresh.left
    report = fresh.project / REPORTS / NAME
    metrics, history = (read_json(report / f"{name}.json") for name in ("metrics", "history"))
    seconds = [metrics["seconds"], *metrics["detail"]["seconds"].values()]
    assert all(0 < took < 600 for took in [*seconds, *(epoch["seconds"] for epoch in history)])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_folder_deleted_before_or_after_any_write_is_one_line_at_most(fresh, part):
    numbers = [n for n, (what, _) in enumerate(fresh.points, 1) if what in ("begun", "synced")]
    for number in numbers[part::PARTS]:
        delete(fresh, number)


@pytest.mark.slow
def test_killed_as_it_keeps_decoded_pictures_it_starts_again(pictures):
    numbers = [n for n, (_, file) in enumerate(pictures.points, 1) if file.startswith("data/")]
    assert {Path(pictures.points[n - 1][1]).suffix for n in numbers} == {".npy", ".json"}
    for number in numbers:
        kill(pictures, number)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("before", ["fresh", "again", "shown"])
def test_killed_at_any_point_it_goes_on_to_the_same_end(before, part, request):
    faulty = request.getfixturevalue(before)
    for number in range(1 + part, len(faulty.points) + 1, PARTS):
        kill(faulty, number)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_a_disk_that_fills_at_any_point_is_one_line_and_nothing_is_lost(again, part):
    numbers = [n for n, (what, _) in enumerate(again.points, 1) if what in ("begun", "half")]
    for number in numbers[part::PARTS]:
        fill(again, number)
