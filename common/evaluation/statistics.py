"""What a score is worth: intervals, paired tests, calibration; plain arrays in, floats out.

Everything is counted on the same pictures in the same order. `below` and `old` are the network of
the level below, `above` and `new` that of the level in question; a picture is `fixed` where old is
wrong and new is right, `broken` where it is the other way round.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import binomtest
from sklearn.metrics import f1_score, recall_score

SIGNIFICANCE = 0.05  # a gain or a loss is called one where the exact test's p-value is below this
TOP5_CLASSES = 10  # top-5 accuracy says something only where there are more classes than this
BINS = 15  # of confidence, as Guo et al. have them


def wilson_interval(correct: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of an accuracy; fractions.

    Raises ValueError where nothing was counted. Wilson 1927,
    https://doi.org/10.1080/01621459.1927.10502953
    """
    if not total:
        raise ValueError("no pictures, so no accuracy")
    low, high = binomtest(correct, total).proportion_ci(level, method="wilson")
    return float(low), float(high)


def mcnemar_exact(fixed: int, broken: int) -> float:
    """Two-sided p-value of "as many are fixed as are broken", from the binomial distribution.

    1.0 where the two networks never differ. McNemar 1947, https://doi.org/10.1007/BF02295996
    """
    return float(binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0


def paired_interval(
    both_right: int, fixed: int, broken: int, both_wrong: int, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the gain, new accuracy minus old, from the four counts; fractions.

    Newcombe's method 10: the Wilson intervals of the two accuracies, combined with the correlation
    phi of right and wrong, which counts as less by a continuity correction. It keeps some width
    where the networks never differ; with fewer than about six fixed or broken it covers the truth
    more often than `level`. Raises ValueError where nothing was counted.

    Newcombe 1998, Statistics in Medicine 17:2635-2650, https://pubmed.ncbi.nlm.nih.gov/9839354
    """
    total = both_right + fixed + broken + both_wrong
    new, old = both_right + fixed, both_right + broken
    new_low, new_high = wilson_interval(new, total, level)
    old_low, old_high = wilson_interval(old, total, level)

    association = both_right * both_wrong - fixed * broken
    if association > 0:
        association = max(association - total / 2, 0)  # the continuity correction
    spread = math.sqrt(new * (total - new) * old * (total - old))
    phi = association / spread if spread else 0.0

    def combined(a: float, b: float) -> float:
        return math.sqrt(a * a - 2 * phi * a * b + b * b)

    gain = (fixed - broken) / total
    low = gain - combined(new / total - new_low, old_high - old / total)
    high = gain + combined(new_high - new / total, old / total - old_low)
    return low, high


def compare(labels: np.ndarray, below: np.ndarray, above: np.ndarray) -> dict:
    """What `above` gained over `below`, on the same pictures.

    The verdict is the exact test's; where it is close the interval may differ from it.

    Args:
        labels, below, above: (N,) int, the true classes and what each network took them for.

    Returns:
        `gain` and `interval` [low, high] in fractions, `p_value`, the counts `fixed` and `broken`,
        and `verdict`: "gain", "loss" or "not shown".

    Raises:
        ValueError: the three are not of one length, or are empty.
    """
    labels, below, above = (np.asarray(part) for part in (labels, below, above))
    if not labels.shape == below.shape == above.shape == (len(labels),):
        shapes = f"{labels.shape}, {below.shape} and {above.shape}"
        raise ValueError(f"labels and the two predictions are {shapes}, not three times (N,)")
    old, new = below == labels, above == labels
    counts = (old & new, ~old & new, old & ~new, ~old & ~new)
    both_right, fixed, broken, both_wrong = (int(part.sum()) for part in counts)
    interval = paired_interval(both_right, fixed, broken, both_wrong)
    p_value = mcnemar_exact(fixed, broken)
    verdict = "not shown"
    if p_value < SIGNIFICANCE:
        verdict = "gain" if fixed > broken else "loss"
    return {
        "gain": (fixed - broken) / len(labels),
        "interval": list(interval),
        "p_value": p_value,
        "fixed": fixed,
        "broken": broken,
        "verdict": verdict,
    }


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and number of pictures by confidence, in bins of equal width.

    Args:
        probabilities: (N, C) float; the highest of a row is its confidence. A confidence on the
            edge of two bins belongs to the lower one.
        labels: (N,) int.

    Returns:
        (bins,) float64, (bins,) float64 and (bins,) int64; the first two are nan in empty bins.
    """
    confidence = probabilities.max(1).astype(np.float64)
    bin_of = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1], right=True)
    counts = np.bincount(bin_of, minlength=bins)
    right = probabilities.argmax(1) == labels
    with np.errstate(invalid="ignore"):  # 0 / 0 is the nan of an empty bin
        means = [np.bincount(bin_of, part, bins) / counts for part in (confidence, right)]
    return *means, counts


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: how far confidence is from accuracy, a mean over pictures.

    Takes what `reliability` takes. Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    confidence, accuracy, counts = reliability(probabilities, labels, bins)
    return float(np.nansum(counts * np.abs(confidence - accuracy)) / counts.sum())


