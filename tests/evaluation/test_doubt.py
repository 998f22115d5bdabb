"""Thresholds measured on val: distances and alarms, by independent recomputation."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis as scipy_distance
from sklearn.covariance import LedoitWolf

from common.evaluation.doubt import (
    Gaussians,
    alarm_rate,
    alarm_threshold,
    fit_gaussians,
    mahalanobis,
    sure_threshold,
)


def drawn(count, seed, shift=0.0):
    """Features of three classes, which share a covariance, and labels 0, 4 and 7."""
    random = np.random.default_rng(seed)
    labels = random.choice([0, 4, 7], count)
    mixed = random.normal(size=(count, 3)) @ np.array([[2, 0, 0], [1, 1, 0], [0, 0.5, 0.2]])
    return mixed + labels[:, None] * [1, 0, -1] + shift, labels


def test_the_gaussians_are_those_that_the_features_were_drawn_from():
    features, labels = drawn(60_000, seed=0)
    found = fit_gaussians(features, labels)
    assert np.allclose(found.means, [[0, 0, 0], [4, 0, -4], [7, 0, -7]], atol=0.05)
    factor = np.array([[2, 0, 0], [1, 1, 0], [0, 0.5, 0.2]])
    assert np.allclose(np.linalg.inv(found.precision), factor.T @ factor, rtol=0.05, atol=0.05)


def test_the_covariance_is_shrunk_where_pictures_are_few():
    random = np.random.default_rng(1)
    features, labels = random.normal(size=(24, 50)), np.arange(24) % 4
    found = fit_gaussians(features, labels)
    within = features - found.means[labels]
    expected = LedoitWolf(assume_centered=True).fit(within).covariance_ * 24 / 20
    assert np.allclose(np.linalg.inv(found.precision), expected, rtol=1e-6)
    assert np.linalg.matrix_rank(found.precision) == 50


@pytest.mark.parametrize(
    ("features", "labels", "says"),
    [
        (np.eye(3), [0, 1, 2], "3 pictures are too few for 3 classes"),
        (np.zeros((0, 3)), [], "too few"),
        (np.ones((8, 3)), [0, 1] * 4, "do not vary"),
        (np.full((8, 3), np.nan), [0, 1] * 4, "no numbers"),
    ],
)
def test_features_that_give_no_gaussians_are_refused(features, labels, says):
    with pytest.raises(ValueError, match=says):
        fit_gaussians(features, np.array(labels, int))


def test_the_distance_is_that_of_the_nearest_class():
    features, labels = drawn(500, seed=2)
    found = fit_gaussians(features, labels)
    asked = np.random.default_rng(3).normal(size=(40, 3)) * 5
    expected = [min(scipy_distance(x, m, found.precision) for m in found.means) for x in asked]
    assert np.allclose(mahalanobis(asked.astype(np.float32), found), expected, rtol=1e-5)
    plain = Gaussians(np.array([[0.0, 0.0], [3.0, 4.0]]), np.eye(2))
    assert mahalanobis(np.array([[0, 1], [3, 4.5], [30, 44]]), plain).tolist() == pytest.approx(
        [1.0, 0.5, np.hypot(27, 40)]
    )


@pytest.mark.parametrize("count", [19, 39, 100])
def test_of_further_pictures_no_more_than_the_rate_is_above_the_threshold(count):
    random = np.random.default_rng(count)
    above = []
    for _ in range(4_000):
        scores = random.exponential(size=count + 1)
        above.append(scores[-1] > alarm_threshold(scores[:-1], 0.05))
    expected = int(0.05 * (count + 1) + 1e-9) / (count + 1)
    assert expected <= 0.05
    assert np.mean(above) == pytest.approx(expected, abs=4 * (0.05 * 0.95 / 4_000) ** 0.5)


def test_too_few_pictures_give_no_threshold():
    assert alarm_threshold(np.arange(18.0)) is None and alarm_threshold(np.zeros(0)) is None
    assert alarm_threshold(np.arange(19.0)) == 18.0
    assert alarm_rate(np.arange(37.0)) is None and alarm_rate(np.arange(38.0)) is not None


def test_the_alarm_rate_is_counted_on_pictures_that_set_no_threshold():
    scores = np.random.default_rng(5).normal(size=4_000)
    assert alarm_rate(scores) == pytest.approx(0.05, abs=0.015)
    scores = np.random.default_rng(6).normal(size=80)
    halves = np.array_split(scores[np.random.default_rng(0).permutation(80)], 2)
    alarms = sum(
        score > sorted(other)[-2] for own, other in (halves, halves[::-1]) for score in own
    )
    assert alarm_rate(scores) == alarms / 80 > 0


def test_a_threshold_of_sure_answers_keeps_as_many_as_it_can():
    random = np.random.default_rng(7)
    for _ in range(60):
        confidence = random.integers(1, 12, 40) / 12  # many are equal
        right = random.random(40) < confidence
        asked = random.choice([0.6, 0.8, 0.95])
        found = sure_threshold(confidence, right, asked)
        fine = [t for t in np.unique(confidence) if right[confidence >= t].mean() >= asked]
        if not fine:
            assert found == (None, 0.0, None)
            continue
        chosen = confidence >= min(fine)
        assert found.threshold == min(fine)
        assert found.share == chosen.mean() and found.accuracy == right[chosen].mean() >= asked


def test_all_right_is_sure_from_the_least_on_and_all_wrong_never():
    confidence = np.array([0.9, 0.4, 0.7])
    assert sure_threshold(confidence, np.ones(3, bool)) == (0.4, 1.0, 1.0)
    assert sure_threshold(confidence, np.zeros(3, bool)) == (None, 0.0, None)
    assert sure_threshold(np.zeros(0), np.zeros(0, bool)) == (None, 0.0, None)
