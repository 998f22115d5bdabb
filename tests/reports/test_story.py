"""The story: four sentences, each only as far as the reports show it."""

import numpy as np
import pytest

from common.reports.store import Reports as Found
from common.reports.story import story
from helpers.reports import leave, made_up, run_of, score

BELOW, ABOVE = "level1_first", "level2_second"


def other_weights(metrics):
    return metrics | {"weights": {"name": "others", "sha256": "b" * 64}}


def on(**machine):
    return lambda metrics: metrics | {"machine": metrics["machine"] | machine}


def told(folder):
    return " ".join(story(Found.read(folder)))


def test_of_one_level_alone_no_gain_is_told(tmp_path):
    leave(tmp_path, level=BELOW)
    text = told(tmp_path)
    assert text.startswith("Still wrong at level 1: 20 of 100 test pictures") and "gain" not in text


def test_where_all_that_was_measured_gains_it_is_told(tmp_path):
    leave(tmp_path, level=BELOW, right=50)
    leave(tmp_path, level=ABOVE, right=80)
    assert "Every step and ingredient that was measured gains." in told(tmp_path)


def test_a_level_is_named_by_its_number(tmp_path):
    leave(tmp_path, level=BELOW, right=50)
    leave(tmp_path, level=ABOVE, right=80)
    leave(tmp_path, level="level3_third", right=81)
    leave(tmp_path, level=ABOVE, right=79, config="without_second")
    text = told(tmp_path)
    assert text.startswith("Level 2 gives most: +30.0 (")
    assert "No gain is shown for level 3 (+1.0) and second at level 2 (+1.0)." in text


@pytest.mark.parametrize(
    ("change", "words"),
    [(None, "; of single ingredients, taps at level 2: +30.0 ("), (other_weights, "points over")],
)
def test_an_ingredient_counts_where_the_ladder_states_it(tmp_path, change, words):
    leave(tmp_path, level=BELOW, right=40)
    leave(tmp_path, level=ABOVE, right=80)
    leave(tmp_path, change=change, level=ABOVE, right=50, config="without_taps")
    text = told(tmp_path)
    assert words in text and ("taps" in text) == (change is None)


def wrong_by_class(tmp_path, sizes, wrong):
    """The sentence on what is wrong, of classes of these sizes with so many wrong each."""
    metrics, history, _, _, _, classes, _ = made_up(level=BELOW)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    answers = np.concatenate(
        [
            np.where(np.arange(n) < w, 9, k)
            for k, (n, w) in enumerate(zip(sizes, wrong, strict=True))
        ]
    )
    metrics["test"] = score(sum(sizes) - sum(wrong), sum(sizes))
    logits = np.eye(10, dtype=np.float32)[answers]
    run = run_of(tmp_path, metrics, history, labels, logits, answers, classes)
    return next(text for text in story(Found(tmp_path, [run], [])) if "wrong" in text)


def test_the_classes_with_most_of_the_wrong_pictures_are_named(tmp_path):
    """The lowest recall is another's: half of class 0's few pictures."""
    text = wrong_by_class(tmp_path, (10, 500, 200, 200, 200, 200), (5, 100, 30, 20, 4, 4))
    assert "163 of 1,310 test pictures, most among class 1 (80.0 % right" in text
    assert [text.index(f"class {k} (") for k in (1, 2, 3)] == sorted(
        text.index(f"class {k} (") for k in (1, 2, 3)
    )
    assert "class 0 (" not in text


@pytest.mark.parametrize(("wrong", "named"), [((6, 6, 6, 6), 0), ((9, 6, 6, 6), 1), ((0,) * 4, 0)])
def test_of_classes_that_have_as_many_none_is_named_before_the_others(tmp_path, wrong, named):
    text = wrong_by_class(tmp_path, (50,) * 4, wrong)
    assert text.count("% right") == named and ("most among" in text) == bool(named)


@pytest.mark.parametrize(
    ("second", "ends"),
    [
        ({}, "at level 2 on Some CPU."),
        ({"gpu": "Some GPU"}, "at level 2."),
        ({"cores": 64}, "at level 2."),
    ],
)
def test_the_machine_is_named_where_all_levels_share_it(tmp_path, second, ends):
    leave(tmp_path, level=BELOW)
    leave(tmp_path, change=on(**second), level=ABOVE)
    assert told(tmp_path).endswith(ends)
