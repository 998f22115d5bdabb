"""Runs that are there already: whose name it is, what is kept of it, and what is not believed."""

import json
import os

import pytest
import torch
import yaml

from common.config import load_config
from common.reports.restore import read_settings
from common.training.place import DONE, Place
from common.utils.errors import UserError
from common.utils.paths import PROJECT, VARIABLE
from experiment.test_runs import MLP, hashes, report_of, runs  # noqa: F401
from helpers.makers import make_picture_folder
from helpers.projects import folder_of
from helpers.refusals import LEVELS


def as_left_by_an_earlier_version(folder):
    (folder / DONE).unlink()
    settings = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    del settings["name"]
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def test_what_an_earlier_version_left_stays_until_the_new_is_whole(run, runs, monkeypatch):  # noqa: F811
    assert run(1, *MLP)[0] == 0
    folder = folder_of(LEVELS[1], MLP)
    as_left_by_an_earlier_version(folder)
    before = hashes(folder)
    assert "ended by an earlier version" in runs()
    runs("--prune")
    assert hashes(folder) == before
    assert Place(folder).work == Place(folder).new, "not trained over"
    assert run(1, *MLP)[0] == 0 and (folder / DONE).is_file() and not Place(folder).new.exists()


def test_a_run_of_a_changed_file_keeps_the_name_that_its_command_has(run, monkeypatch, tmp_path):
    """The file's rate is changed twice: each run is found again by the rate's option."""
    file = tmp_path / "mine.yaml"
    options = [*MLP, f"--config={file}"]
    accuracies = {}
    for rate in (0.001, 0.002, 0.001, 0.003):
        file.write_text(f"train: {{lr: {rate}}}\n", encoding="utf-8")
        assert run(1, *options)[0] == 0
        folder = folder_of(LEVELS[1], options)
        accuracies[rate] = json.loads((folder / DONE).read_text())["accuracy"]
    kept = {path.name for path in folder.parent.glob("level1_*")}
    stem = "level1_baseline-mine-arch-mlp-epochs-1"
    assert kept == {stem, f"{stem}-lr-0.001", f"{stem}-lr-0.001-2", f"{stem}-lr-0.002"}
    code, out, _ = run(1, *options, "--train.lr=0.001")
    assert code == 0 and "--anew runs it again" in out
    facts = json.loads((folder.with_name(f"{stem}-lr-0.002") / DONE).read_text())
    assert facts["recipe"] == "mine-arch-mlp-epochs-1-lr-0.002"
    assert facts["accuracy"] == accuracies[0.002] and facts["report"].endswith("-lr-0.002")


def test_two_folders_of_one_name_do_not_replace_each_others_runs(run, tmp_path):
    options = ["--data.name=folder", *MLP[2:], "--data.val_fraction=0.3"]
    for place, width in (("one", 16), ("two", 20)):
        root = make_picture_folder(tmp_path / place / "pets", per_class=8, size=(width, width))
        assert run(1, *options, f"--data.root={root}")[0] == 0
    folder = folder_of(LEVELS[1], [*options, f"--data.root={root}"])
    facts = [json.loads(file.read_text()) for file in folder.parent.glob(f"level1_*/{DONE}")]
    assert len(facts) == 2 and facts[0]["fingerprint"] != facts[1]["fingerprint"]
    assert len([*(folder.parent / "reports").glob("level1_*")]) == 2


def test_other_weights_are_another_folder(tmp_path):
    def given(*options):
        return load_config(LEVELS[1] / "config.yaml", list(options)).given

    assert given("--offline") == "" != given("--data.name=digits") == "imagenet"
    one, two = (given(f"--network.weights={tmp_path / place / 'm.pth'}") for place in "ab")
    assert one != two and one[:2] == two[:2] == "m-"


@pytest.mark.parametrize("name", ["wide.new", "wide.old"])
def test_no_recipe_is_called_as_a_folder_at_work(refused, name):
    refused(1, [*MLP, f"--name={name}"], "cannot end in .new or .old", name)


