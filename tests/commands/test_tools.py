"""The learning-rate finder and the comparison, tiny."""

import json
import math

import numpy as np
import pytest
import torch

from common import compare, find_lr, levels
from common.config import LevelConfig
from common.reports import comparison
from common.utils.errors import UserError
from helpers.networks import built, quick, small_network, small_splits
from helpers.projects import NAMES, copy_project, inside, make_own, python

pytestmark = pytest.mark.xdist_group("tools")  # one process makes what they share

TINY = ["--data.name=digits", "--data.limit=60", "--train.epochs=1", "--audit=false"]


# ---- the learning-rate finder ----


def sweep(lr=0.1, **train):
    torch.manual_seed(0)
    config = LevelConfig(train=quick(lr=lr, batch_size=5, **train))
    return find_lr.sweep(
        built(small_network(["c", "head"], normalised=False), small_splits(), config), config
    )


def test_the_rate_grows_from_step_to_step_and_the_sweep_ends_where_the_loss_explodes():
    rates, losses = sweep(optimizer="sgd")
    assert rates[0] == find_lr.LOW and np.allclose(np.diff(np.log(rates)), math.log(1e6) / 149)
    assert len(rates) == len(losses) and losses.max() <= 4 * losses.min()
    assert rates[-1] <= find_lr.HIGH


@pytest.mark.parametrize("at_once", [True, False])
def test_the_sweep_ends_where_a_loss_or_gradient_is_no_number(at_once):
    config = LevelConfig(train=quick(batch_size=5))
    trainer = built(small_network(["c", "head"], normalised=False), small_splits(), config)
    trainer.finite.at_once = at_once
    weight = trainer.network.head.classify.weight
    weight.register_hook(lambda g: g * (float("nan") if config.train.lr > 1e-4 else 1))
    rates, losses = find_lr.sweep(trainer, config)
    assert len(rates) == 50 and rates[-1] < 1e-4 and np.isfinite(losses).all()
    assert 0 < find_lr.suggest(rates, losses) < 1e-4


def test_the_suggested_rate_learns_and_the_least_one_does_not():
    rate = find_lr.suggest(*sweep(optimizer="adam"))
    assert 1e-4 < rate < 0.5

    def loss_after(lr):
        torch.manual_seed(0)
        config = LevelConfig(train=quick(lr=lr, optimizer="adam"))
        trainer = built(small_network(["c", "head"], normalised=False), small_splits(), config)
        return [trainer.epoch(epoch)["train_loss"] for epoch in (1, 2, 3)]

    still, learned = loss_after(find_lr.LOW), loss_after(rate)
    assert still[2] > 0.99 * still[0] and learned[2] < 0.8 * learned[0]


def test_the_steepest_place_is_suggested():
    rates = np.geomspace(1e-6, 1, 101)
    losses = 2 - 1 / (1 + (1e-3 / rates) ** 2)  # falls steepest, over log rate, at 1e-3
    assert find_lr.suggest(rates, losses) == pytest.approx(1e-3)
    with pytest.raises(UserError, match="falls at no rate"):
        find_lr.suggest(rates, losses[::-1])
    with pytest.raises(UserError, match="grows from the first step"):
        find_lr.suggest(rates[:2], losses[:2])


def test_the_command_leaves_a_picture_and_nothing_else(tmp_path):
    project = copy_project(tmp_path / "project", *TINY)
    options = ["--data.limit=200", "--audit=false", "--network.image_size=32"]
    printed = python("-m", "common.find_lr", "1", "--offline", *options, cwd=project, draws=True)
    assert "a rate to try: " in printed and "(the config has 1.0e-03)" in printed
    (folder,) = project.glob(f"runs/*/{NAMES[0]}-find_lr")
    assert {file.name for file in folder.iterdir()} == {
        "find_lr.svg",
        "begun.json",
        "config.yaml",
        "log.txt",
    }
    assert "Loss while the rate grows" in (folder / "find_lr.svg").read_text(encoding="utf-8")


def test_the_levels_own_run_stays_as_it_is(tmp_path):
    own = [*TINY, "--network.weights=tiny-imagenet", "--network.image_size=32"]
    project = copy_project(tmp_path / "project", *own)
    python(f"{NAMES[0]}/run.py", cwd=project)
    before = {f: f.read_bytes() for f in project.rglob("runs/**/*") if f.is_file()}
    for options in ([], ["--train.batch_size=16"]):
        python("-m", "common.find_lr", "1", *options, cwd=project)
    after = {f: f.read_bytes() for f in project.rglob("runs/**/*") if f.is_file()}
    assert any(file.name == "run.json" for file in before) and before.items() <= after.items()
    made = {file.parent.name for file in after.keys() - before if file.name == "find_lr.svg"}
    assert made == {f"{NAMES[0]}-find_lr", f"{NAMES[0]}-find_lr-batch_size-128"}


