"""A level made from a copy of another: what it is, that it runs, and what is refused."""

import errno
import re
import shutil
import sys

import pytest

from common import levels, new_level
from common.config import load_config, yaml_files
from common.utils.errors import UserError
from helpers.projects import NAMES, copy_project, fresh_python, inside, python
from helpers.reports import Reports

pytestmark = pytest.mark.xdist_group("new_level")  # one process makes what they share

TINY = ["--offline", "--data.limit=60", "--train.epochs=1", "--network.image_size=32"]
TINY += ["--audit=false"]


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function: a command line -> the new level's folder, in a project that `make.project` is."""

    def make(*arguments):
        monkeypatch.setattr(sys, "argv", ["new_level", *arguments])
        before = set(make.project.iterdir())
        with inside(make.project):
            new_level.main()
        (folder,) = set(make.project.iterdir()) - before
        return folder

    make.project = copy_project(tmp_path / "project")
    return make


def refused(make, arguments, error=UserError):
    """What the error says; nothing is left of the level."""
    before = sorted(make.project.rglob("*"))
    with pytest.raises(error) as caught:
        make(*arguments)
    assert sorted(make.project.rglob("*")) == before
    return str(caught.value)


# ---- what is made ----


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_has_the_recipe_and_the_code_and_none_of_the_claims(name, make):
    source, folder = make.project / name, make("mine", "--like", name)
    assert folder.name == "level5_mine"
    code = {file.name for file in source.glob("*.py")}
    assert {file.name for file in folder.iterdir()} == code | {"config.yaml", "README.md"}
    old, new = (load_config(place / "config.yaml").settings() for place in (source, folder))
    assert old.pop("benchmarks") and new.pop("benchmarks") == [] and old == new
    assert yaml_files.read(folder / "config.yaml")["benchmarks"] == []
    texts = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}
    header = texts["config.yaml"].split("\n\n")[0].splitlines()
    assert header[1:] == [
        "#   python level5_mine/run.py",
        "# Test accuracy: not measured yet",
        "# Time: not measured yet",
    ]
    assert header[0] == f"# Level 5: mine. The recipe is level {name[5]}'s."
    assert texts["run.py"].startswith('"""Level 5: mine. ')
    for file in folder.glob("*.py"):
        assert not re.search(rf"import {name}|from {name}", texts[file.name])
    own = levels.load_function(folder, "build_network").__module__
    assert own in ("level5_mine.run", "level3_fusion.run"), "level 4's is level 3's"


def test_the_lesson_keeps_its_headings_and_asks_for_the_rest(make):
    folder = make("my_idea", "--like", "3", "--number", "7")
    text = (folder / "README.md").read_text(encoding="utf-8")
    source = (make.project / NAMES[2] / "README.md").read_text(encoding="utf-8")
    headings = [re.findall(r"^\*\*(.+?)\*\*", lesson, re.M) for lesson in (source, text)]
    assert headings[0][1] == "What level 2 left unsolved."
    assert headings[1] == [h.replace("level 2", "level 4") for h in headings[0]]
    assert text.startswith("# Level 7: my idea\n\n    python level7_my_idea/run.py\n")
    assert "**Objective.** (To be written: what this level is to find out, in one" in text
    assert set(re.findall(r"\d+", text)) == {"7", "4"}, "no figure of the source"


def test_a_lesson_of_another_form():
    lesson = (
        "# My title\n\n## Why level 3 fails\n\n84 % is **all**.\n**No** heading.\n\n### Rest\n\nx"
    )
    expected = "\n## Why level 6 fails\n\n(To be written.)\n\n### Rest\n\n(To be written.)\n"
    assert new_level.skeleton(lesson, 6) == expected
    assert new_level.skeleton("", None).count("(To be written: ") == len(new_level.HEADINGS)


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ("# 84 %\n#  3 min\n\nseed: 1 # why\n", "seed: 1 # why\n"),
        ("benchmarks:\n- {accuracy: 80} # mean\n# so\nseed: 1\n", "benchmarks: []\nseed: 1\n"),
        ("seed: 1\nbenchmarks:\n  - accuracy: 80\n    data: x", "seed: 1\nbenchmarks: []"),
        ("{benchmarks: [{accuracy: 80}], seed: 1}", "{benchmarks: [], seed: 1}"),
        ("# a\nbenchmarks: [] # none\n", "benchmarks: [] # none\n"),
    ],
)
def test_a_configs_claims_go_and_its_layout_stays(config, left):
    assert new_level.without_claims(config) == left


