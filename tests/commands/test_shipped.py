"""Each configuration that is shipped, and what a level's script prints of it and its options."""

import dataclasses
import re
import runpy
import sys
from pathlib import Path

import pytest
import yaml

from common.config import LevelConfig, load_config
from common.data import build_augmentation
from common.training.schedules import build_schedule
from common.utils import paths
from helpers.projects import NAMES, PROJECT, fresh_python
from helpers.shipped import SHIPPED, options_of


def run_script(script, arguments, monkeypatch, capsys):
    """A level's run.py with a command line; returns exit status, stdout and stderr."""
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    monkeypatch.setattr(sys, "path", sys.path[:])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    return stopped.value.code, *capsys.readouterr()


# ---- what is shipped ----


def test_the_four_levels_are_shipped():
    assert {PROJECT / name / "config.yaml" for name in NAMES} <= set(SHIPPED)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda f: str(f.relative_to(PROJECT)))
def test_shipped_config_loads_and_means_what_it_says(file):
    config = load_config(file)
    settings = config.settings()
    for key, value in yaml.safe_load(file.read_text(encoding="utf-8")).items():
        shown = {k: settings[key][k] for k in value} if isinstance(value, dict) else settings[key]
        assert shown == value
    build_augmentation(config.augment, mirror=True)
    rate = build_schedule(config.train.schedule, 10)
    assert 0 < max(rate(step) for step in range(10)) <= 1
    assert config.file == file and config.recipe == file.stem
    if file.parent.name not in NAMES:
        return  # a reader's own level
    header = file.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in header)
    assert f"python {file.parent.name}/run.py" in "\n".join(header), "the claim's command"


def test_the_ladder_of_recipes():
    """Levels 2 and 3 share a recipe; each level's rate and trained stages are the course's."""
    recipes = {int(name[5]): load_config(PROJECT / name / "config.yaml") for name in NAMES}
    assert {n: (c.train.lr, c.train.epochs) for n, c in recipes.items()} == {
        **{1: (1e-3, 5), 2: (3e-4, 3)},
        **{3: (3e-4, 3), 4: (2e-4, 2)},
    }
    assert recipes[1].network.trainable == ["head"] and recipes[1].augment == []
    assert recipes[4].network.trainable == ["layer3", "layer4", "head"]
    assert {n: c.test.tta for n, c in recipes.items()} == {1: "none", 2: "none", 3: "none"} | {
        4: "flip"
    }
    second, third = recipes[2].settings(), recipes[3].settings()
    assert second.pop("benchmarks") != third.pop("benchmarks")
    assert second["network"].pop("taps") is None
    assert third["network"].pop("taps") == ["layer2", "layer3", "layer4"]
    assert second == third, "levels 2 and 3 differ in the head alone"
    assert all(c.train.batch_size == 128 for c in recipes.values())


# ---- --print_config and --help ----


@pytest.mark.parametrize("level", ["level2_augmentation", "level4_finetune_tta"])
def test_printed_config_loads_again(level, monkeypatch, capsys, written):
    script = PROJECT / level / "run.py"
    options = ["--offline", "--train.schedule", "{cosine: {warmup: 0.1}}", "--seeds", "0", "1"]
    for arguments in ([], options):
        code, printed, complaints = run_script(
            script, [*arguments, "--print_config"], monkeypatch, capsys
        )
        assert (code, complaints) == (0, "")
        file = written(printed, "my.yaml")
        own = load_config(PROJECT / level / "config.yaml", arguments)
        again = load_config(PROJECT / level / "config.yaml", ["--config", str(file)])
        assert again.settings() == own.settings() and again.recipe == "my"
        assert set(yaml.safe_load(printed)) == {
            f.name for f in dataclasses.fields(LevelConfig) if f.init
        }
        second = run_script(script, ["--config", str(file), "--print_config"], monkeypatch, capsys)
        assert second[:2] == (0, printed)


def test_help_says_what_every_option_means(monkeypatch, capsys):
    script = PROJECT / "level2_augmentation" / "run.py"
    code, text, _ = run_script(script, ["--help"], monkeypatch, capsys)
    assert code == 0 and "usage: python level2_augmentation/run.py" in text
    entries = {}  # option -> its value here, and what stands under it
    for line in text.splitlines():
        if match := re.match(r"  --([\w.]+) (.*)", line):
            entries[match[1]] = option = [match[2].strip(), ""]
        elif line.startswith(" " * 6):
            option[1] += line.strip() + " "
    expected = {option.removeprefix("--") for option in options_of()} - {"benchmarks"}
    assert expected <= entries.keys() and {"seed", "train.lr", "test.tta"} <= expected
    assert [key for key in expected if len(entries[key][1].split()) < 2] == []
    assert max(map(len, text.splitlines())) <= 80
    assert {"offline", "config", "print_config", "summary", "help"} <= entries.keys()
    assert entries["train.epochs"][0] == "3", "the level's own value, from its YAML"
    assert entries["augment"][0] == "[{flip: {alternate: true}}, {crop: {padding: 1}}]"
    assert entries["data.val_fraction"][0] == "0.2"


def test_what_a_run_starts_with_imports_no_plotting():
    modules = "experiment training evaluation models verify_resume course grade.__main__ compare"
    code = f"import sys, {', '.join(f'common.{name}' for name in modules.split())}\n"
    code += "print([m for m in ('matplotlib', 'seaborn', 'torchinfo') if m in sys.modules])"
    assert fresh_python("-c", code, cwd=PROJECT).strip() == "[]"


# ---- --summary ----


def summary(level, arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(PROJECT / level / "run.py"), "--summary", *arguments])
    monkeypatch.setattr(sys, "path", sys.path[:])
    runpy.run_path(sys.argv[0], run_name="__main__")
    return capsys.readouterr()


@pytest.mark.parametrize("level", NAMES)
def test_summary_shows_the_network_and_stops(level, monkeypatch, capsys, tmp_path):
    """Neither data nor weights need be there: nothing is read, and nothing is written."""
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    config = load_config(PROJECT / level / "config.yaml")
    nowhere = ["--data.name", "cifar100_coarse", "--network.weights", str(tmp_path / "none.pth")]
    options = [*nowhere, "--network.image_size", "64", "--reports", str(tmp_path / "reports")]
    printed, complaints = summary(level, options, monkeypatch, capsys)
    assert complaints == "" and list(tmp_path.iterdir()) == []
    assert "StagedNetwork" in printed and "Total mult-adds" in printed
    for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
        (line,) = [line for line in printed.splitlines() if f"({stage})" in line]
        assert line.endswith("True" if stage in config.network.trainable else "False")
    assert re.search(r"\(head\) +\[1, 20\]", printed)


@pytest.mark.parametrize(("folders", "classes"), [(["a", "b", "c", ".hidden"], 3), ([], 10)])
def test_summary_counts_a_folders_classes(folders, classes, monkeypatch, capsys, tmp_path):
    for name in folders:
        (tmp_path / "train" / name).mkdir(parents=True)
    options = ["--data.name", "folder", "--data.root", str(tmp_path)]
    options += ["--network.weights", "none"]
    printed, _ = summary("level1_baseline", options, monkeypatch, capsys)
    assert re.search(rf"\(head\) +\[1, {classes}\]", printed)


def test_settings_name_the_home_folder_as_others_can_use_it():
    home = Path.home()
    file = PROJECT / "level1_baseline" / "config.yaml"
    config = load_config(file, ["--data.root", f"{home}/pets", "--network.weights", "/srv/w.pth"])
    settings = config.settings()
    assert settings["data"]["root"] == "~/pets" and settings["network"]["weights"] == "/srv/w.pth"