def _scaled(logits: np.ndarray, labels: np.ndarray, t: float) -> tuple[float, np.ndarray]:
    """Mean negative log-likelihood of the labels in nats, and softmax(logits / t) (N, C)."""
    log_likelihoods = log_softmax(logits.astype(np.float64) / t, axis=1)
    nll = -log_likelihoods[np.arange(len(labels)), labels].mean()
    return float(nll), np.exp(log_likelihoods)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T from 0.05 to 20 for which softmax(logits / T) is likeliest; of val, never of test.

    logits are (N, C) float, labels (N,) int. Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    best = minimize_scalar(
        lambda log_t: _scaled(logits, labels, math.exp(log_t))[0],
        bounds=(math.log(0.05), math.log(20)),
        method="bounded",
    )
    return math.exp(best.x)


def describe(logits: np.ndarray, labels: np.ndarray, temperature: float | None = None) -> dict:
    """More of a network than its accuracy.

    Args:
        logits: (N, C) float.
        labels: (N,) int.
        temperature: of `fit_temperature`; None leaves the scaled figures out.

    Returns:
        `macro_f1`, over the classes that are in labels or predicted; `recall`, a fraction a class,
        None where labels have none of it; `top5`, None up to 10 classes; `nll` in nats; `ece`; and
        with a temperature `temperature`, `nll_scaled` and `ece_scaled`.
    """
    classes, predictions = range(logits.shape[1]), logits.argmax(1)
    recall = recall_score(labels, predictions, labels=classes, average=None, zero_division=np.nan)
    figures = {
        "macro_f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
        "recall": [None if math.isnan(part) else float(part) for part in recall],
        "top5": None,
    }
    if len(classes) > TOP5_CLASSES:
        own, label = logits[np.arange(len(labels)), labels, None], np.arange(len(classes))
        ahead = (logits > own) | (logits == own) & (label < labels[:, None])  # ties as in argmax
        figures["top5"] = float((ahead.sum(1) < 5).mean())
    figures["nll"], probabilities = _scaled(logits, labels, 1.0)
    figures["ece"] = calibration_error(probabilities, labels)
    if temperature is not None:
        figures["temperature"] = float(temperature)
        figures["nll_scaled"], probabilities = _scaled(logits, labels, temperature)
        figures["ece_scaled"] = calibration_error(probabilities, labels)
    return figures


def summarise(values: Sequence[float]) -> dict:
    """`n`, `mean`, `sd` (of a sample; None for a single one) and the `values` of several seeds."""
    values = [float(value) for value in values]
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"n": len(values), "mean": float(np.mean(values)), "sd": sd, "values": values}
