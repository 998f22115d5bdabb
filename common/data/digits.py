"""scikit-learn's handwritten digits: pictures that need no download."""

import hashlib

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

TEST = 500  # pictures of the fixed test set


def read_digits() -> tuple:
    """1,797 scans of 8x8 pixels in 17 shades, as bytes.

    Returns:
        pixels uint8 (1797, 3, 8, 8), labels int64 (1797,), class names, the rows of train and of
        the fixed stratified test set, int64, ascending; SHA-256 of the pixels.
    """
    digits = load_digits()
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)
    pixels = torch.from_numpy(grey)[:, None].repeat(1, 3, 1, 1)
    labels = digits.target.astype(np.int64)
    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=TEST, stratify=labels, random_state=0)
    classes = tuple(str(name) for name in digits.target_names)
    return pixels, labels, classes, np.sort(train), np.sort(test), pixel_hash(pixels)


def pixel_hash(pixels: Tensor) -> str:
    """SHA-256 of an array's bytes."""
    return hashlib.sha256(pixels.contiguous().numpy()).hexdigest()
