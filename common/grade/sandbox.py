"""Runs a submission's code, always as a process of its own, and takes back figures alone."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from common.config import LevelConfig
from common.data import ImageSet
from common.evaluation import Predictions
from common.utils import paths
from common.utils.errors import UserError


def test_logits(
    level: Path, config: LevelConfig, checkpoint: Path, test: ImageSet, tta: str, timeout: float
) -> tuple[Predictions, Predictions]:
    """A checkpoint's test predictions, with test-time augmentation and by a single pass.

    The level's `build_network` sees the pictures and not the labels.

    Raises:
        UserError: it crashed, took too long, or gave something else than logits.
    """
    with tempfile.TemporaryDirectory(prefix="grade-") as folder:
        folder = Path(folder)
        pictures, output = folder / "pictures.npy", folder / "logits.npy"
        _save_pictures(test, pictures)
        request = {
            "level": str(level),
            "settings": config.settings(),
            "paths": (config.data.root, config.network.weights),
            "checkpoint": str(checkpoint),
            "pictures": str(pictures),
            "classes": len(test.classes),
            "tta": tta,
            "output": str(output),
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        worker = ["-P", "-B", "-m", "common.grade.worker", str(folder / "request.json")]
        path = os.pathsep.join([str(paths.PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        run(worker, folder, timeout, PYTHONPATH=path)
        logits = _read_logits(output, (len(test), len(test.classes)))
    mean = torch.stack(list(logits)).mean(0)
    return Predictions(mean, test.labels), Predictions(logits[0], test.labels)


def run(arguments: list[str], folder: Path, timeout: float, **environment: str) -> None:
    """Run Python in a process group of its own, which is gone afterwards, whatever it did.

    Raises:
        UserError: it took longer than `timeout` seconds, or ended badly; its last words.
    """
    errors = folder / "errors.txt"
    with errors.open("wb") as stderr:  # a file: nobody waits for a pipe that a child keeps open
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise UserError(f"it took more than {timeout:g} s (--timeout allows more)") from None
        finally:
            with contextlib.suppress(OSError):  # none left
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        with errors.open("rb") as file:
            file.seek(max(0, errors.stat().st_size - 4096))
            lines = file.read().decode("utf-8", "replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "no word")
        raise UserError(f"it ended with status {status}: {words[:300]}")


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
