"""A run's log.txt, which is written once the run has begun: one that is refused leaves none."""

import logging
from logging.handlers import MemoryHandler
from pathlib import Path

from common.utils.errors import UserError


class Logbook(MemoryHandler):
    """Keeps what is said until `begin`, then writes that and all that follows into log.txt.

    Args:
        resume: add to a log that is there, instead of replacing it.
    """

    def __init__(self, folder: Path, resume: bool):
        super().__init__(capacity=1)  # and as long as it has no target, all is kept
        self.file = logging.FileHandler(
            folder / "log.txt", "a" if resume else "w", "utf-8", delay=True
        )
        self.file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))

    def begin(self) -> None:
        """Write from now on."""
        self.setTarget(self.file)
        self.flush()

    def close(self) -> None:
        """Close log.txt; what has not begun is dropped."""
        super().close()
        self.file.close()


class TensorBoardLog:
    """Writes epochs into the run's folder as `tensorboard --logdir runs` reads them.

    Args:
        kind: "tensorboard", or "none": nothing is written.
        folder: the run's.
    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, kind: str, folder: Path):
        self.writer = None
        if kind == "tensorboard":
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                hint = "pip install -r requirements-extras.txt"
                raise UserError(f"log: tensorboard is not installed; {hint}") from error
            self.writer = SummaryWriter(folder / "tensorboard")

    def epoch(self, entry: dict[str, float]) -> None:
        """An epoch of the history: "train_loss" is shown as "loss/train", and so on."""
        if self.writer is None:
            return
        for key, value in entry.items():
            part, _, name = key.partition("_")
            label = f"{name}/{part}" if part in ("train", "val") else f"run/{key}"
            self.writer.add_scalar(label, value, entry["epoch"])
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
