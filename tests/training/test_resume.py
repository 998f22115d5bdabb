"""Nothing is lost: killed runs go on to the same bits, stopped ones say how."""

import contextlib
import json
import os
import random
import signal
import time
from unittest.mock import Mock

import pytest

from common import cli, verify_resume
from common.config import LevelConfig
from common.training import checkpoint
from common.training.place import DONE, KEEP, Place
from common.utils.errors import UserError
from common.verify_resume import outcome
from helpers.processes import Started
from helpers.projects import NAMES, PROJECT, copy_project, inside, python

TINY = ["--offline", "--data.limit=200", "--train.epochs=3", "--train.batch_size=32"]
TINY += ["--network.image_size=32", "--train.threads=1", "--audit=false", "--reports=reports"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, and how long it took."""
    project = copy_project(tmp_path_factory.mktemp("whole") / "project", *TINY)
    started = time.monotonic()
    python(f"{NAMES[1]}/run.py", *TINY, cwd=project, **{KEEP: "1"})
    project.seconds = time.monotonic() - started
    return project


def kill_and_resume(whole, place, seed):
    project, draw = copy_project(place / "project", *TINY), random.Random(seed)
    run = Started(project, f"{NAMES[1]}/run.py", *TINY, **{KEEP: "1"})
    if run.wait(draw.uniform(0.3, 1.0) * whole.seconds) is None:
        os.kill(run.pid, signal.SIGKILL)
    run.wait()
    python(f"{NAMES[1]}/run.py", *TINY, "--resume", cwd=project, **{KEEP: "1"})
    assert outcome(project, NAMES[1]) == outcome(whole, NAMES[1])
    assert not list(project.glob("runs/digits/*/*.part"))


@pytest.mark.parametrize("seed", range(1))
def test_a_killed_run_goes_on_to_the_same_bits(whole, tmp_path, seed):
    kill_and_resume(whole, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 7))
def test_more_killed_runs_go_on_to_the_same_bits(whole, tmp_path, seed):
    kill_and_resume(whole, tmp_path, seed)


@pytest.mark.parametrize("level", [2, 4])
@pytest.mark.slow
def test_a_user_can_have_it_proved(tmp_path, level):
    project = copy_project(tmp_path / "project", *TINY)
    options = [*TINY, "--seed=1", "--runs", "mine"]
    if level == 4:  # which starts from level 3's
        python(f"{NAMES[2]}/run.py", *options, cwd=project)
    text = python("-m", "common.course", "--verify-resume", level, *options, cwd=project)
    assert text.count(": equal (") == 5 and "the same to the bit" in text, text
    assert not list(project.glob(f"*/digits/level{level}*")), "nothing in the user's own"


def test_a_copy_to_run_in_has_all_that_is_a_levels_own(tmp_path):
    project = copy_project(tmp_path / "project", *TINY)
    own = [f"{NAMES[0]}/{name}/mine.txt" for name in ("weights", "data", "runs")]
    left_out = [
        f"{NAMES[0]}/__pycache__/run.pyc",
        f"runs/digits/{NAMES[0]}/best.pt",
        "mine/big.png",
    ]
    left_out += [f"runs/digits/{NAMES[0]}{ending}/best.pt" for ending in (".new", ".old")]
    for file in (*own, *left_out, f"runs/digits/{NAMES[1]}/best.pt"):
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_text(file)
    (project / "data/cache").mkdir(parents=True)
    with inside(project):
        place = verify_resume.copied(tmp_path / "copy", NAMES[0])
    assert (place / "runs/cache").resolve() == (project / "data/cache").resolve()
    assert [(place / file).read_text() for file in own] == own
    assert not any((place / file).exists() for file in left_out)
    linked = ("data", "common/weights", f"runs/digits/{NAMES[1]}")
    assert all((place / name).resolve() == (project / name).resolve() for name in linked)
    assert not any((place / name).is_symlink() for name in (NAMES[0], "common", own[0]))


@pytest.mark.parametrize("runs", [["--runs", "mine"], ["--runs=mine"], []])
def test_the_proof_runs_in_its_own_folder(tmp_path, monkeypatch, runs):
    (tmp_path / NAMES[0]).mkdir()
    text = "import json, os, sys; from pathlib import Path\n"
    text += "told = sys.argv[1:], os.environ.get('RUNGS_RUNS')\n"
    text += "Path(__file__).with_name('told.json').write_text(json.dumps(told))\n"
    (tmp_path / NAMES[0] / "run.py").write_text(text)
    monkeypatch.setenv("RUNGS_RUNS", "theirs")
    verify_resume._run(tmp_path, NAMES[0], ["--offline", *runs, "--seed", "1"])
    options = ["--offline", "--seed", "1", "--reports", str(tmp_path / "reports")]
    told = json.loads((tmp_path / NAMES[0] / "told.json").read_text())
    assert told == [options, str(tmp_path / "runs")]


def test_a_resumed_run_that_came_out_otherwise_is_named(monkeypatch, tmp_path):
    digests = iter([{"weights": "a", "figures": "c"}, {"weights": "b", "figures": "c"}])
    monkeypatch.setattr(verify_resume, "copied", lambda *_: tmp_path)
    for name in ("_run", "_kill"):
        monkeypatch.setattr(verify_resume, name, lambda *_: [])
    (tmp_path / "reports/level3_fusion").mkdir(parents=True)
    (tmp_path / "reports/level3_fusion/history.json").write_text("[]")
    monkeypatch.setattr(verify_resume, "outcome", lambda *_: next(digests))
    with pytest.raises(verify_resume.NotTheSame, match="level3_fusion: resumed after a kill"):
        verify_resume.verify(PROJECT / NAMES[2], LevelConfig(), [])


def test_a_run_that_started_over_instead_is_named(monkeypatch, tmp_path):
    """It comes out the same, but for the times of the epochs that were done before."""
    monkeypatch.setattr(verify_resume, "copied", lambda *_: tmp_path)
    monkeypatch.setattr(verify_resume, "_run", lambda *_: None)
    monkeypatch.setattr(verify_resume, "_kill", lambda *_: [{"epoch": 1, "seconds": 1.5}])
    monkeypatch.setattr(verify_resume, "outcome", lambda *_: {"weights": "a"})
    (tmp_path / "reports/level3_fusion").mkdir(parents=True)
    history = tmp_path / "reports/level3_fusion/history.json"
    facts = PROJECT / NAMES[2], LevelConfig(), []
    history.write_text('[{"epoch": 1, "seconds": 1.5}, {"epoch": 2, "seconds": 1.4}]')
    verify_resume.verify(*facts)
    history.write_text('[{"epoch": 1, "seconds": 1.6}, {"epoch": 2, "seconds": 1.4}]')
    with pytest.raises(verify_resume.NotTheSame, match="before the kill were done again"):
        verify_resume.verify(*facts)


def test_a_run_to_be_killed_that_ends_by_itself_says_why(tmp_path, monkeypatch):
    (tmp_path / NAMES[0]).mkdir()
    text = "import sys; sys.exit('error: no room')"
    (tmp_path / NAMES[0] / "run.py").write_text(text)
    with pytest.raises(UserError, match=f"^{NAMES[0]}: no room$"):
        verify_resume._kill(tmp_path, NAMES[0], NAMES[0], [], [{"seconds": 9}, {"seconds": 9}])


@pytest.mark.parametrize(("how", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_how_to_go_on(tmp_path, how, status):
    project = copy_project(tmp_path / "project", *TINY)
    run = Started(project, f"{NAMES[1]}/run.py", *TINY, "--train.epochs=500")
    run.wait_for("epoch 1/500")
    os.kill(run.pid, how)
    assert run.wait(timeout=60) == status
    _, complaints = run.text()
    assert "Traceback" not in complaints
    assert "stopped; the same command with --resume goes on" in complaints


@pytest.mark.parametrize("resumes", [True, False])
def test_only_what_can_go_on_is_said_to(resumes, capsys):
    def action():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        cli.command(action, resumes=resumes)
    hint = "; the same command with --resume goes on" if resumes else ""
    assert capsys.readouterr().err == f"\nstopped{hint}\n"


def test_a_try_that_came_to_its_end_is_tried_again(monkeypatch, tmp_path):
    """The first is too late, and whole; the second is killed after its second epoch of three."""
    folder, tries = tmp_path / "runs/digits" / NAMES[0], []

    @contextlib.contextmanager
    def started(*_):
        place = Place(folder)
        assert place.work == folder and not folder.exists(), "a finished run is in its way"
        folder.mkdir(parents=True)
        tries.append(3 if not tries else 2)
        checkpoint.save(folder / "last.pt", {"history": list(range(tries[-1]))})
        if tries[-1] == 3:
            (folder / DONE).touch()
        yield Mock(poll=lambda: 0)

    monkeypatch.setattr(verify_resume, "_started", started)
    history = [{"seconds": 0.0}] * 3
    verify_resume._kill(tmp_path, NAMES[0], NAMES[0], [], history)
    assert tries == [3, 2]
