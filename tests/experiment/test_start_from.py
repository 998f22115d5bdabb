"""What a level's run begins with: another level's best checkpoint, or adapted batch norm."""

import json

import torch

from common import experiment
from common.training import checkpoint
from helpers.refusals import LEVELS

TINY = ["--data.name=digits", "--data.limit=120", "--network.weights=tiny-imagenet"]
TINY += ["--network.image_size=32", "--train.epochs=1", "--audit=false"]
FROM_1 = [*TINY, "--network.start_from=level1_baseline"]


def best(project, run):
    return checkpoint.load(project / "runs/digits" / run / "best.pt")


def metrics(project, run):
    return json.loads((project / "runs/digits/reports" / run / "metrics.json").read_text("utf-8"))


def test_a_level_goes_on_from_anothers_head_and_stages(run, project):
    assert run(1, *TINY)[0] == 0
    code, out, complaints = run(2, *FROM_1, "--train.lr=1e-30", "--train.head_lr=1e-30")
    assert code == 0, complaints
    assert "starts from runs/digits/level1_baseline/best.pt, epoch 1" in out
    first, second = (best(project, f"level{i}") for i in ("1_baseline", "2_augmentation"))
    for key in ("head.classify.weight", "stages.layer4.0.conv1.weight"):
        assert torch.equal(first["network"][key], second["network"][key])
    assert second["start"] == checkpoint.digest(first["network"])
    assert second["adapted"] == first["adapted"] == 96, "all training pictures"


def test_a_level_may_take_anothers_stages_alone(run, refused, project):
    assert run(2, *TINY)[0] == 0
    options = [*TINY, "--network.start_from=level2_augmentation", "--train.lr=1e-30"]
    refused(3, options, "level2_augmentation/best.pt: has another head", "--network.new_head true")
    code, out, complaints = run(3, *options, "--train.head_lr=1e-30", "--network.new_head=true")
    assert code == 0, complaints
    assert "level2_augmentation/best.pt, epoch 1, with a new head" in out
    names = "level2_augmentation", "level3_fusion"
    second, third = (best(project, name)["network"] for name in names)
    trained = "stages.layer4.0.conv1.weight"
    assert torch.equal(second[trained], third[trained])
    copied = third["head.blocks.1.0.conv1.weight"]
    assert not torch.equal(copied, third[trained]), "a copy of the weights' own, not of level 2's"


def test_a_start_that_does_not_fit_is_refused(run, refused):
    assert run(1, *TINY)[0] == 0
    refused(3, FROM_1, "level1_baseline/best.pt: has another head", "--network.new_head true")
    own = [*FROM_1[:-1], "--network.start_from=level2_augmentation"]
    refused(2, own, "network.start_from: a run cannot start from itself, level2_augmentation")
    other = [*FROM_1, "--network.image_size=64"]
    refused(2, other, "made with other network.image_size than this run's", "run first")
    refused(2, [*FROM_1, "--data.stored_size=16"], "made with other data.stored_size")
    unknown = [*FROM_1[:-1], "--network.start_from=level1_baseline/without_adapted_norm"]
    refused(2, unknown, "no config 'without_adapted_norm' in level1", "without_adapted_batch_norm")


def test_a_level_may_start_from_a_config_of_another(run, refused, project):
    own = "level1_baseline/ablations/without_adapted_batch_norm.yaml"
    options = [*FROM_1[:-1], "--network.start_from=level1_baseline/without_adapted_batch_norm"]
    says = f"run first: python level1_baseline/run.py --config {own} --data.name digits"
    refused(2, options, "level1_baseline/without_adapted_batch_norm's best checkpoint", says)
    assert run(1, *TINY, "--config", str(LEVELS[1] / own.split("/", 1)[1]))[0] == 0
    refused(2, options, "made with other network.adapt_batch_norm than this run's")
    assert run(2, *options, "--network.adapt_batch_norm=0")[0] == 0
    state = best(project, "level2_augmentation")
    assert state["adapted"] == 0


def test_adapted_batch_norm_is_reported_and_frozen_from_then_on(run, project):
    assert run(1, *TINY)[0] == 0
    assert run(1, *TINY, "--network.adapt_batch_norm=0", "--seed=1")[0] == 0
    adapted, plain = (best(project, f"level1_baseline{seed}") for seed in ("", "-seed1"))
    key = "stages.layer1.0.bn1.running_mean"
    assert not torch.equal(adapted["network"][key], plain["network"][key])
    statistics = {
        k: v
        for k, v in adapted["network"].items()
        if k.startswith("stages.") and k.endswith(("mean", "var", "tracked"))
    }
    figures = metrics(project, "level1_baseline")
    assert adapted["start"] == figures["start"] == checkpoint.digest(statistics)
    assert (figures["adapted"], metrics(project, "level1_baseline-seed1")["adapted"]) == (96, 0)
    assert figures["frozen"]["before"] == figures["frozen"]["after"]


def test_a_resumed_run_takes_its_statistics_from_the_checkpoint(run, project, monkeypatch):
    two = [*TINY[:-2], "--train.epochs=2", "--audit=false"]
    assert run(1, *two)[0] == 0
    last = project / "runs/digits/level1_baseline/last.pt"
    whole = best(project, "level1_baseline")["network"]
    content = checkpoint.load(last)
    cut = {"history": content["history"][:1]}
    checkpoint.save(last, content | cut)
    monkeypatch.setattr(experiment, "adapt_batch_norm", None)  # it is not called
    code, out, complaints = run(1, *two, "--resume")
    assert code == 0 and "resumed after epoch 1" in out, complaints
    again = best(project, "level1_baseline")["network"]
    key = "stages.layer1.0.bn1.running_mean"
    assert torch.equal(again[key], whole[key])
