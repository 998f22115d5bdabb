"""Logits, test-time augmentation, and what a number is worth."""

from common.evaluation.predictions import (
    Predictions,
    Results,
    average_logits,
    evaluate,
    predict,
    tta_of,
    views,
)
