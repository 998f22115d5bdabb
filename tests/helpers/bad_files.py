"""Bad files, rows of test_bad_input.py: (command, files made before, words of the error).

Commands are as in bad_words.py. Files are {name: text or bytes}, or a function that makes them
in the folder in which the command runs; spoiled.py has those.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from helpers import spoiled
from helpers.spoiled import (
    CIFAR,
    announced,
    archive,
    arrays,
    contents,
    epochs,
    figures,
    pets,
    picture,
    report,
    run,
    saved,
    tensors,
    weights,
)

FOLDER = "1 TINY --data.name folder --data.root pets --network.weights none"
PICTURE, ALL = "pets/train/cat/003.png: not a readable picture", ("train", "test")
DATA = [
    ("1 TINY --data.name folder", {}, "data.root is missing", "--data.root"),
    (FOLDER, {}, "data.root: there is no folder pets", "train/<class>/"),
    (FOLDER, {"pets": "a file"}, "data.root: there is no folder pets"),
    (FOLDER, {"pets/train/cat/1.png": ""}, "pets has no folder test/"),
    (FOLDER, pets(lambda root: (root / "train/emu").mkdir()), "pets/train/emu", "in test/ (emu)"),
    (FOLDER, pets(lambda root: [(root / h / "emu").mkdir() for h in ALL]), "no readable picture"),
    (FOLDER, spoiled.odd_place, "the folder 'caf\\udce9' is not named in UTF-8; use --data.title"),
    (FOLDER, pets(spoiled.odd_class), "the class folder 'd\\udce9g' is not named in UTF-8; rename"),
    (FOLDER, pets(classes=["cat"]), "pets/train needs class folders, two at least; found cat"),
    (FOLDER, pets(per_class=1), "2 training pictures", "too few", "data.val_fraction"),
    (FOLDER, picture(spoiled.text), PICTURE, "no known picture format", "skip_unreadable"),
    (FOLDER, picture(spoiled.empty), PICTURE, "no known picture format"),
    (FOLDER, picture(spoiled.cut), PICTURE, "truncated"),
    (FOLDER, picture(lambda p: p.write_bytes(announced(50_000, 50_000))), PICTURE, "bomb"),
    (FOLDER, picture(lambda p: p.write_bytes(announced(12_000, 10_000))), PICTURE, "truncated"),
    (FOLDER, picture(lambda p: (p.unlink(), p.symlink_to("gone"))), PICTURE, "No such file"),
    ("1 TINY --data.limit 5", {}, "data.limit 5 is less than a picture for each of the 10 classes"),
    ("1 TINY --data.limit 10", {}, "10 training pictures", "too few", "data.val_fraction"),
    (FOLDER, pets(spoiled.other_files), "pets/test/dog has no readable picture (left out: 4 .txt)"),
    (FOLDER + " --data.drop_copies true", pets(spoiled.all_copies), "'dog' of pets are copies of"),
]
ARCHIVE = "1 TINY --data.name cifar10 --data.root archives --network.weights none"
SUM, NOT = (
    ["CIFAR-10", CIFAR, "is damaged and cannot be downloaded"],
    [CIFAR, "not CIFAR-10's arch"],
)
ARCHIVES = [
    (ARCHIVE, archive(spoiled.cut), *SUM),
    (ARCHIVE, archive(spoiled.flip), *SUM),
    (ARCHIVE, archive(spoiled.folder), *SUM),
    (ARCHIVE, contents(lambda m: {}), *NOT, "data_batch_1 is missing in it"),
    (
        ARCHIVE,
        contents(lambda m: m | {f"{spoiled.BATCHES}/batches.meta": b""}),
        *NOT,
        "batches.meta",
    ),
    (ARCHIVE, contents(lambda m: m | {f"{spoiled.BATCHES}/test_batch": b""}), *NOT, "test_batch"),
    (ARCHIVE, {"archives": "a file"}, "archives: cannot put CIFAR-10 here", "--data.root"),
]
MINE = "1 TINY --network.weights mine.pth"
NO_WEIGHTS, OTHER = "mine.pth is no file of weights", ["mine.pth is not for this network", "arch"]
WEIGHTS = [
    (MINE, {}, "network.weights: no file mine.pth", "imagenet, tiny-imagenet, none"),
    (MINE, {"mine.pth/x": ""}, "network.weights: no file mine.pth"),
    (MINE, {"mine.pth": ""}, NO_WEIGHTS),
    (MINE, {"mine.pth": "my weights"}, NO_WEIGHTS),
    (MINE, {"mine.pth": spoiled.BUNDLED.read_bytes()[:-5000]}, NO_WEIGHTS),
    (MINE, spoiled.evil, NO_WEIGHTS, "nothing in it was run"),
    ("1 TINY --network.weights torch.pth", spoiled.evil, "torch.pth is no file of weights"),
    ("1 TINY --network.weights a.safetensors", {"a.safetensors": "x"}, "a.safetensors is no file"),
    (MINE, weights({"fc": [1]}), "mine.pth is not a state dict"),
    (MINE, weights({1: torch.zeros(3)}), "mine.pth is not a state dict"),
    (MINE, weights({}), *OTHER, "lack 'bn1.bias'"),
    (MINE, weights(partial(spoiled.architecture, "resnet34")), *OTHER),
    (MINE, weights(partial(spoiled.architecture, "resnet50")), *OTHER),
    (MINE, weights(partial(spoiled.architecture, "mobilenet_v3_small")), *OTHER),
    (MINE, weights(spoiled.holding(float("nan"))), "mine.pth: 'bn1.running_mean' holds NaN"),
    (MINE, weights(spoiled.holding(float("inf"))), "mine.pth: 'bn1.running_mean' holds NaN"),
    (MINE, weights(spoiled.holding(1j)), "mine.pth: 'bn1.running_mean' holds NaN", "real numbers"),
    (
        MINE,
        weights(spoiled.holding(1e300, torch.float64)),
        "'bn1.running_mean' holds NaN, infinity",
    ),
    (
        MINE,
        weights(lambda: spoiled.bundled() | {"bn1.bias": torch.ones(64, device="meta")}),
        "'bn1.b",
    ),
    (MINE, weights(lambda: spoiled.bundled() | {"bn1.bias": torch.ones(64).to_sparse()}), "'bn1.b"),
    (
        MINE + " --network.arch vit_b_16 --network.image_size 32",
        weights({"encoder.pos_embedding": torch.zeros(1, 190, 768)}),
        "mine.pth is not for this network: 'encoder.pos_embedding' cannot be interpolated",
    ),
    ("1 --network.weights imagenet", {}, "ImageNet weights", "cannot be downloaded", "--offline"),
]
BEST, LAST = "level1_baseline-small/best.pt", "level1_baseline-small/last.pt"
ENDED = "level1_baseline-ended/best.pt"


def without_a_stage(tensors):
    """What is left of a network where a stage is missing."""
    return {name: tensor for name, tensor in tensors.items() if "block1" not in name}


LEVEL4, PREDICT, GRADE = (
    "4 SMALL --network.start_from level1_baseline --network.taps block1",
    "predict a.png",
    "grade level1_baseline",
)
RESUME, DAMAGED = "1 SMALL --resume", "not a readable checkpoint"
CHECKPOINTS = [
    (LEVEL4, run(BEST, spoiled.cut), BEST, DAMAGED),
    (LEVEL4, run(BEST, spoiled.flip), BEST),
    (LEVEL4, run(BEST, lambda f: torch.save({"network": {}}, f)), BEST, "by its checksum"),
    (LEVEL4, run(BEST, tensors(without_a_stage)), BEST, "another network", "stages."),
    (LEVEL4, run(BEST, saved(lambda _: {"network": 3})), BEST, "'network' is missing"),
    (LEVEL4, run(BEST, saved(lambda _: {"split": ""})), BEST, "other split", "run first"),
    (RESUME, run(LAST, spoiled.empty), LAST, DAMAGED),
    (RESUME, run(LAST, spoiled.folder), LAST, "cannot be read (it is no file)"),
    (RESUME, run(LAST, saved(lambda c: {"history": [1]})), LAST, "training goes on from"),
    (RESUME, run(LAST, saved(lambda c: {"history": []})), LAST, "training goes on from"),
    (RESUME, run(LAST, saved(lambda c: {"optimizer": {}})), LAST, "training goes on from"),
    (RESUME, run(LAST, saved(lambda c: {"optimizer": None})), LAST, "training goes on from"),
    (RESUME, run(LAST, tensors(lambda t: {k: v * np.nan for k, v in t.items()})), LAST, "NaN"),
    (PREDICT, run(ENDED, spoiled.cut), ENDED, DAMAGED, "train again"),
    (PREDICT, run(ENDED, saved(lambda c: {"settings": {"sede": 1}})), ENDED, "mean 'seed'"),
    (PREDICT, run(ENDED, saved(lambda c: {"classes": 3})), ENDED, "no classes", "train it again"),
    (PREDICT, run(ENDED, saved(lambda c: {"tta": "x"})), ENDED, "no tta that can be"),
    (PREDICT, run(ENDED, saved(lambda c: {"stored_size": 0})), ENDED, "no stored_size that can be"),
    (PREDICT, run(ENDED, spoiled.nested), ENDED, DAMAGED),
    (PREDICT, run(ENDED, tensors(lambda t: {k: v[:1] for k, v in t.items() if v.ndim})), ENDED),
    (GRADE, run(BEST, spoiled.text), BEST, DAMAGED),
    (GRADE, run(BEST, saved(lambda c: {"settings": 3})), BEST, "'settings' is missing"),
]
SITE, COURSE = "site ../project/runs/digits-none/reports", "course SMALL"
COMPARE = "compare ../project/level1_baseline/baselines TINY"
OWN = Path("../project/runs/digits-limit-60/reports/level1_baseline-mlp-epochs-1-precision-float32")
METRICS, HISTORY, ARRAYS = "metrics.json", "history.json", "predictions.npz"
AGAIN = "run its level again, or move the folder away"
EPOCHS = [{"pictures_per_second": None}, {"val_accuracy": np.nan}, {"epoch": np.inf}]
FIGURES = [  # what one level's figures cannot be, and how that is said
    (lambda m: m.pop("below") and {}, "'below' is missing"),
    (lambda m: {"below": 3}, "'below' must be a mapping, not '3'"),
    (lambda m: {"settings": m["settings"] | {"augment": {3: [1]}}}, "'settings.augment' must be"),
    (lambda m: {"settings": m["settings"] | {"augment": [{}]}}, "'settings.augment.0' must be"),
    (lambda m: {"below": {"level": "level0_x"}}, "'below.fixed' is missing"),
    (lambda m: {"commit": 3}, "'commit' must be a text"),
    (lambda m: {"command": "\ud800"}, "not JSON", "surrogates"),
    (lambda m: {"frozen": {}}, "'frozen.before' is missing"),
    (lambda m: {"trainable": [1, 2]}, "'trainable.0' must be a text, not '1'"),
    (lambda m: {"seconds": np.nan}, "'seconds' must be a number from 0"),
    (lambda m: {"test": m["test"] | {"correct": 61}}, "'test.correct' cannot be so"),
    (lambda m: {"val": m["val"] | {"correct": 0, "total": 0}}, "'val.total' must be"),
    (lambda m: {"weights": {"name": "x", "sha256": 3}}, "'weights.sha256' must be a text"),
    (lambda m: {"detail": m["detail"] | {"ece_scaled": None}}, "'detail.ece_scaled' must be"),
    (lambda m: {"detail": m["detail"] | {"interval": []}}, "'detail.interval' must be two num"),
    (lambda m: {"detail": m["detail"] | {"recall": [1]}}, "'detail.recall' cannot be so"),
    (lambda m: {"detail": m["detail"] | {"seconds": {}}}, "'detail.seconds.test' is missing"),
    (lambda m: {"settings": m["settings"] | {"network": 3}}, "'settings.network' must be a map"),
    (lambda m: {"settings": m["settings"] | {"benchmarks": [3]}}, "'settings.benchmarks.0' must"),
    (
        lambda m: {
            "settings": m["settings"] | {"train": m["settings"]["train"] | {"batch_size": 0}}
        },
        "'settings.train.batch_size' must be a whole number from 1",
    ),
]
REPORTS = [
    (SITE, report(METRICS, spoiled.cut), METRICS, "not JSON", AGAIN),
    (SITE, report(METRICS, lambda f: f.write_text("[]")), METRICS, "not a report of schema 1"),
    (SITE, report(METRICS, lambda f: f.write_text("[" * 100_000)), METRICS, "recursion"),
    (SITE, report(METRICS, figures(lambda m: m.pop("test") and {})), METRICS, "'test' is missing"),
    (
        SITE,
        report(METRICS, figures(lambda m: {"seed": "x"})),
        METRICS,
        "'seed' must be a whole number",
    ),
    (SITE, report(METRICS, figures(lambda m: {"level": 3})), METRICS, "'level' must be a text"),
    (
        SITE,
        report(METRICS, figures(lambda m: {"detail": 3})),
        METRICS,
        "'detail' must be a mapping",
    ),
    (SITE, report(HISTORY, spoiled.text), HISTORY, "not JSON"),
    (SITE, report(HISTORY, lambda f: f.write_text("[]")), HISTORY, "not a list of epochs"),
    (SITE, report(HISTORY, lambda f: f.write_text('[{"val_accuracy": 1}]')), HISTORY, "is missing"),
    (SITE, report(ARRAYS, spoiled.cut), ARRAYS, "unreadable"),
    (SITE, report(ARRAYS, arrays(classes=np.array([{}]))), ARRAYS, "unreadable", "pickle"),
    (SITE, report(ARRAYS, arrays(predictions=np.zeros(3, int))), ARRAYS, "'predictions'", "(3,)"),
    (SITE, report(ARRAYS, arrays(labels=np.full(60, 99))), ARRAYS, "'labels'", "10 classes"),
    (SITE, report(ARRAYS, arrays(labels=None)), ARRAYS, "'labels'", "missing"),
    (SITE, report(ARRAYS, arrays(logits=np.zeros((60, 3)))), ARRAYS, "'logits'", "(60, 3)"),
    *((SITE, report(METRICS, figures(change)), METRICS, *words) for change, *words in FIGURES),
    *((SITE, report(HISTORY, epochs(**change)), HISTORY, "must be a") for change in EPOCHS),
    (SITE, report(ARRAYS, arrays(logits=np.full((60, 10), np.nan))), ARRAYS, "'logits' holds NaN"),
    (SITE, report(ARRAYS, arrays(labels=np.zeros(0, int))), ARRAYS, "'predictions' is not (0,)"),
    (SITE, report(METRICS, spoiled.fifo), METRICS, "it is no file"),
    ("1 TINY --reports .", {"README.md": "my own"}, "README.md: not a page that runs write"),
    ("1 TINY --reports .", {"README.md/x": ""}, "README.md: not a page that runs write"),
    ("1 TINY --reports .", {"index.html": "<!doctype html>"}, "index.html: not a page that runs"),
    ("1 TINY --reports .", {"level1_baseline/notes": "my own"}, "level1_baseline: not a report"),
    ("3 TINY --reports .", {"level3_fusion": "my own"}, "level3_fusion: not a report", "--reports"),
    ("site .", {"README.md": "my own"}, "README.md: not a page that runs write"),
    ("site .", {}, "no reports here; run a level first"),
    (COURSE, {"../project/level4_finetune_tta/config.yaml": "sede: 1"}, "level4", "'sede'"),
    (COMPARE, {f"{OWN}/metrics.json": ""}, f"{OWN.name}/metrics.json: not JSON", "run its level"),
    ("1 TINY --reports file", {"file": "x"}, "file: cannot write here", "--reports"),
    ("1 TINY --reports file/reports", {"file": "x"}, "file/reports: cannot write", "--reports"),
    ("bench --quick --offline --reports file", {"file": "x"}, "file: cannot write", "--reports"),
    (
        "1 TINY --data.title other",
        {"../project/runs/other": "x"},
        "runs/other: cannot write here",
        "writable",
    ),
]
PICTURES = [
    (PREDICT, {"a.png": "a text"}, "a.png: not a readable picture (no known picture format)"),
    (PREDICT, {"a.png": ""}, "a.png: not a readable picture"),
    (PREDICT, {"a.png": announced(20, 20)}, "a.png: not a readable picture", "truncated"),
    (
        PREDICT,
        {"a.png": announced(9000, 9000)},
        "a.png",
        "more than 40 megapixels; make it smaller",
    ),
    (PREDICT, {"a.png": announced(50_000, 50_000)}, "a.png: not a readable picture", "bomb"),
    ("predict more", {"more/notes.txt": "x"}, "more: no pictures in this folder"),
    ("predict .", lambda here: spoiled.fifo(here / "a.png"), ".: no pictures in this folder"),
    (PREDICT, spoiled.floats, "a.png: not a readable picture (pixels of floating-point numbers"),
    ("predict a.png --runs more", {"a.png": "", "more/x": ""}, "more: no trained level here"),
    ("predict a.png --output more", {"a.png": "", "more/x": ""}, "--output: cannot write more"),
    ("predict a.png --output no/b.png", {"a.png": ""}, "no is no folder to write to"),
]
