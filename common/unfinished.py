"""What a run that was stopped on its way has left, and what the next one does about it."""

from pathlib import Path

from common import checkpoint, runtime
from common.config import LevelConfig, UserError, differences
from common.data import Splits
from common.progress import check_same, finished

# what training goes on from
NEEDED = {"network": dict, "settings": dict, "history": list, "optimizer": dict, "scaler": dict}


def clear(folder: Path) -> None:
    """Remove the halves of files that a killed run was writing."""
    for leftover in folder.glob("*.part"):
        leftover.unlink()


def check(folder: Path, config: LevelConfig, data: Splits) -> None:
    """Do not write over a run of the same config that was stopped on its way, unasked.

    Raises:
        UserError: there is one; it says how to go on. Or it is to be resumed, and cannot be.
    """
    place = folder / "last.pt"
    if config.resume and place.exists():
        _check_resumable(place, config, data)
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


def _check_resumable(place: Path, config: LevelConfig, data: Splits) -> None:
    """Raise UserError where training cannot go on from a checkpoint, before anything is written."""
    content = checkpoint.load(place)
    whole = all(isinstance(content.get(key), kind) for key, kind in NEEDED.items())
    if not whole or checkpoint.not_finite(content["network"]):
        raise UserError(
            f"{place}: not a checkpoint that training goes on from, as a best.pt or one with NaN "
            "in its weights; put last.pt back, or run without --resume to start anew"
        )
    own = {"settings": config.settings(), "fingerprint": data.fingerprint, "split": data.split}
    check_same(place, content, own)