# ---- the comparison ----


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with two baselines and one that needs weights; level 1 has been run."""
    project = copy_project(tmp_path_factory.mktemp("compare") / "project", *TINY)
    baselines = project / NAMES[0] / "baselines"
    for file in baselines.glob("*.yaml"):
        if file.stem not in ("mlp", "cnn_small", "densenet121"):
            file.unlink()
    for file in (*baselines.glob("*.yaml"), project / NAMES[1] / "ablation_cnn.yaml"):
        make_own(file, TINY)
    level = [*TINY, "--network.weights=tiny-imagenet", "--network.image_size=32"]
    make_own(project / NAMES[0] / "config.yaml", level)
    with inside(project) as patch:
        patch.setenv("TORCH_HOME", str(project / "empty"))
        python(f"{NAMES[0]}/run.py", *level, cwd=project)
        folder = f"{NAMES[0]}/baselines"
        project.printed = python("-m", "common.compare", folder, *TINY, cwd=project)
        project.again = python("-m", "common.compare", folder, *TINY, cwd=project)
    return project


def test_compare_writes_a_row_a_config_beside_the_ladder(project):
    place = project / "runs/digits/reports"
    report = json.loads((place / "comparison.json").read_text(encoding="utf-8"))
    rows = {row["config"]: row for row in report["rows"]}
    assert list(rows) == [NAMES[0], "cnn_small", "densenet121", "mlp"]
    keys = "config network strategy parameters trained_parameters operations_per_picture epochs"
    keys += " seconds threads train_accuracy test_accuracy gap interval"
    assert all(list(row) == keys.split() for row in rows.values())
    for name in ("cnn_small", "mlp"):
        file = place / f"{NAMES[0]}-{name}" / "metrics.json"
        m, row = json.loads(file.read_text(encoding="utf-8")), rows[name]
        assert row["test_accuracy"] == m["test"]["accuracy"] and row["seconds"] == m["seconds"]
        assert row["gap"] == m["train"]["accuracy"] - m["test"]["accuracy"]
        assert row["parameters"] == row["trained_parameters"] == m["parameters"]
        assert row["interval"] == m["detail"]["interval"] and row["strategy"] == "scratch"
    missing = rows["densenet121"]
    assert missing["test_accuracy"] is missing["gap"] is missing["seconds"] is None
    assert (missing["network"], missing["strategy"]) == ("densenet121", "transfer")
    assert rows[NAMES[0]]["strategy"] == "ladder" and rows[NAMES[0]]["trained_parameters"] == 5130
    page = (place / "comparison.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("| densenet121"))
    assert "not measured here" in line and page.count("not measured here") == 2
    assert f"{100 * rows['mlp']['test_accuracy']:.1f} %" in page
    for name, data, _, accuracy, source in comparison.PUBLISHED:
        assert f"{accuracy:.2f} %" in page and source in page and name in page and data in page
    assert (place / "comparison.svg").is_file()
    assert "densenet121: not measured here: ImageNet weights" in project.printed


def test_what_has_a_report_is_not_run_again(project):
    assert "mlp: its report is there, with these settings" in project.again
    assert "epoch 1/1" in project.printed and "epoch 1/1" not in project.again


def test_operations_are_counted_by_hand():
    config = LevelConfig()
    config.network.arch, config.network.weights, config.network.image_size = "mlp", "none", 32
    config.network.trainable = ["head"]
    size = comparison.size(levels.find_level("1"), config, 10)
    layers = 3072 * 512 + 512 * 256 + 256 * 10
    assert size["operations_per_picture"] == 2 * layers
    assert size["parameters"] == layers + 2 * (512 + 256) + 10
    assert size["trained_parameters"] == 256 * 10 + 10


def test_a_config_is_compared_with_itself_without_augmentation(project):
    file = f"{NAMES[1]}/ablation_cnn.yaml"
    python("-m", "common.compare", file, *TINY, cwd=project)
    place = project / "runs/digits/reports"
    report = json.loads((place / "ablation_cnn.json").read_text(encoding="utf-8"))
    plain, augmented = report["rows"]
    assert plain["augment"] == [] and len(augmented["augment"]) == 4
    metrics = [
        json.loads((place / f"{NAMES[1]}-{row['config']}/metrics.json").read_text("utf-8"))
        for row in report["rows"]
    ]
    assert [m["settings"]["augment"] for m in metrics] == [plain["augment"], augmented["augment"]]
    for row, m in zip(report["rows"], metrics, strict=True):
        assert row["gap"] == m["train"]["accuracy"] - m["test"]["accuracy"]
    assert report["change"]["gain"] == pytest.approx(
        augmented["test_accuracy"] - plain["test_accuracy"]
    )
    expected = 1 - augmented["gap"] / plain["gap"] if plain["gap"] > 0 else None
    assert report["gap_closed"] == expected
    page = (place / "ablation_cnn.md").read_text(encoding="utf-8")
    assert "crop, flip, rotate (degrees 10), jitter (brightness 0.2" in page
    assert (place / "ablation_cnn.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name configs: python -m common.compare FOLDER or FILE.yaml"),
        (["nowhere"], "nowhere: no *.yaml here, in a level's directory or below it"),
        ([f"{NAMES[1]}/ablation_cnn.yaml", "--augment", "[]"], "nothing to leave out"),
        ([f"{NAMES[0]}/baselines", "--seeds", "0", "1"], "one seed at a time here, by --seed"),
    ],
)
def test_what_cannot_be_compared(project, arguments, says, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr("sys.argv", ["compare", *arguments])
    with inside(project), pytest.raises(UserError) as caught:
        compare.main()
    assert says in str(caught.value)
