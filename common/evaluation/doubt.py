"""When an answer is to be doubted: thresholds on a picture's score, measured on val; plain arrays
in, floats out.

Two questions of a picture that nobody has labelled. Is the answer sure: on val, how often were
answers of at least this probability right? And is it such a picture as the network has learnt: how
far are its features from those of the training pictures?
"""

import math
from typing import NamedTuple

import numpy as np
from sklearn.covariance import LedoitWolf

FALSE_ALARMS = 0.05  # of pictures such as val's, the share that may be called none of the classes
SURE = 0.95  # of val's sure answers, the share that must be right


class Gaussians(NamedTuple):
    """A normal distribution of features a class, all of one covariance.

    Attributes:
        means: float64 (K, D), of the K classes that were seen.
        precision: float64 (D, D), the covariance's inverse.
    """

    means: np.ndarray
    precision: np.ndarray


def fit_gaussians(features: np.ndarray, labels: np.ndarray) -> Gaussians:
    """The classes' distributions of features, (N, D) float with N labels, (N,) int.

    As there may be fewer pictures than a covariance has entries, it is shrunk towards a multiple of
    the identity (Ledoit and Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4).

    Raises:
        ValueError: not two pictures a class on average, or features that do not vary or are no
            numbers.
    """
    features = np.asarray(features, np.float64)
    classes, rows = np.unique(labels, return_inverse=True)
    if len(features) < 2 * len(classes) or not len(classes):
        raise ValueError(f"{len(features)} pictures are too few for {len(classes)} classes")
    if not np.isfinite(features).all():
        raise ValueError("features that are no numbers")
    means = np.stack([features[rows == k].mean(0) for k in range(len(classes))])
    within = features - means[rows]
    if not within.any():
        raise ValueError("features that do not vary within a class")
    # `within` has lost a degree of freedom to each class's mean
    scale = len(features) / (len(features) - len(classes))
    precision = LedoitWolf(assume_centered=True).fit(within * math.sqrt(scale)).precision_
    return Gaussians(means, precision)


def mahalanobis(features: np.ndarray, gaussians: Gaussians) -> np.ndarray:
    """The distance of features, (N, D) float, from the nearest class's mean, in deviations.

    float64 (N,). Lee et al. 2018, https://arxiv.org/abs/1807.03888, on the last layer's input alone
    and without its perturbation of the picture.
    """
    features = np.asarray(features, np.float64)
    nearest = np.full(len(features), np.inf)
    for mean in gaussians.means:  # a class at a time: (N, K, D) may not fit
        apart = features - mean
        nearest = np.minimum(nearest, ((apart @ gaussians.precision) * apart).sum(1))
    return np.sqrt(nearest.clip(0))


def alarm_threshold(scores: np.ndarray, rate: float = FALSE_ALARMS) -> float | None:
    """The score above which a picture is called unlike those that `scores`, (N,) float, are of.

    Of further pictures of the same kind at most `rate` will be above it on average, whatever their
    distribution: of N + 1 scores, each is as likely as another to be among the highest. None where
    N is too small for that, as below 19 at 5 %. Vovk et al. 2005; for this use Bates et al. 2023,
    https://arxiv.org/abs/2104.08279
    """
    above = math.floor(rate * (len(scores) + 1) + 1e-9)  # the next one's rank is among these
    return float(np.sort(scores)[-above]) if above else None


def alarm_rate(scores: np.ndarray, rate: float = FALSE_ALARMS, seed: int = 0) -> float | None:
    """The share of `scores`, (N,) float, above the threshold that the other half of them sets.

    What `alarm_threshold` gives on pictures that it has not seen, by two halves chosen by chance.
    None where a half is too small for a threshold.
    """
    order = np.random.default_rng(seed).permutation(len(scores))
    halves = np.array_split(np.asarray(scores)[order], 2)
    alarms = 0
    for own, other in (halves, halves[::-1]):
        threshold = alarm_threshold(other, rate)
        if threshold is None:
            return None
        alarms += int((own > threshold).sum())
    return alarms / len(scores)


class Sure(NamedTuple):
    """From which probability on an answer is sure.

    Attributes:
        threshold: of the most probable class, at least; None: no probability was right as often
            as asked.
        share: of val's answers, how many are sure.
        accuracy: of these, how many are right; None where there are none.
    """

    threshold: float | None
    share: float
    accuracy: float | None


def sure_threshold(confidence: np.ndarray, right: np.ndarray, accuracy: float = SURE) -> Sure:
    """The lowest probability from which on answers are right as often as `accuracy` asks.

    A selective classifier of that accuracy with the most answers: Geifman and El-Yaniv 2017,
    https://arxiv.org/abs/1705.08500, without their bound.

    Args:
        confidence: (N,) float, the most probable class's probability.
        right: (N,) bool.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked, counts = confidence[order], np.arange(1, len(order) + 1)
    accuracies = np.cumsum(right[order]) / counts
    ends = np.append(ranked[:-1] > ranked[1:], True)[: len(ranked)]  # equal ones go together
    fine = np.flatnonzero(ends & (accuracies >= accuracy))
    if not fine.size:
        return Sure(None, 0.0, None)
    last = fine[-1]
    return Sure(float(ranked[last]), float(counts[last] / len(order)), float(accuracies[last]))
