"""Runs a submission's code, always as a process of its own, and takes back figures alone."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from common.config import LevelConfig
from common.data import ImageSet, Splits
from common.evaluation import Predictions, tta_of
from common.utils import paths
from common.utils.errors import UserError
from common.utils.processes import started


def test_logits(
    level: Path, config: LevelConfig, checkpoint: Path, data: Splits, timeout: float
) -> tuple[Predictions, Predictions]:
    """A checkpoint's test predictions, with test-time augmentation and by a single pass.

    The level's `build_network` sees the pictures and not the labels.

    Raises:
        UserError: it crashed, took too long, or gave something else than logits.
    """
    test = data.test
    with tempfile.TemporaryDirectory(prefix="grade-") as folder:
        folder = Path(folder)
        _save_pictures(test, folder / "pictures.npy")
        request = {
            "level": str(level),
            "settings": config.settings(),
            "checkpoint": str(checkpoint),
            "classes": len(test.classes),
            "tta": tta_of(config, data),
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        path = os.pathsep.join([str(paths.PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        worker = ["-P", "-B", "-m", "common.grade.worker", str(folder)]
        run(worker, folder, timeout, PYTHONPATH=path)
        logits = _read_logits(folder / "logits.npy", (len(test), len(test.classes)))
    mean = torch.stack(list(logits)).mean(0)
    return Predictions(mean, test.labels), Predictions(logits[0], test.labels)


def run(arguments: list[str], folder: Path, timeout: float, **environment: str) -> None:
    """Run Python there, with nothing left of it afterwards, whatever it did.

    Raises:
        UserError: it took longer than `timeout` seconds, or ended badly; its last words.
    """
    try:
        own = os.environ | {paths.VARIABLE: ""} | environment  # runs stay in that copy
        with started([sys.executable, *arguments], folder, own) as process:
            process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise UserError(f"it took more than {timeout:g} s (--timeout allows more)") from None


def _save_pictures(test: ImageSet, file: Path) -> None:
    shape = (len(test), *test.source.shape[1:])
    array = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    for positions in torch.arange(len(test)).split(1024):
        array[positions] = test.source[test.rows[positions]].numpy()
    array.flush()


def _read_logits(file: Path, shape: tuple[int, int]) -> torch.Tensor:
    try:
        logits = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError("it ended without giving logits") from error
    except Exception as error:  # the file is a stranger's: it fails in a dozen ways
        raise UserError("it gave a file that holds no logits") from error
    if logits.dtype != np.float32 or logits.ndim != 3 or logits.shape[1:] != shape:
        raise UserError(f"it gave {logits.dtype} {logits.shape}, not float32 logits (V, N, C)")
    if not len(logits) or not np.isfinite(logits).all():
        raise UserError("it gave logits that are no numbers")
    return torch.from_numpy(logits)