@pytest.mark.parametrize("recipe", ["**", "/x", "../x", "a/b"])
def test_a_start_is_named_by_a_recipe(refused, recipe):
    refused(4, [*MLP, f"--network.start_from=level1_baseline/{recipe}"], "start_from")


def test_another_levels_own_config_is_no_levels_own(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("train: {epochs: 77}\n", encoding="utf-8")
    config = load_config(LEVELS[1] / "config.yaml", [f"--config={file}"])
    assert config.recipe != "config" and config.differ["train.epochs"] == 77


def test_settings_of_others_do_not_say_where_this_process_writes(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "mine")
    settings = load_config(LEVELS[1] / "config.yaml").settings() | {"runs": str(tmp_path)}
    read_settings(settings, PROJECT, None, None)
    assert os.environ[VARIABLE] == "mine"


def test_a_run_takes_no_files_from_where_its_report_is_said_to_be(run, tmp_path):
    assert run(1, *MLP)[0] == 0
    folder = folder_of(LEVELS[1], MLP)
    report, secret = report_of(folder), tmp_path / "secret"
    report.rename(secret)
    (secret / "id_rsa").write_text("private", encoding="utf-8")
    facts = json.loads((folder / DONE).read_text())
    (folder / DONE).write_text(json.dumps(facts | {"report": str(secret)}), encoding="utf-8")
    code, out, _ = run(1, *MLP)
    assert code == 0 and "--anew runs it again" in out, "the report is copied back"
    assert (report / "metrics.json").is_file() and not (report / "id_rsa").exists()


def test_a_run_that_was_stopped_while_it_took_its_place_is_shown(run):
    assert run(1, *MLP)[0] == 0
    place = Place(folder_of(LEVELS[1], MLP))
    place.folder.rename(place.new)
    code, out, _ = run(1, *MLP)
    assert code == 0 and "--anew runs it again" in out and place.folder.is_dir()


def test_a_run_whose_report_is_gone_says_why_it_is_run_again(run, tmp_path):
    assert run(1, *MLP)[0] == 0
    (report_of(folder_of(LEVELS[1], MLP)) / "metrics.json").write_text("{", encoding="utf-8")
    code, out, _ = run(1, *MLP, f"--reports={tmp_path / 'none'}")
    assert code == 0 and "trained again: " in out and "is not its report" in out


@pytest.mark.parametrize(
    "said", [{"accuracy": None}, {"when": 3}, {"when": "\x1b[31m"}, {"differ": []}, [], None]
)
def test_a_run_json_that_is_none_is_listed_as_what_is_there(run, runs, said):  # noqa: F811
    assert run(1, *MLP)[0] == 0
    file = folder_of(LEVELS[1], MLP) / DONE
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | said if isinstance(said, dict) else said), encoding="utf-8")
    text = runs()
    assert "1 runs" in text and "1 of 1 epochs" in text and text.replace("\n", "").isprintable()


def test_several_processes_do_not_run_again_what_is_done(run, monkeypatch):
    from common import commands
    from common.runtime import Processes

    assert run(1, *MLP)[0] == 0
    told = []

    class Two(Processes):
        def broadcast_object(self, value):
            told.append(value)
            return value

    monkeypatch.setattr(commands.distributed, "join", lambda device: Two(rank=0, world=2))
    config = load_config(LEVELS[1] / "config.yaml", MLP)
    found = commands.run_seeds(pytest.fail, LEVELS[1], config)
    assert told == found and found[0]["level"] == LEVELS[1].name


def test_the_lower_run_is_the_one_by_the_same_options(tmp_path):
    from common.earlier import lower_run

    config = load_config(LEVELS[4] / "config.yaml", ["--train.epochs=1"])
    with pytest.raises(UserError, match="itself"):
        config.network.start_from = LEVELS[4].name
        lower_run(config, PROJECT, tmp_path / LEVELS[4].name)
    config.network.start_from = LEVELS[3].name
    names = [LEVELS[3].name, f"{LEVELS[3].name}-epochs-1"]
    for name in names:
        (tmp_path / name).mkdir()
        torch.save({}, tmp_path / name / "best.pt")
        assert lower_run(config, PROJECT, tmp_path / "x")[0].folder.name == name
