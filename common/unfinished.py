"""What a run that was stopped on its way has left, and what the next one does about it."""

import contextlib
from pathlib import Path
from typing import Any

from common import checkpoint
from common.config import LevelConfig
from common.config.schema import differences
from common.data import Splits
from common.models import weights
from common.progress import check_same, finished
from common.runtime import command
from common.utils.errors import UserError

# what training goes on from
NEEDED = {"network": dict, "settings": dict, "history": list}
NEEDED |= {"optimizer": dict, "scaler": dict, "average": dict}
EPOCH = {"epoch": int, "val_accuracy": float, "val_loss": float}


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
    if config.anew or not place.is_file():
        return
    try:
        content = checkpoint.load(place)
    except checkpoint.Damaged as error:  # with the one before it, the run may go on
        before = checkpoint.previous(place)
        with contextlib.suppress(checkpoint.Damaged):
            if before.is_file() and _of_this(checkpoint.load(before), config):
                raise UserError(f"{error}; --anew starts over") from error
        return
    history = content.get("history")
    if _of_this(content, config) and _whole(content) and not finished(history, config.train):
        raise UserError(
            f"an unfinished run of this config is in {folder}, after {len(history)} of "
            f"{config.train.epochs} epochs: --resume goes on with it "
            f"({command()} --resume), --anew starts over"
        )


def _of_this(content: dict[str, Any], config: LevelConfig) -> bool:
    """Whether a checkpoint is of a run of this config."""
    settings = content.get("settings")
    return isinstance(settings, dict) and not differences(settings, config.settings())


def _whole(content: dict[str, Any]) -> bool:
    """Whether a checkpoint holds all that training goes on from."""
    if not all(isinstance(content.get(key), kind) for key, kind in NEEDED.items()):
        return False
    epochs = all(
        isinstance(entry, dict) and all(isinstance(entry.get(k), t) for k, t in EPOCH.items())
        for entry in content["history"]
    )
    optimizer = {"state", "param_groups"} <= content["optimizer"].keys()
    return epochs and optimizer and bool(content["history"])


def check_resumable(folder: Path, config: LevelConfig, data: Splits) -> None:
    """Raise UserError where training cannot go on from what is there, before it is begun."""
    place = folder / "last.pt"
    if not place.exists():
        return
    content = checkpoint.load(place)
    if not _whole(content) or weights.not_finite(content["network"]):
        raise UserError(
            f"{place}: not a checkpoint that training goes on from, as a best.pt or one with NaN "
            "in its weights; put last.pt back, or give --anew instead of --resume to start over"
        )
    own = {"settings": config.settings(), "fingerprint": data.fingerprint, "split": data.split}
    check_same(place, content, own)
