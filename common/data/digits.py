"""scikit-learn's handwritten digits: pictures that need no download."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from common.data.pictures import Pictures, all_of, pixel_hash

TEST = 500  # pictures of the fixed test set, stratified


def read_digits() -> Pictures:
    """1,797 scans of 8x8 pixels in 17 shades, as bytes."""
    digits = load_digits()
    grey = (digits.images * (255 / 16)).round().astype(np.uint8)
    pixels = torch.from_numpy(grey)[:, None].repeat(1, 3, 1, 1)
    labels = digits.target.astype(np.int64)
    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=TEST, stratify=labels, random_state=0)
    images = all_of(pixels, labels, [str(name) for name in digits.target_names])
    return Pictures(images, np.sort(train), np.sort(test), pixel_hash(pixels))
