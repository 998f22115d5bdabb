"""What a level's run begins with: another level's best checkpoint, or adapted batch norm."""

import json

import torch

from common import experiment
from common.config import load_config
from common.training import checkpoint
from common.training.place import DONE, KEEP
from helpers.projects import folder_of
from helpers.refusals import LEVELS

TINY = ["--data.name=digits", "--data.limit=120", "--network.weights=tiny-imagenet"]
TINY += ["--network.image_size=32", "--train.epochs=1", "--audit=false"]
FROM_1 = [*TINY, "--network.start_from=level1_baseline/epochs-1"]


def best(level, options):
    """The content of a run's best.pt, with all of its network."""
    path = folder_of(LEVELS[level], options) / "best.pt"
    config = load_config(LEVELS[level] / "config.yaml", options)
    return checkpoint.completed(checkpoint.load(path), config.network, path)


def metrics(level, options):
    folder = folder_of(LEVELS[level], options)
    report = folder.parent / "reports" / folder.name / "metrics.json"
    return json.loads(report.read_text("utf-8"))


def test_a_level_goes_on_from_anothers_head_and_stages(run):
    assert run(1, *TINY)[0] == 0
    options = [*FROM_1, "--train.lr=1e-30", "--train.head_lr=1e-30"]
    code, out, complaints = run(2, *options)
    assert code == 0, complaints
    assert "digits-limit-120-32px/level1_baseline-epochs-1/best.pt, epoch 1" in out
    first, second = best(1, TINY), best(2, options)
    for key in ("head.classify.weight", "stages.layer4.0.conv1.weight"):
        both = [content["network"][key].bfloat16() for content in (first, second)]
        assert torch.equal(*both), "as the run computes with them"
    assert second["start"] == checkpoint.digest(first["network"])
    assert second["adapted"] == first["adapted"] == 96, "all training pictures"


def test_a_level_may_take_anothers_stages_alone(run, refused):
    assert run(2, *TINY)[0] == 0
    options = [*TINY, "--network.start_from=level2_augmentation/epochs-1", "--train.lr=1e-30"]
    refused(3, options, "epochs-1/best.pt: has another head", "--network.new_head true")
    still = [*options, "--train.head_lr=1e-30", "--network.new_head=true"]
    code, out, complaints = run(3, *still)
    assert code == 0, complaints
    assert "level2_augmentation-epochs-1/best.pt, epoch 1, with a new head" in out
    second, third = best(2, TINY)["network"], best(3, still)["network"]
    trained = "stages.layer4.0.conv1.weight"
    assert torch.equal(second[trained], third[trained])
    copied = third["head.blocks.1.0.conv1.weight"]
    assert not torch.equal(copied, third[trained]), "a copy of the weights' own, not of level 2's"


def test_a_start_that_does_not_fit_is_refused(run, refused):
    assert run(1, *TINY)[0] == 0
    refused(3, FROM_1, "level1_baseline-epochs-1/best.pt: has another head", "new_head true")
    own = [*FROM_1[:-1], "--name=mine", "--network.start_from=level2_augmentation/mine"]
    refused(2, own, "network.start_from: a run cannot start from itself, level2_augmentation")
    other = [*FROM_1, "--network.image_size=64"]
    refused(2, other, "no config or run 'epochs-1' of level1_baseline")
    other = [*FROM_1, "--network.adapt_batch_norm=0"]
    refused(2, other, "made with other network.adapt_batch_norm than this run's")
    unknown = [*FROM_1[:-1], "--network.start_from=level1_baseline/without_adapted_norm"]
    refused(
        2,
        unknown,
        "no config or run 'without_adapted_norm' of level1",
        "without_adapted_batch_norm",
    )


def test_a_level_may_start_from_a_config_of_another(run, refused):
    own = "level1_baseline/ablations/without_adapted_batch_norm.yaml"
    options = [*FROM_1[:-1], "--network.start_from=level1_baseline/without_adapted_batch_norm"]
    says = f"run first: python level1_baseline/run.py --config {own} --data.name digits"
    refused(2, options, "level1_baseline/without_adapted_batch_norm's best checkpoint", says)
    assert run(1, *TINY, "--config", str(LEVELS[1] / own.split("/", 1)[1]))[0] == 0
    refused(2, options, "made with other network.adapt_batch_norm than this run's")
    assert run(2, *options, "--network.adapt_batch_norm=0")[0] == 0
    assert best(2, [*options, "--network.adapt_batch_norm=0"])["adapted"] == 0


def test_adapted_batch_norm_is_reported_and_frozen_from_then_on(run):
    other = [*TINY, "--network.adapt_batch_norm=0", "--seed=1"]
    assert run(1, *TINY)[0] == run(1, *other)[0] == 0
    adapted, plain = best(1, TINY), best(1, other)
    key = "stages.layer1.0.bn1.running_mean"
    assert not torch.equal(adapted["network"][key], plain["network"][key])
    raw = checkpoint.load(folder_of(LEVELS[1], TINY) / "best.pt")["network"]
    statistics = {
        k: v
        for k, v in raw.items()
        if k.startswith("stages.") and k.endswith(("mean", "var", "tracked"))
    }
    figures = metrics(1, TINY)
    assert adapted["start"] == figures["start"] == checkpoint.digest(statistics)
    assert (figures["adapted"], metrics(1, other)["adapted"]) == (96, 0)
    assert figures["frozen"]["before"] == figures["frozen"]["after"]


def test_a_resumed_run_takes_its_statistics_from_the_checkpoint(run, monkeypatch):
    two = [*TINY[:-2], "--train.epochs=2", "--audit=false"]
    monkeypatch.setenv(KEEP, "1")
    assert run(1, *two)[0] == 0
    last = folder_of(LEVELS[1], two) / "last.pt"
    (last.parent / DONE).unlink()
    whole = best(1, two)["network"]
    content = checkpoint.load(last)
    cut = {"history": content["history"][:1]}
    checkpoint.save(last, content | cut)
    monkeypatch.setattr(experiment, "adapt_batch_norm", None)  # it is not called
    code, out, complaints = run(1, *two, "--resume")
    assert code == 0 and "resumed after epoch 1" in out, complaints
    again = best(1, two)["network"]
    key = "stages.layer1.0.bn1.running_mean"
    assert torch.equal(again[key], whole[key])
