"""Bad input of every kind, by the command line: one line that says what, where and what to do.

Nothing is written and nothing is lost: the project, with its runs, and the folder of the input are
compared file by file before and after.
"""

import contextlib
import hashlib
import os
import pickle
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import warnings

import pytest
from PIL import Image

from common.training.place import DONE, KEEP
from helpers import bad_files, spoiled
from helpers.bad_words import COMMAND_LINE, CONFIG
from helpers.makers import patched_checksums
from helpers.projects import PROJECT, copy_project, inside
from helpers.refusals import LEVELS, TINY, one_line

pytestmark = pytest.mark.xdist_group("bad input")  # one process makes what they share

SMALL = [*TINY, "--network.weights=none", "--network.arch={cnn: {depth: 4, width: 4}}"]
SMALL += ["--network.trainable=[head]", "--name=small"]
TABLES = {
    "config": [
        ("1 --config mine.yaml", {"mine.yaml": text}, "mine.yaml: ", *words)
        for text, words in CONFIG.items()
    ],
    "command line": [(command, {}, *words) for command, *words in COMMAND_LINE],
    "data": bad_files.DATA + bad_files.ARCHIVES,
    "weights": bad_files.WEIGHTS,
    "checkpoints": bad_files.CHECKPOINTS,
    "reports": bad_files.REPORTS,
    "pictures": bad_files.PICTURES,
}
CASES = [(kind, *row) for kind, rows in TABLES.items() for row in rows]
NAMES = [f"{kind}-{i}" for kind, rows in TABLES.items() for i in range(len(rows))]

# What a run that is refused may leave, and nothing else: it decodes a folder of pictures, and locks
# its folders, before it looks at weights and checkpoints; nothing in them belongs to a run.
MAY_APPEAR = [
    r"project/data(/cache(/\w+(-\d+)?\.(npy|json))?)?",
    r"project/runs(/[\w.-]+(/level\d_[\w.-]+(/doubts\.npz)?|/\.locks(/[\w.-]+)?|/reports)?)?",
    r"torch(/hub(/checkpoints)?)?",  # the folders of a download that failed
]
# The id of the process that had the lock.
MAY_CHANGE = [r"project/runs/[\w.-]+/\.locks/[\w.-]+"]


def no_network(*_, **__):
    raise urllib.error.URLError("no route to host")


def spelled_out(command):
    """A row's command -> a script, below the project, and its arguments."""
    name, *words = shlex.split(command)
    options = {"TINY": TINY, "SMALL": SMALL}
    arguments = [argument for word in words for argument in options.get(word, [word])]
    level = name.isdigit() and f"{LEVELS[int(name)].name}/run.py"
    return level or module(name), arguments


def module(name):
    """The script of `python -m common.<name>`."""
    room = PROJECT / "common" / name
    return f"common/{name}/__main__.py" if room.is_dir() else f"common/{name}.py"


def in_this_process(project, command, capsys):
    """Run a command as a process would -> exit status, stdout, stderr."""
    script, arguments = spelled_out(command)
    place = project if script.startswith("level") else PROJECT
    code = 0
    with inside(project) as patch, warnings.catch_warnings(record=True) as warned:
        patch.setattr(sys, "argv", [str(place / script), *arguments])
        patch.setattr(urllib.request, "urlopen", no_network)
        try:
            runpy.run_path(str(place / script), run_name="__main__")
        except SystemExit as stopped:
            code = stopped.code
    unseen = DeprecationWarning, PendingDeprecationWarning, ResourceWarning  # Python's own choice
    unseen += (Image.DecompressionBombWarning,)  # and pictures.py's, whose filter pytest resets
    assert [w.message for w in warned if not issubclass(w.category, unseen)] == []
    return code, *capsys.readouterr()


