"""The audit names each planted bug, and raises no false alarm on the code as it is."""

import importlib
import os
from pathlib import Path

import pytest

from helpers.bugs import BUGS, Bug
from helpers.makers import make_picture_folder
from helpers.pairs import TECHNIQUES, pairwise
from helpers.planted_bugs import PROJECT, audited, changed, planted, table
from helpers.shipped import TRANSFER


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    make_picture_folder(root, ["cat", "dog", "eel", "fox"], 30, 32)
    return root


def findings(level: str, options: list[str], only: list[str] | None, folder: Path) -> list:
    """Run the audit's checks on a level, through modules that are imported here and now."""
    context = audited(level, options, folder)
    return importlib.import_module("common.audit.runner").find_bugs(context, only)


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_bug_is_named(bug: Bug, folder):
    with planted(bug):
        (finding,) = findings(str(bug.level), list(bug.options), [bug.check], folder)
    assert finding.check == bug.check
    assert not finding.passed, finding.line()
    if finding.expected == "no error":  # found by a crash: fine where a crash is what it looks for
        assert bug.check == "shapes fit" or "test pictures" in finding.seen, finding.line()


@pytest.mark.parametrize(
    "level", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3)), 4]
)
def test_no_false_alarm(level, folder):
    options = ["--network.weights", "tiny-imagenet"]
    failed = [f.line() for f in findings(str(level), options, None, folder) if not f.passed]
    assert not failed


def _by_options() -> dict[tuple[int, tuple[str, ...]], list[str]]:
    """The checks that bugs are planted for, by the level and the options of the audit."""
    found = {}
    for bug in BUGS:
        found.setdefault((bug.level, bug.options), []).append(bug.check)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", _by_options().items(), ids=lambda case: " ".join(case[0][1]))
def test_no_false_alarm_where_bugs_are_planted(case, folder):
    (level, options), checks = case
    failed = [f.line() for f in findings(str(level), list(options), checks, folder) if not f.passed]
    assert not failed


@pytest.mark.parametrize("views", ["null", "1", "2", "5"])
@pytest.mark.parametrize(
    "augment",
    ["[]", "[{flip: {alternate: true}}, flip]", "[mixup, erase]", "[{flip: {probability: 0.01}}]"],
)
def test_no_false_alarm_at_views(augment, views, folder):
    options = ["--data.name", "folder", "--data.root", "{folder}"]
    options += ["--augment", augment, "--train.views", views]
    checks = ["views differ, and come again", "what is kept is what was seen"]
    found = findings("2", options, checks, folder)
    assert len(found) == 2 and all(f.passed for f in found), [f.line() for f in found]


@pytest.fixture(scope="session")
def larger(tmp_path_factory):
    root = tmp_path_factory.mktemp("larger")
    make_picture_folder(root, ["cat", "dog", "eel", "fox"], 30, 48)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("row", pairwise(TECHNIQUES), ids=lambda row: "-".join(row.values()))
def test_no_false_alarm_on_any_pair_of_techniques(row, folder, larger):
    options = {key: value for key, value in row.items() if key not in ("level", "data")}
    trainable = options.pop("network.trainable").split()
    arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
    arguments += ["--network.trainable", *trainable] if trainable else []
    where = {"digits": ["digits"], "32": ["folder", "--data.root", str(folder)]}
    where["48"] = ["folder", "--data.root", str(larger)]
    arguments += ["--data.name", *where[row["data"]], "--network.weights", "tiny-imagenet"]
    failed = [f.line() for f in findings(row["level"], arguments, None, folder) if not f.passed]
    assert not failed


@pytest.mark.parametrize("passes", [True, False])
def test_several_phases_may_differ_in_training_alone(passes, folder):
    file = "level2_augmentation/run.py"
    fit = "    history = fit(network, run.data, config, trunk, run.folder)\n"
    other = "train.lr *= 0.1" if passes else "network.new_head = True"
    phase = f"    import copy; second = copy.deepcopy(config); second.{other}\n"
    phase += "    history += fit(network, run.data, second, trunk, run.folder / 'second')\n"
    source = (PROJECT / file).read_text(encoding="utf-8").replace(fit, fit + phase)
    with changed(file, source):
        (finding,) = findings("2", [], ["main trains, then tests"], folder)
    assert finding.passed == passes, finding.line()
    assert passes or "fit got another network.new_head" in finding.seen


def test_every_check_catches_some_bug():
    checks = {check.check for check in importlib.import_module("common.audit.runner").CHECKS}
    assert {bug.check for bug in BUGS} == checks


def test_a_bug_is_gone_afterwards():
    before = importlib.import_module("common.training.loop")
    with planted(BUGS[5]):
        assert importlib.import_module("common.training.loop") is not before
    assert importlib.import_module("common.training.loop") is before


def test_table_is_not_stale():
    committed = (PROJECT / "reports" / "audit.md").read_text(encoding="utf-8")
    assert committed == table(), "run: make audit-table"


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "pictures"])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("config", TRANSFER, ids=lambda c: str(c.relative_to(PROJECT)))
def test_no_false_alarm_on_any_config(config, seed, data, folder):
    pictures = os.environ.get("RUNGS_PICTURES")
    if data == "pictures" and not pictures:
        pytest.skip("RUNGS_PICTURES names no folder with train/ and test/")
    options = ["--config", str(config), "--seed", str(seed), "--network.weights", "tiny-imagenet"]
    where = {"digits": ["digits"], "pictures": ["folder", "--data.root", pictures]}
    options += ["--data.name", *where[data]]  # after --config, whose data they replace
    level = config.relative_to(PROJECT).parts[0]
    failed = [f.line() for f in findings(level, options, None, folder) if not f.passed]
    assert not failed
