"""What a run that was stopped on its way has left, and what the next one does about it."""

from pathlib import Path

from common import checkpoint, runtime
from common.config import LevelConfig, UserError, differences
from common.training import finished


def clear(folder: Path) -> None:
    """Remove the halves of files that a killed run was writing."""
    for leftover in folder.glob("*.part"):
        leftover.unlink()


def check(folder: Path, config: LevelConfig) -> None:
    """Do not write over a run of the same config that was stopped on its way, unasked.

    Raises:
        UserError: there is one; it says how to go on.
    """
    place = folder / "last.pt"
    if config.resume or config.anew or not place.is_file():
        return
    try:
        content = checkpoint.load(place)
    except UserError:  # damaged: nothing to go on from
        return
    history, epochs = content.get("history", []), config.train.epochs
    if differences(content.get("settings", {}), config.settings()):
        return
    if not finished(history, config.train):
        raise UserError(
            f"an unfinished run of this config is in {folder}, after {len(history)} of {epochs} "
            f"epochs: --resume goes on with it ({runtime.command()} --resume), --anew starts over"
        )
