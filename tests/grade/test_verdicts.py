"""The grader's verdicts on made-up submission: duplicates, other machines, gains and losses."""

import types

import torch

from common.data import ImageSet
from common.data.duplicates import exact_copies, near_copies
from common.evaluation import Predictions
from common.grade import submission
from common.grade.checks import check_predictions, same_machine
from common.grade.examine import Grade
from common.grade.gains import compare_with_below
from common.runtime import provenance
from helpers.networks import CPU
from helpers.projects import NAMES


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
    assert exact_copies(image_set(test), [image_set(train)]) == 0
    assert near_copies(image_set(test), [image_set(train)]) == 0
    test[3], test[7] = train[11], train[12]
    test[9] = train[13] // 2 + 20  # darker and flatter
    assert exact_copies(image_set(test), [image_set(train[:10]), image_set(train[10:])]) == 2
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
        finding = check_predictions(saved, test, test, same)
        assert finding.passed == passed and f"{changed} of 1000 differ" in finding.seen


def test_other_arithmetic_is_another_machine():
    metrics = provenance(CPU)
    assert same_machine(metrics, CPU)
    for group, key in (("versions", "arithmetic"), ("versions", "torch"), ("machine", "precision")):
        other = {**metrics, group: {k: v for k, v in metrics[group].items() if k != key}}
        assert not same_machine(other, CPU), "a report from before it was written down"


def test_a_loss_fails_and_not_shown_is_no_gain(tmp_path):
    labels = torch.zeros(200, dtype=torch.int64)
    found = []
    for level, count in zip(NAMES, [100, 50, 48, 90], strict=True):
        logits = torch.zeros(200, 2)
        logits[:, 0], logits[:count, 1] = 1, 2
        data = types.SimpleNamespace(fingerprint="f", split="s")
        own = submission.Submission(tmp_path, level, tmp_path, metrics={"below": None})
        found.append(Grade(own, data=data, predictions=Predictions(logits, labels)))
    compare_with_below(found)
    gains = [{f.check: f for f in grade.findings}["gain"] for grade in found]
    assert [gain.passed for gain in gains] == [True, True, True, False]
    words = [gain.seen.split(":")[0] for gain in gains[1:]]
    assert words == ["gain", "not shown", "loss"]
