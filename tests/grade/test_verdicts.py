"""The grader's verdicts on made-up submissions: duplicates, other machines, gains and losses."""

import os
import shutil
import types
from pathlib import Path

import torch

from common.config import LevelConfig, TrainConfig
from common.data import ImageSet
from common.data.duplicates import exact_copies, near_copies
from common.evaluation import Predictions
from common.grade.checks import check_gain, check_predictions, same_machine, start_as_then
from common.grade.submission import Grade
from common.runtime import provenance
from helpers.networks import CPU
from helpers.projects import NAMES


def made_up(level, **recomputed):
    return Grade(project=Path(), level=level, **recomputed)


def image_set(pixels):
    count = len(pixels)
    labels = torch.zeros(count, dtype=torch.int64)
    return ImageSet(pixels, torch.arange(count), labels, ("a",))


def test_duplicates_are_counted():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randint(256, (60, 3, 4, 4), generator=generator).float()
    pictures = torch.nn.functional.interpolate(smooth, (32, 32), mode="bicubic").clamp(10, 240)
    train = pictures[:40].round().to(torch.uint8)
    test = pictures[40:].round().to(torch.uint8)
    assert exact_copies(image_set(test), [image_set(train)]) == []
    assert near_copies(image_set(test), [image_set(train)]) == 0
    test[3], test[7] = train[11], train[12]
    test[9] = train[13] // 2 + 20  # darker and flatter
    found = exact_copies(image_set(test), [image_set(train[:10]), image_set(train[10:])])
    assert [copy.position for copy in found] == [3, 7]
    assert near_copies(image_set(test), [image_set(train)]) == 3


def test_another_machine_may_differ_a_little():
    logits = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    test = Predictions(logits, torch.zeros(1000, dtype=torch.int64))
    for changed, same, passed in (
        (0, True, True),
        (1, True, False),
        (2, False, True),
        (3, False, False),
    ):
        saved = {"labels": test.labels.numpy(), "logits": logits.clone().numpy()}
        saved["logits"][:changed] = -saved["logits"][:changed]
        saved["predictions"] = saved["logits"].argmax(1)
        grade = made_up(NAMES[0], arrays=saved, predictions=test, single=test, same=same)
        result = check_predictions(grade)
        assert result.passed == passed and f"{changed} of 1000 differ" in result.seen


def test_other_arithmetic_is_another_machine():
    metrics = provenance(CPU)
    assert same_machine(metrics, CPU)
    for group, key in (("versions", "arithmetic"), ("versions", "torch"), ("machine", "precision")):
        other = {**metrics, group: {k: v for k, v in metrics[group].items() if k != key}}
        assert not same_machine(other, CPU), "a report from before it was written down"


def test_a_loss_fails_and_not_shown_is_no_gain():
    labels = torch.zeros(200, dtype=torch.int64)
    gains, below = [], None
    for level, count in zip(NAMES, [100, 50, 48, 90], strict=True):
        logits = torch.zeros(200, 2)
        logits[:, 0], logits[:count, 1] = 1, 2
        data = types.SimpleNamespace(fingerprint="f", split="s")
        own = Predictions(logits, labels)
        below = made_up(level, metrics={"below": None}, data=data, predictions=own, below=below)
        gains.append(check_gain(below))
    assert [gain.passed for gain in gains] == [True, True, True, False]
    words = [gain.seen.split(":")[0] for gain in gains[1:]]
    assert words == ["gain", "not shown", "loss"]


def test_threads_are_the_runs_own_where_the_machine_has_them(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    before, found = torch.get_num_threads(), []
    for claimed, asked in ((1, None), (3, None), (64, 64), ("all", 2)):  # level after level
        config = LevelConfig(train=TrainConfig(device="cpu", threads=asked))
        start_as_then(config, {"machine": {"threads": claimed}})
        found.append((config.train.threads, torch.get_num_threads()))
    torch.set_num_threads(before)
    assert found == [(1, 1), (3, 3), (None, 3), (None, 3)]


def test_a_device_and_a_compiler_that_are_not_here_are_done_without(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    config = LevelConfig(train=TrainConfig(device="cuda:77", precision="float16", compile=True))
    if not torch.cuda.is_available():
        assert start_as_then(config, {"machine": {}}).device.type in ("cpu", "mps")
    config = LevelConfig(train=TrainConfig(device="cpu", compile=True))
    assert not start_as_then(config, {"machine": {}}).compile
