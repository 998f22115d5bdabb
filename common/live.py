"""A live view of a run: each epoch's figures, to TensorBoard."""

from pathlib import Path

from common.utils.errors import UserError


class Live:
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
