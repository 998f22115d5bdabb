"""Labels that may be wrong: scores by hand, and changed labels of digits that are found."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from common.data import Batches
from common.evaluation.labels import (
    fitted_on,
    hits,
    label_scores,
    out_of_fold,
    pooled_features,
    ranking,
)
from common.models import FeatureBatches, Trunk, as_map
from common.utils.errors import UserError
from helpers.networks import CPU, small_network, small_splits


def digits(share=0.05):
    """Pixels float32 (1797, 64), labels of which a share was changed, and which these are."""
    found = load_digits()
    labels, rng = found.target.astype(np.int64), np.random.default_rng(0)
    changed = rng.choice(len(labels), int(share * len(labels)), replace=False)
    given = labels.copy()
    given[changed] = (labels[changed] + rng.integers(1, 10, len(changed))) % 10
    return found.data.astype(np.float32), given, set(changed.tolist())


def test_most_changed_labels_of_digits_come_first():
    features, given, changed = digits()
    probabilities = out_of_fold(features, given, 10)
    assert probabilities.shape == (1797, 10) and probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    order = ranking(label_scores(probabilities, given)).tolist()
    assert sorted(order) == list(range(1797))
    found, seen = hits(order, changed)
    assert seen == 50 and found >= 47
    assert hits(order, changed, len(changed))[0] >= 0.85 * len(changed)
    assert hits(order[::-1], changed, 500)[0] == 0
    np.testing.assert_array_equal(out_of_fold(features, given, 10), probabilities)


def test_what_was_fitted_on_other_pictures_finds_them_too():
    features, given, changed = digits()
    rows = np.array(sorted(changed | set(range(600))))  # the others' labels are right
    rest = np.setdiff1d(np.arange(1797), rows)
    probabilities = fitted_on(features[rest], given[rest], features[rows], 10)
    order = rows[ranking(label_scores(probabilities, given[rows]))].tolist()
    assert hits(order, changed)[0] >= 47


def test_no_picture_is_judged_by_a_classifier_that_saw_it():
    """Of noise, a classifier can be right only about what it has been shown."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 400)).astype(np.float32)
    labels = rng.permutation(np.arange(200) % 4)
    shown = fitted_on(features, labels, features, 4).argmax(1) == labels
    unseen = out_of_fold(features, labels, 4).argmax(1) == labels
    assert shown.mean() > 0.95 and unseen.mean() < 0.4


def test_scores_and_their_order_by_hand():
    probabilities = np.array([[0.7, 0.3], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]])
    scores = label_scores(probabilities, np.array([0, 1, 0, 1]))
    assert scores.tolist() == [0.7, 0.8, 0.3, 0.1]
    assert ranking(scores).tolist() == [3, 2, 0, 1]
    assert ranking(np.array([0.5, 0.1, 0.5, 0.1])).tolist() == [1, 3, 0, 2], "the earlier first"
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(3,\)"):
        label_scores(probabilities, np.zeros(3, int))


@pytest.mark.parametrize(("first", "expected"), [(1, (0, 1)), (3, (2, 3)), (50, (2, 5))])
def test_hits_by_hand(first, expected):
    assert hits([4, 9, 2, 7, 1], {2, 9, 30}, first) == expected


def test_a_rare_class_is_folded_and_a_single_picture_is_not():
    features, labels, _ = digits(0)
    few = np.concatenate([np.flatnonzero(labels == 0)[:40], np.flatnonzero(labels == 1)[:2]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probabilities = out_of_fold(features[few], labels[few], 3)
    assert (probabilities[:, :2] > 0).all() and (probabilities[:, 2] == 0).all()
    with pytest.raises(ValueError, match="class 1 has a single picture"):
        out_of_fold(features[few[:-1]], labels[few[:-1]], 3)


@pytest.mark.parametrize("maps", [False, True])
def test_features_are_the_taps_averaged(maps):
    data, network = small_splits(), small_network(taps=("b", "c"))
    network.pool = as_map if maps else network.pool
    batches = Batches(data.test, network.weights, 4, CPU)
    features = pooled_features(FeatureBatches(batches, Trunk(network, CPU), epochs=1))
    with torch.no_grad():
        b = network.stages["b"](network.stages["a"](batches.batch(torch.arange(15))[0]))
        expected = torch.cat([b.mean((2, 3)), network.stages["c"](b).mean((2, 3))], dim=1)
    assert features.dtype == np.float32 and features.shape == (15, 14)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_features_that_are_no_numbers_are_refused():
    network = small_network()
    torch.nn.init.constant_(network.stages["b"][1].bias, torch.inf)
    batches = Batches(small_splits().test, network.weights, 4, CPU)
    with pytest.raises(UserError, match="NaN or infinity in float32"):
        pooled_features(FeatureBatches(batches, Trunk(network, CPU), epochs=1))