def in_its_own_process(project, command):
    script, arguments = spelled_out(command)
    module = [] if script.startswith("level") else ["-m", script[:-3].replace("/", ".")]
    done = subprocess.run(
        [sys.executable, *(module or [project / script]), *arguments],
        env=os.environ | {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"},
        **{"capture_output": True, "text": True},
    )
    return done.returncode, done.stdout, done.stderr


def snapshot(place):
    """Path below a place -> SHA-256 of what it holds; "" for a folder."""
    found = {}
    for path in place.rglob("*"):
        if "__pycache__" not in path.parts:
            sha256 = hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""
            found[path.relative_to(place).as_posix()] = sha256
    return found


def nothing_happened(before, after):
    def left(paths, allowed):
        return sorted(p for p in paths if not any(re.fullmatch(rule, p) for rule in allowed))

    assert before.keys() - after.keys() == set(), "lost"
    assert left(after.keys() - before.keys(), MAY_APPEAR) == [], "written"
    changed = [path for path in before.keys() & after.keys() if before[path] != after[path]]
    assert left(changed, MAY_CHANGE) == [], "changed"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A project in which a small level 1 has run; and once more, as if stopped at its end."""
    project = copy_project(tmp_path_factory.mktemp("trained") / "project", *TINY)
    script = project / LEVELS[1].name / "run.py"
    with inside(project) as patch:
        patch.setattr(sys, "argv", [str(script), *SMALL])
        patch.setenv(KEEP, "1")  # so that it can be gone on with
        runpy.run_path(str(script), run_name="__main__")
    folder = project / "runs/digits-none" / f"{LEVELS[1].name}-small"
    ended = folder.with_name(f"{LEVELS[1].name}-ended")
    shutil.copytree(folder, ended, ignore=shutil.ignore_patterns("last*"))
    (folder / DONE).unlink()
    return project


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A folder with a copy of the project and, to work in, a folder `here` with a picture."""
    shutil.copytree(trained, tmp_path / "project", symlinks=True)
    (tmp_path / "here").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "here/a.png")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def prepare(here, files):
    """Make a row's files; returns the checksums to take for CIFAR's, if it says some."""
    if callable(files):
        return files(here)
    for name, content in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return None


@pytest.mark.parametrize(
    ("kind", "command", "files", "words"),
    [
        pytest.param(kind, command, files, words, id=name)
        for name, (kind, command, files, *words) in zip(NAMES, CASES, strict=True)
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(kind, command, files, words, place, capsys):
    sums = prepare(place / "here", files)
    before = snapshot(place)
    with patched_checksums(sums) if isinstance(sums, dict) else contextlib.nullcontext():
        code, _, text = in_this_process(place / "project", command, capsys)
    one_line(code, text, *words)
    nothing_happened(before, snapshot(place))


@pytest.mark.parametrize("name", ["data-12", "weights-3", "reports-0"])
def test_the_same_in_a_process_of_its_own(name, place):
    _, command, files, *words = CASES[NAMES.index(name)]
    prepare(place / "here", files)
    before = snapshot(place)
    code, _, text = in_its_own_process(place / "project", command)
    one_line(code, text, *words)
    nothing_happened(before, snapshot(place))


def test_the_evil_pickle_is_evil(tmp_path):
    """Else its rows could not fail."""
    spoiled.evil(tmp_path)
    pickle.loads((tmp_path / "mine.pth").read_bytes())
    assert (tmp_path / "mark").exists()


def test_every_command_and_kind_is_given_bad_input():
    commands = {spelled_out(command)[0] for _, command, *_ in CASES}
    modules = {"audit", "bench", "compare", "course", "find_lr", "grade", "labels", "new_level"}
    modules |= {"predict", "runs", "site"}
    assert commands >= {module(name) for name in modules}
    assert len({repr(case[1:]) for case in CASES}) == len(CASES) >= 60
    assert min(map(len, TABLES.values())) >= 9


def test_good_input_is_not_refused(place, capsys):
    """Else all of the above could be refused for some other reason."""
    for command in ("1 SMALL --resume", bad_files.PREDICT):
        code, _, text = in_this_process(place / "project", command, capsys)
        assert (code, text) == (0, "")
    before = snapshot(place)
    with pytest.raises(AssertionError, match="changed"):
        nothing_happened(
            before, before | {"project/runs/digits-none/level1_baseline-small/best.pt": b""}
        )
    with pytest.raises(AssertionError, match="written"):
        nothing_happened(before, before | {"here/mark": b""})
    with pytest.raises(AssertionError, match="lost"):
        nothing_happened(before, {})
