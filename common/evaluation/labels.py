"""Labels that may be wrong: what a classifier expects of pictures whose labels it was not shown.

Confident learning (Northcutt, Jiang and Chuang, 2021, https://arxiv.org/abs/1911.00068) with a
linear classifier on features of a network that never saw these labels.
"""

import warnings
from collections.abc import Collection, Sequence

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.models import FeatureBatches
from common.models.staged import average
from common.utils.errors import UserError

FOLDS = 5
# Inverse strength of the L2 penalty. Chosen with training labels that were changed on purpose (5 %
# of digits', 3 % of CIFAR-10's): weaker, the classifier learns the wrong labels, too.
STRENGTH = 0.01


def pooled_features(batches: FeatureBatches) -> np.ndarray:
    """What the head reads of frozen stages, averaged over places: float32 (N, D), in order.

    Raises:
        UserError: numbers too large for the precision.
    """
    parts = [
        torch.cat([average(tap) for tap in features.taps.values()], dim=1).float().cpu()
        for features, _ in batches.epoch()
    ]
    features = torch.cat(parts)
    if not features.isfinite().all():
        precision = batches.trunk.runtime.precision
        raise UserError(
            f"the network's features hold NaN or infinity in {precision}; use other weights, or "
            "--train.precision float32"
        )
    return features.numpy()


def out_of_fold(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Each picture's class probabilities by a classifier that was fitted on the other folds.

    The folds are stratified, and always the same.

    Args:
        features: float32 (N, D).
        labels: int64 (N,), as they are given.
        classes: C.

    Returns:
        float64 (N, C); each row sums to 1.

    Raises:
        ValueError: a class of a single picture: without it nothing teaches the class.
    """
    counts = np.bincount(labels, minlength=classes)
    if 1 in counts:
        raise ValueError(f"class {counts.tolist().index(1)} has a single picture")
    folds = StratifiedKFold(min(FOLDS, counts.max()), shuffle=True, random_state=0)
    with warnings.catch_warnings():  # a class of fewer pictures than folds is not in all of them
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = list(folds.split(features, labels))
    probabilities = np.zeros((len(labels), classes))
    for others, own in parts:
        taught = features[others], labels[others]
        probabilities[own] = fitted_on(*taught, features[own], classes)
    return probabilities


def fitted_on(
    features: np.ndarray, labels: np.ndarray, asked: np.ndarray, classes: int
) -> np.ndarray:
    """Class probabilities of pictures, by multinomial regression on others' standardised features.

    Args:
        features: float32 (N, D), what it is fitted on.
        labels: int64 (N,), of two classes at least.
        asked: float32 (M, D), the pictures in question.
        classes: C. One that is not in `labels` has probability 0.

    Returns:
        float64 (M, C); each row sums to 1.
    """
    regression = LogisticRegression(C=STRENGTH, max_iter=1000)
    model = make_pipeline(StandardScaler(), regression).fit(features, labels)
    probabilities = np.zeros((len(asked), classes))
    probabilities[:, model.classes_] = model.predict_proba(asked)
    return probabilities


def label_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Confident learning's self-confidence: the probability of the given label, float64 (N,).

    The lower, the more suspicious. Of labels that were changed on purpose it found more than the
    same paper's normalised margin, which it is less the largest of the other probabilities.

    Args:
        probabilities: float (N, C), by a classifier that was not shown these labels.
        labels: int64 (N,), as they are given.

    Raises:
        ValueError: not as many labels as rows.
    """
    if probabilities.shape[:1] != labels.shape:
        raise ValueError(f"shapes differ: {probabilities.shape} and {labels.shape}")
    return probabilities[np.arange(len(labels)), labels]


def ranking(scores: np.ndarray) -> np.ndarray:
    """Positions int64 (N,) by score, the lowest first; of equal scores the earlier picture."""
    return np.argsort(scores, kind="stable")


def hits(ranked: Sequence[int], errors: Collection[int], first: int = 50) -> tuple[int, int]:
    """How many of the first in a ranking are known errors, and how many were looked at.

    Their ratio is the precision at `first`.

    Args:
        ranked: the most suspicious first.
        errors: those known to be wrong.
    """
    looked_at = ranked[:first]
    return sum(index in errors for index in looked_at), len(looked_at)
