"""Combinations of options such that every two values of any two options meet in one of them."""

import random
from itertools import combinations

TECHNIQUES = {  # options of a level, as on its command line; the README names each
    "level": ["1", "2", "3", "4"],
    "data": ["digits", "32", "48"],
    "augment": [
        "[]",
        "[{flip: {alternate: true}}, {crop: {padding: 1}}]",
        "[flip]",
        "[crop]",
        "[jitter]",
        "[mixup]",
        "[cutmix]",
        "[erase]",
        "[rotate]",
        "[resized_crop]",
        "[trivial_augment]",
        "[rand_augment]",
        "[flip, crop, jitter, erase, mixup]",
        "[{mixup: {alpha: 0.1}}]",
        "[{cutmix: {alpha: 8}}]",
        "[{flip: {probability: 0.9}}, {rotate: {degrees: 0.05}}]",
        "[{resized_crop: {scale: [1, 1], ratio: [1, 1]}}, {erase: {scale: [0, 0]}}]",
        "[{rand_augment: {count: 3, magnitude: 30}}]",
        "[{jitter: {brightness: 1, contrast: 1, saturation: 1, hue: 0.5}}]",
    ],
    "train.views": ["null", "1", "2", "5"],
    "train.schedule": [
        "constant",
        "cosine",
        "one_cycle",
        "plateau",
        "gradual",
        "{cosine: {layer_decay: 0.8, warmup: 0.1}}",
        "{cosine: {layer_decay: 0}}",
    ],
    "train.epochs": ["1", "2", "5"],
    "train.ema": ["null", "0.9"],
    "train.label_smoothing": ["0.0", "0.1"],
    "train.clip_norm": ["null", "1.0"],
    "train.optimizer": ["adam", "adamw", "sgd"],
    "train.weight_decay": ["0.0", "0.01"],
    "train.head_lr": ["null", "0.01"],
    "train.early_stopping": ["null", "2"],
    "train.freeze_batch_norm": ["false", "true"],
    "train.precision": ["float32", "bfloat16"],
    "test.tta": ["none", "flip", "shifts", "flip_shifts"],
    "data.stored_size": ["null", "24", "40"],
    "network.trainable": ["", "head", "layer4 head", "layer3 layer4 head"],
    "network.normalise": ["true", "false"],
    "network.adapt_batch_norm": ["auto", "0", "60"],
    "fast": ["true", "false"],
}


def pairwise(factors: dict[str, list[str]]) -> list[dict[str, str]]:
    """A short list of choices of all factors that covers every pair of values, always the same."""
    chance, rows = random.Random(0), []
    names = sorted(factors, key=lambda name: -len(factors[name]))
    left = {
        frozenset([(a, x), (b, y)])
        for a, b in combinations(names, 2)
        for x in factors[a]
        for y in factors[b]
    }
    while left:
        first = min(left, key=sorted)
        row = dict(first)
        for name in names:
            if name not in row:
                values = chance.sample(factors[name], len(factors[name]))
                gains = [
                    sum(frozenset([(name, v), o]) in left for o in row.items()) for v in values
                ]
                row[name] = values[gains.index(max(gains))]
        left -= {frozenset(pair) for pair in combinations(row.items(), 2)}
        rows.append({name: row[name] for name in factors})
    return rows