OWN = {  # every way to import what is one's own, and one module that nobody imports
    "run.py": '''"""Level 2: 84 %."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import level2_own.whole
from level2_own import by_name
from level2_own.package.inner import inner  # level2_own
from level1_first.below import below


def build():
    from level2_own.late import late

    return [level2_own.whole.x, by_name.x, inner, below, late, "level2_own", __doc__]


print(*build(), sep=", ")
''',
    "whole.py": "x = 'whole'\n",
    "by_name.py": "import importlib\n\nfrom . import neighbour\n\nx = neighbour.x\n",
    "neighbour.py": "x = 'neighbour'\n",
    "package/__init__.py": "",
    "package/inner.py": "from level2_own.whole import x as inner\n\nfrom ..neighbour import x\n",
    "late.py": "late = 'late'\n",
    "unused.py": "",
    "config.yaml": "seed: 1\n",
}


def test_every_kind_of_import_of_ones_own_is_taken_along(make):
    source, below = make.project / "level2_own", make.project / "level1_first/below.py"
    for name in NAMES:
        shutil.rmtree(make.project / name)
    for file, text in {
        **{source / name: text for name, text in OWN.items()},
        below: "below = 1\n",
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    before = fresh_python("level2_own/run.py", cwd=make.project)
    folder = make("mine", "--like", "level2_own")
    shutil.rmtree(source)
    after = fresh_python("level3_mine/run.py", cwd=make.project)
    assert (
        before.replace("Level 2: 84 %.", "Level 3: mine. It is level 2's; say here what is new.")
        == after
    )
    assert not (folder / "unused.py").exists()
    text = (folder / "run.py").read_text(encoding="utf-8")
    assert "from level1_first.below import below" in text and "# level2_own" in text


# ---- that it runs ----


def test_it_trains_at_once_without_its_source_and_the_ladder_lists_it(tmp_path):
    project = copy_project(tmp_path / "project", *TINY)
    printed = python("-m", "common.new_level", "mine", "--like", "3", cwd=project)
    assert printed.splitlines()[:2] == [f"made from {NAMES[2]}:", "  level5_mine/run.py"]
    (script,) = re.findall(r"python (\S+) --offline", printed)
    shutil.rmtree(project / NAMES[2])
    text = python(script, *TINY, cwd=project)
    (folder,) = project.glob("runs/*/reports")
    reports = Reports(folder)
    assert list(reports.rows()) == ["level5_mine"] and "index.html" in text
    assert reports.predictions("level5_mine")["logits"].shape == (60, 10)
    taps = reports.metrics("level5_mine")["settings"]["network"]["taps"]
    assert taps == ["layer2", "layer3", "layer4"]


def test_what_it_starts_from_is_named(make, caplog):
    with caplog.at_level("INFO", logger="rungs"):
        make("mine", "--like", "4")
    assert "next, after a run of level3_fusion, whose best it starts from:" in caplog.text


# ---- what is refused ----


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mine"], "the following arguments are required: --like"),
        (["--like", "3"], "the following arguments are required: NAME"),
        (["mine", "--like", "9"], "no level '9' in "),
        (["mine", "--like", "3", "--nummer", "7"], "did you mean '--number'?"),
        *(
            ([name, "--like", "3"], f"letters, digits and underscores (ASCII), not '{name}'")
            for name in ("my-level", "a/b", "..", "", "a b", "né", "x" * 61)
        ),
        (["mine", "--like", "3", "--number", "4"], f"{NAMES[3]} has the number 4; choose another"),
        (["mine", "--like", "3", "--number", "0"], "levels count from 1, so 0 is none"),
        (["mine", "--like", "3", "--number", "x"], "invalid int value: 'x'"),
        (["taken", "--like", "3"], "level5_taken is there already; choose another name"),
        (["mine", "--like", "6"], "run.py: is no Python ("),
    ],
)
def test_what_cannot_be_made(arguments, says, make):
    (make.project / "level5_taken").mkdir()
    if arguments[-1] == "6":
        shutil.copytree(make.project / NAMES[0], make.project / "level6_broken")
        (make.project / "level6_broken/run.py").write_text("def (:\n", encoding="utf-8")
    text = refused(make, arguments)
    assert says in text and "\n" not in text


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("after", range(4))
def test_nothing_is_half_made(error, after, make, monkeypatch):
    whole, written = new_level.write_whole, []

    def write_whole(file, text):
        if len(written) == after:
            raise error
        written.append(file)
        whole(file, text)

    monkeypatch.setattr(new_level, "write_whole", write_whole)
    refused(make, ["mine", "--like", "3"], type(error))
    assert len(written) == after
    monkeypatch.undo()


def test_the_numbers_go_on(make):
    assert make("a", "--like", "1", "--number", "12").name == "level12_a"
    assert make("b", "--like", "12").name == "level13_b"
    assert make("c", "--like", "2", "--number", "6").name == "level6_c"
