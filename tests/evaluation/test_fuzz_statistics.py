"""What must hold of every figure, whatever the predictions: against scipy, or by definition."""

import math
import statistics as plain

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from scipy.stats import binom, binomtest, norm

from common.evaluation.statistics import (
    SIGNIFICANCE,
    calibration_error,
    compare,
    describe,
    fit_temperature,
    mcnemar_exact,
    paired_interval,
    reliability,
    summarise,
    wilson_interval,
)

LEVEL = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])
FEW_OR_MANY = st.integers(0, 12) | st.integers(0, 20_000)
TABLE = st.tuples(*4 * [FEW_OR_MANY]).filter(any)  # both right, fixed, broken, both wrong
CLOSE = {"rel": 1e-9, "abs": 1e-12}


@st.composite
def shares(draw):
    total = draw(st.integers(1, 12) | st.integers(1, 60_000))
    return draw(st.integers(0, total)), total


@st.composite
def outputs(draw, classes=(2, 12)):
    """Logits (N, C) as networks give them, now mild, now extreme, and labels (N,)."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, c = draw(st.integers(1, 60)), draw(st.integers(*classes))
    scale = draw(st.sampled_from([0.0, 1e-3, 0.3, 1, 5, 30, 1000]))
    labels = random.integers(0, c, n)
    logits = random.normal(0, scale, (n, c))
    logits[np.arange(n), labels] += scale * draw(st.sampled_from([-3, 0, 1, 4]))
    return logits.astype(draw(st.sampled_from([np.float16, np.float32, np.float64]))), labels


# ---- intervals ----


@given(shares(), LEVEL)
def test_wilson_interval(share, level):
    correct, total = share
    low, high = wilson_interval(correct, total, level)
    assert 0 <= low <= correct / total <= high <= 1
    z, p = norm.ppf(0.5 + level / 2), correct / total
    for end in (low, high):  # by definition: p is z standard errors of the end away from it
        assert (p - end) ** 2 == pytest.approx(z * z * end * (1 - end) / total, **CLOSE)
    mirrored = wilson_interval(total - correct, total, level)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), **CLOSE)
    wider, narrower = wilson_interval(correct, total, 0.999), wilson_interval(correct, total, 0.3)
    assert wider[0] <= low <= narrower[0] and narrower[1] <= high <= wider[1]
    if correct < total:
        more = wilson_interval(correct + 1, total, level)
        assert low <= more[0] and high <= more[1] and low + high < sum(more)
    many = wilson_interval(4 * correct, 4 * total, level)
    assert many[1] - many[0] < high - low, "more pictures, a narrower interval"


@given(FEW_OR_MANY, FEW_OR_MANY)
@example(0, 0)
def test_mcnemar_is_the_binomial_test(fixed, broken):
    p = mcnemar_exact(fixed, broken)
    assert 0 <= p <= 1 and p == pytest.approx(mcnemar_exact(broken, fixed), abs=1e-300)
    if fixed + broken:
        assert p == pytest.approx(binomtest(fixed, fixed + broken, 0.5).pvalue)
    tail = binom.cdf(min(fixed, broken), fixed + broken, 0.5)
    assert p == pytest.approx(min(1, 2 * tail), rel=1e-6, abs=1e-300)
    if fixed >= broken:
        assert mcnemar_exact(fixed + 1, broken) <= p * (1 + 1e-9) + 1e-300  # or it underflows


@given(TABLE, LEVEL)
@example((1, 0, 0, 0), 0.95)
@example((0, 1, 0, 0), 0.95)
@example((20_000, 0, 0, 20_000), 0.99)
def test_paired_interval(table, level):
    both_right, fixed, broken, both_wrong = table
    low, high = paired_interval(*table, level)
    gain = (fixed - broken) / sum(table)
    slack = 1e-12
    assert -1 <= low <= gain <= high <= 1
    swapped = paired_interval(both_right, broken, fixed, both_wrong, level)
    assert (-swapped[1], -swapped[0]) == pytest.approx((low, high), **CLOSE), "antisymmetric"
    turned = paired_interval(both_wrong, fixed, broken, both_right, level)
    assert turned == pytest.approx((low, high), **CLOSE), "right and wrong are alike"
    wider = paired_interval(*table, 0.999)
    assert wider[0] <= low + slack and high <= wider[1] + slack


@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 2**32))
def test_a_comparison_of_two_networks(n, classes, seed):
    random = np.random.default_rng(seed)
    labels, below, above = random.integers(0, classes, (3, n))
    got = compare(labels, below, above)
    assert got["fixed"] == sum(
        b != y == a for y, b, a in zip(labels, below, above, strict=True)
    ) and got["broken"] == sum(b == y != a for y, b, a in zip(labels, below, above, strict=True))
    accuracies = np.mean(below == labels), np.mean(above == labels)
    assert got["gain"] == pytest.approx(accuracies[1] - accuracies[0])
    shown = got["p_value"] < SIGNIFICANCE
    assert got["verdict"] == ("not shown" if not shown else "gain" if got["gain"] > 0 else "loss")
    order, names = random.permutation(n), random.permutation(classes)
    assert compare(labels[order], below[order], above[order]) == got
    assert compare(names[labels], names[below], names[above]) == got
    back = compare(labels, above, below)
    assert (back["gain"], back["p_value"]) == (-got["gain"], got["p_value"])
    assert (back["fixed"], back["broken"]) == (got["broken"], got["fixed"])
    assert [-back["interval"][1], -back["interval"][0]] == pytest.approx(got["interval"], **CLOSE)


# ---- confidence ----


def nll(logits, labels, temperature=1.0):
    scaled = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -np.mean([row[y] for row, y in zip(scaled, labels, strict=True)])


@given(outputs())
def test_a_fitted_temperature_never_makes_it_worse(output):
    logits, labels = output
    t = fit_temperature(logits, labels)
    assert 0.05 <= t <= 20
    best = nll(logits, labels, t)
    assert best <= nll(logits, labels) * (1 + 1e-9) + 1e-9
    grid = [nll(logits, labels, math.exp(x)) for x in np.linspace(math.log(0.051), 2.99, 40)]
    assert best <= min(grid) * (1 + 1e-6) + 1e-6, "and no other is likelier"
    order = np.random.default_rng(0).permutation(len(labels))
    assert nll(logits, labels, fit_temperature(logits[order], labels[order])) == pytest.approx(
        best, rel=1e-6, abs=1e-9
    )


@given(outputs(), st.integers(1, 30))
def test_calibration_error_by_its_definition(output, bins):
    logits, labels = output
    probabilities = softmax(logits.astype(np.float64), axis=1)
    error = calibration_error(probabilities, labels, bins)
    assert 0 <= error <= 1
    edges, groups = np.linspace(0, 1, bins + 1), [[] for _ in range(bins)]
    for row, label in zip(probabilities, labels, strict=True):
        place = next(i for i in range(bins) if row.max() <= edges[i + 1] or i == bins - 1)
        groups[place].append((row.max(), row.argmax() == label))
    gaps = [abs(sum(c - r for c, r in group)) / len(labels) for group in groups]
    assert error == pytest.approx(sum(gaps), **CLOSE)
    counts = reliability(probabilities, labels, bins)[2]
    assert counts.tolist() == list(map(len, groups))
    order = np.random.default_rng(0).permutation(len(labels))
    assert calibration_error(probabilities[order], labels[order], bins) == pytest.approx(
        error, **CLOSE
    )
    one = abs(probabilities.max(1).mean() - (probabilities.argmax(1) == labels).mean())
    assert calibration_error(probabilities, labels, 1) == pytest.approx(one, **CLOSE)


@pytest.mark.filterwarnings("ignore")  # of scikit-learn, about classes that nobody names
@given(outputs(classes=(2, 16)), st.none() | st.floats(0.05, 20))
def test_a_description_stays_in_its_ranges_and_knows_no_order(output, temperature):
    logits, labels = output
    got = describe(logits, labels, temperature)
    assert 0 <= got["macro_f1"] <= 1 and 0 <= got["ece"] <= 1
    assert got["nll"] == pytest.approx(nll(logits, labels), **CLOSE) and got["nll"] >= -1e-12
    for label, recall in enumerate(got["recall"]):
        own = logits.argmax(1)[labels == label]
        assert recall == (pytest.approx(np.mean(own == label)) if len(own) else None)
    assert (got["top5"] is None) == (logits.shape[1] <= 10)
    assert got["top5"] is None or np.mean(logits.argmax(1) == labels) <= got["top5"] <= 1
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert got["top5"] in (None, np.mean((best == labels[:, None]).any(1)))
    if temperature:
        assert got["nll_scaled"] == pytest.approx(nll(logits, labels, temperature), **CLOSE)
        assert 0 <= got["ece_scaled"] <= 1
    order = np.random.default_rng(0).permutation(len(labels))
    again = describe(logits[order], labels[order], temperature)
    assert again.keys() == got.keys()
    for key in ("recall", "top5"):  # exact, and may be None
        assert again.pop(key) == got.pop(key)
    assert again == pytest.approx(got, **CLOSE)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_a_summary_of_seeds(values):
    got = summarise(values)
    assert got["values"] == values and got["n"] == len(values)
    assert got["mean"] == pytest.approx(plain.fmean(values))
    assert got["sd"] == (pytest.approx(plain.stdev(values), abs=1e-12) if len(values) > 1 else None)
