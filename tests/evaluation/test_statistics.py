"""Statistics of predictions: verdicts, calibration, descriptions, by independent recomputation."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import classification_report

from common.evaluation.statistics import (
    calibration_error,
    compare,
    describe,
    fit_temperature,
    mcnemar_exact,
    paired_interval,
    reliability,
    summarise,
)


def predictions(both_right, fixed, broken, both_wrong):
    """Labels and the predictions of two networks that make this table, shuffled."""
    old = np.repeat([1, 0, 1, 0], [both_right, fixed, broken, both_wrong])
    new = np.repeat([1, 1, 0, 0], [both_right, fixed, broken, both_wrong])
    order = np.random.default_rng(0).permutation(len(old))
    labels = np.arange(len(old)) % 5
    return labels, np.where(old[order], labels, 7), np.where(new[order], labels, 8)


@pytest.mark.parametrize(
    ("table", "verdict"),
    [
        ((80, 12, 2, 6), "gain"),
        ((80, 2, 12, 6), "loss"),
        ((80, 9, 3, 8), "not shown"),
        ((80, 5, 5, 10), "not shown"),
        ((80, 0, 0, 20), "not shown"),
        ((94, 6, 0, 0), "gain"),  # p = 0.031; five alone would have 0.063
        ((95, 5, 0, 0), "not shown"),
    ],
)
def test_compare(table, verdict):
    got = compare(*predictions(*table))
    _, fixed, broken, _ = table
    assert got == {
        "gain": (fixed - broken) / 100,
        "interval": list(paired_interval(*table)),
        "p_value": mcnemar_exact(fixed, broken),
        "fixed": fixed,
        "broken": broken,
        "verdict": verdict,
    }


def test_compare_refuses_predictions_of_other_pictures():
    with pytest.raises(ValueError, match=r"\(3,\), \(3,\) and \(2,\)"):
        compare(np.zeros(3), np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="no pictures"):
        compare(np.zeros(0), np.zeros(0), np.zeros(0))


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.65, 0.35], [0.3, 0.7]])
    labels = np.array([0, 1, 0, 1])  # right, wrong, right, right
    confidence, accuracy, counts = reliability(probabilities, labels, bins=4)
    np.testing.assert_allclose(confidence, [np.nan, np.nan, (0.65 + 0.7) / 2, (0.9 + 0.8) / 2])
    np.testing.assert_allclose(accuracy, [np.nan, np.nan, 1, 0.5])
    assert counts.tolist() == [0, 0, 2, 2]
    error = calibration_error(probabilities, labels, bins=4)
    assert error == pytest.approx((2 * (1 - 0.675) + 2 * (0.85 - 0.5)) / 4)


def test_a_confidence_on_the_edge_belongs_to_the_lower_bin():
    probabilities = np.array([[0.5, 0.5], [1, 0], [0.75, 0.25]])
    assert reliability(probabilities, np.zeros(3, int), bins=4)[2].tolist() == [0, 1, 1, 1]


@pytest.fixture(scope="module")
def calibrated():
    """Logits (20000, 10) and labels that are drawn from their softmax."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, (20_000, 10))
    chances = softmax(logits, axis=1).cumsum(1)
    return logits, (random.random((20_000, 1)) > chances[:, :-1]).sum(1)


def test_calibrated_probabilities_have_next_to_no_error(calibrated):
    logits, labels = calibrated
    assert calibration_error(softmax(logits, axis=1), labels) < 0.015
    assert calibration_error(softmax(3 * logits, axis=1), labels) > 0.15


@pytest.mark.parametrize("scale", [0.2, 1, 4])
def test_temperature_is_found_again(calibrated, scale):
    logits, labels = calibrated
    temperature = fit_temperature(scale * logits, labels)
    assert temperature == pytest.approx(scale, rel=0.03)
    assert temperature == fit_temperature(scale * logits, labels)
    best, *others = (
        describe(scale * logits, labels, temperature * factor)["nll_scaled"]
        for factor in (1, 0.99, 1.01)
    )
    assert best < min(others)
    assert describe(scale * logits, labels, temperature)["ece_scaled"] < 0.015


def test_temperature_of_a_network_that_is_always_right_is_finite():
    assert 0.05 <= fit_temperature(np.eye(3), np.arange(3)) < 0.06


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_describe_agrees_with_torch_and_scikit_learn(classes, dtype):
    random = np.random.default_rng(0)
    labels = random.integers(0, classes - 1, 3000)  # none of the last class
    logits = random.normal(0, 2, (3000, classes))
    logits[np.arange(3000), labels] += 3
    logits = logits.astype(dtype)
    got = describe(logits, labels, temperature=1.5)

    tensor, targets = torch.tensor(logits).double(), torch.tensor(labels)
    loss = torch.nn.functional.cross_entropy
    assert got["nll"] == pytest.approx(loss(tensor, targets).item(), rel=1e-9)
    assert got["nll_scaled"] == pytest.approx(loss(tensor / 1.5, targets).item(), rel=1e-9)
    assert got["ece"] == calibration_error(softmax(logits.astype(float), axis=1), labels)
    assert got["ece_scaled"] == pytest.approx(
        calibration_error((tensor / 1.5).softmax(1).numpy(), labels), abs=1e-9
    )
    assert got["temperature"] == 1.5

    report = classification_report(labels, logits.argmax(1), output_dict=True, zero_division=0)
    assert got["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    recalls = [report[str(name)]["recall"] for name in range(classes - 1)]
    assert got["recall"] == [*map(pytest.approx, recalls), None]
    if classes == 10:
        assert got["top5"] is None
    else:
        top = tensor.topk(5, 1).indices
        top5 = (top == targets[:, None]).any(1).double().mean().item()
        ties = 1e-3 if dtype == np.float16 else 0  # at rank five, broken one way or the other
        assert got["top5"] == pytest.approx(top5, abs=ties)
    assert set(describe(logits, labels)) == {"macro_f1", "recall", "top5", "nll", "ece"}


def test_summarise():
    got = summarise([np.float64(0.9), 0.92, 0.91])
    assert got == {
        "n": 3,
        "mean": pytest.approx(0.91),
        "sd": pytest.approx(0.01),
        "values": [0.9, 0.92, 0.91],
    }
    assert summarise([0.9]) == {"n": 1, "mean": 0.9, "sd": None, "values": [0.9]}
