"""Intervals and the exact test: published examples, recomputation, coverage by simulation."""

import functools
import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from common.evaluation import statistics
from common.evaluation.statistics import mcnemar_exact, paired_interval, wilson_interval

SMALL_TABLES = [t for t in itertools.product(range(7), repeat=4) if 1 <= sum(t) <= 6]
LARGE_TABLES = np.random.default_rng(1).multinomial(10_000, [0.85, 0.05, 0.03, 0.07], 50).tolist()


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval(correct, total, low, high):
    """Newcombe 1998, Statistics in Medicine 17:857, table I."""
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_exact_test_is_the_binomial_tail():
    random = np.random.default_rng(0)
    for fixed, broken in random.integers(0, random.integers(1, 400, (200, 1)), (200, 2)).tolist():
        tail = 2 * binom.cdf(min(fixed, broken), fixed + broken, 0.5)
        assert mcnemar_exact(fixed, broken) == pytest.approx(min(tail, 1), rel=1e-9)
        assert mcnemar_exact(fixed, broken) == mcnemar_exact(broken, fixed)
    assert mcnemar_exact(0, 0) == 1
    assert mcnemar_exact(6, 0) == 2 / 64


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Altman et al. 2000, Statistics with Confidence, table 6.2
        ((14, 5, 0, 22), 0.011, 0.226),
        # Cavo et al. 2012 in Fagerland et al. 2017, Statistical Analysis of Contingency Tables
        ((59, 6, 16, 80), -0.1186, -0.0046),
    ],
)
def test_paired_interval_of_published_examples(table, low, high):
    digits = 3 if table[1] == 5 else 4
    assert [round(end, digits) for end in paired_interval(*table)] == [low, high]


def test_paired_interval_mirrors_contains_and_stays_inside():
    for both_right, fixed, broken, both_wrong in SMALL_TABLES + LARGE_TABLES:
        low, high = paired_interval(both_right, fixed, broken, both_wrong)
        gain = (fixed - broken) / (both_right + fixed + broken + both_wrong)
        assert -1 - 1e-12 <= low <= gain <= high <= 1 + 1e-12
        mirrored = pytest.approx((-high, -low), abs=1e-12)
        assert paired_interval(both_right, broken, fixed, both_wrong) == mirrored
        assert paired_interval(both_wrong, broken, fixed, both_right) == mirrored, "right as wrong"
        wide = paired_interval(both_right, fixed, broken, both_wrong, level=0.99)
        assert wide[0] <= low and high <= wide[1]


@pytest.mark.parametrize("table", [(100, 0, 0, 0), (0, 0, 0, 100), (60, 0, 0, 40), (1, 0, 0, 0)])
def test_networks_that_never_differ_have_an_interval_around_zero(table):
    low, high = paired_interval(*table)
    assert low == -high
    assert 0.005 < high < (0.8 if sum(table) == 1 else 0.04)


def test_nothing_counted_is_an_error():
    for nothing in (lambda: wilson_interval(0, 0), lambda: paired_interval(0, 0, 0, 0)):
        with pytest.raises(ValueError, match="no pictures"):
            nothing()


def cells(old, new, phi):
    """Probabilities of both right, fixed, broken, both wrong; phi correlates right and wrong."""
    both_wrong = (1 - old) * (1 - new) + phi * math.sqrt(old * (1 - old) * new * (1 - new))
    return [old + new - 1 + both_wrong, 1 - old - both_wrong, 1 - new - both_wrong, both_wrong]


def coverage(n, old, new, phi, draws):
    """The share of draws of n pictures whose interval contains the true gain."""
    random = np.random.default_rng([n, round(1000 * old), round(1000 * new), round(100 * phi)])
    tables = random.multinomial(n, cells(old, new, phi), draws)
    covered, gain = 0, new - old
    for table, times in zip(*np.unique(tables, axis=0, return_counts=True), strict=True):
        low, high = paired_interval(*table.tolist())
        covered += times * (low <= gain <= high)
    return covered / draws


@pytest.fixture
def quick_wilson(monkeypatch):
    """The same few accuracies come up again and again."""
    monkeypatch.setattr(statistics, "wilson_interval", functools.cache(wilson_interval))


GAINS = [(0.8, 0), (0.8, 0.01), (0.8, 0.02), (0.9, 0), (0.9, 0.01), (0.9, 0.02)]
GAINS += [(0.97, 0), (0.97, -0.01), (0.97, -0.02)]


@pytest.mark.parametrize("n", [500, 10_000])
def test_paired_interval_covers_the_truth(quick_wilson, n):
    for old, gain in GAINS:
        assert 0.94 <= coverage(n, old, old + gain, 0.5, 20_000) <= 0.965, (old, gain)


def test_paired_interval_errs_on_the_safe_side_where_few_differ(quick_wilson):
    """Of 500 pictures fewer than six are fixed, or broken."""
    for old, new, phi in [(0.97, 0.97, 0.65), (0.97, 0.97, 0.8), (0.97, 0.98, 0.5)]:
        assert 500 * min(cells(old, new, phi)[1:3]) < 6
        assert 0.96 < coverage(500, old, new, phi, 20_000) < 0.99


@pytest.mark.slow
@pytest.mark.parametrize("phi", [0, 0.3, 0.5, 0.65])
@pytest.mark.parametrize("n", [500, 10_000])
def test_paired_interval_covers_the_truth_whatever_the_correlation(quick_wilson, n, phi):
    for old, gain in [*GAINS, (0.97, 0.01)]:
        few = n * min(cells(old, old + gain, phi)[1:3]) < 6
        covered = coverage(n, old, old + gain, phi, 100_000)
        assert 0.94 <= covered <= (0.99 if few else 0.965), (old, gain)
