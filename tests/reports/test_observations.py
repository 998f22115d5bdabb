"""Sentences of a report: made where their own interval allows it, and not where it does not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from common.evaluation.statistics import wilson_interval
from common.reports.lesson import lesson
from common.reports.observations import apart, observations
from common.reports.schema import Run
from helpers.reports import made_up, score


def run_of(**changes):
    """A made-up run of 1,000 test pictures, 800 right, with some of its metrics changed."""
    metrics, history, labels, logits, single, classes, _ = made_up(right=800, n=1000)
    arrays = {"labels": labels, "predictions": logits.argmax(1), "single": single}
    run = Run(Path("level1_first"), metrics | changes, history, **arrays, logits=logits)
    return dataclasses.replace(run, classes=classes)


def said_of(run, words):
    """The one sentence that holds the words; None where there is none."""
    found = [text for text in observations(run) if words in text]
    assert len(found) < 2
    return found[0] if found else None


def with_recall(shares, each):
    """A run on `each` pictures a class, of which these shares are right."""
    labels = np.repeat(np.arange(len(shares)), each)
    place = np.tile(np.arange(each), len(shares))
    right = place < np.repeat([round(share * each) for share in shares], each)
    predictions = np.where(right, labels, (labels + 1) % len(shares))
    run = run_of(test=score(int(right.sum()), len(labels)))
    classes = [f"class{i}" for i in range(len(shares))]
    return dataclasses.replace(run, labels=labels, predictions=predictions, classes=classes)


def test_classes_are_named_beyond_their_intervals():
    run = with_recall([0.9, 0.9, 0.6, 0.9, 1.0], each=200)
    assert apart(run) == ([2], [4])
    text = said_of(run, "accuracy over all")
    assert text == (
        "Shown to be below its accuracy over all: class2 (60.0 %); above it: class4 (100.0 %)."
    )


def test_no_class_is_named_on_few_pictures():
    run = with_recall([0.8, 0.6, 0.8], each=5)
    assert apart(run) == ([], [])
    assert said_of(run, "accuracy over all") is None
    assert said_of(run, "No class is shown to fare worse")
    assert said_of(run, "There are few test pictures, 15")


def test_two_classes_are_not_ranked():
    run = with_recall([0.2, 0.95], each=200)
    assert said_of(run, "accuracy over all") is None and said_of(run, "No class") is None


def test_a_class_that_is_never_answered_is_mentioned():
    run = with_recall([0.9, 0.9, 0.9], each=50)
    answers = np.where(run.predictions == 1, 0, run.predictions)
    assert said_of(dataclasses.replace(run, predictions=answers), "never answers class1.")
    assert said_of(run, "never answers") is None


@pytest.mark.parametrize(("after", "shown"), [(0.60, True), (0.51, False)])
def test_more_may_help_where_the_rise_is_beyond_chance(after, shown):
    history = [{"epoch": i, "val_accuracy": a} for i, a in enumerate((0.3, 0.5, after), 1)]
    run = dataclasses.replace(run_of(best_epoch=3, val=score(500, 1000)), history=history)
    assert (said_of(run, "more may help") is not None) == shown
    assert (said_of(run, "may be chance") is not None) == (not shown)
    assert shown == (after > wilson_interval(500, 1000)[1])


def test_a_gap_is_stated_where_the_intervals_are_apart():
    apart_by = run_of(train=score(950, 1000))
    assert "15.0 points above test" in said_of(apart_by, "Train accuracy")
    near = run_of(train=score(82, 100))
    assert "not shown to differ" in said_of(near, "Train accuracy")


@pytest.mark.parametrize(
    ("temperature", "scaled", "words"),
    [(1.4, 0.02, "takes the expected"), (1.4, 0.06, "helps nothing"), (1.01, 0.02, "about as")],
)
def test_a_temperature_is_praised_for_what_it_does_on_test(temperature, scaled, words):
    detail = run_of().metrics["detail"] | {"temperature": temperature, "ece": 0.05}
    assert said_of(run_of(detail=detail | {"ece_scaled": scaled}), words)


def test_a_report_says_which_training_pictures_were_scored():
    run = run_of(train=score(390, 400), data=run_of().metrics["data"] | {"train": 1600})
    limits = " ".join(lesson(run, None)["limits"])
    assert "that of 400 of the 1,600 training pictures" in limits
    assert "training pictures, the same" not in " ".join(lesson(run_of(), None)["limits"])
