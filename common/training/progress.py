"""How far a run has come: its history, and the checkpoints that it goes on from."""

import contextlib
import functools
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.config import LevelConfig, TrainConfig
from common.config.schema import differences
from common.data import Splits
from common.evaluation import tta_of
from common.models import StagedNetwork
from common.models.weights import not_finite
from common.runtime import Runtime, command
from common.training import checkpoint
from common.training.checkpoint import read_checkpoint
from common.training.ema import EMA
from common.utils.errors import UserError
from common.utils.files import write_whole

log = logging.getLogger("rungs")

FACTS = {  # of a checkpoint, that a run must share to go on from it; what reports call them
    "fingerprint": "pictures",
    "split": "split",
    "weights": "weights",
    "start": "start (another level's checkpoint, or batch norm's statistics)",
}
NEEDED = {"network": dict, "settings": dict, "history": list}  # to go on from
NEEDED |= {"optimizer": dict, "scaler": dict, "ema": dict}
EPOCH = {"epoch": int, "val_accuracy": float, "val_loss": float}

_checked: dict[Path, dict[str, Any]] = {}  # last.pt, from the check of a start to its resumption


def best_epoch(history: list[dict]) -> dict | None:
    """The epoch with the highest val accuracy, the earliest of several; None of none."""
    return max(history, key=lambda entry: (entry["val_accuracy"], -entry["epoch"]), default=None)


def finished(history: list[dict], config: TrainConfig) -> bool:
    """Whether a run has all its epochs, or stopped early after these."""
    best, patience = best_epoch(history), config.early_stopping
    waited = best and patience and len(history) - best["epoch"] >= patience
    return len(history) >= config.epochs or bool(waited)


def log_epoch(entry: dict, epochs: int) -> None:
    """Say how an epoch went."""
    line = "epoch {epoch}/{epochs}: train loss {train_loss:.3f}, accuracy {train_accuracy:.1%};"
    line += " val loss {val_loss:.3f}, accuracy {val_accuracy:.1%}; {seconds:.0f} s"
    log.info(line.format(epochs=epochs, **entry))


def check_same(path: Path, content: dict[str, Any], own: dict[str, Any]) -> None:
    """Raise UserError where a run's facts are not those that a checkpoint was made with."""
    differing = differences(content["settings"], own["settings"]) or [
        what for fact, what in FACTS.items() if fact in own and content.get(fact) != own[fact]
    ]
    if differing:
        raise UserError(
            f"{path}: made with other {', '.join(differing)}; change back what differs, "
            "or give --anew instead of --resume to start over"
        )


@dataclass
class Progress:
    """What a checkpoint holds of a run. The first of several processes writes it, and reads it."""

    network: StagedNetwork
    data: Splits
    config: LevelConfig
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: EMA
    runtime: Runtime

    def __post_init__(self):
        self.processes = self.runtime.processes

    @functools.cached_property
    def left_out(self) -> set[str]:
        """Names of the tensors that best.pt leaves to the starting weights."""
        return checkpoint.as_in_weights(self.network, self.config.network)

    def save(self, history: list[dict], folder: Path) -> None:
        """Keep an epoch, the last of the history: `last.pt`, and `best.pt` where it is the best.

        Whoever is stopped between them makes up for the rest in `resume`.
        """
        if not self.processes.first:
            return
        state = self._state(
            history=history,
            # what else the next epoch needs: the randomness comes from counters
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            ema=self.ema.state(),
        )
        checkpoint.save(folder / "last.pt", state, keep=True)
        self._keep_best(history, folder)
        _write_history(history, folder)

    def _keep_best(self, history: list[dict], folder: Path) -> None:
        if best_epoch(history)["epoch"] == len(history):
            with self.ema.in_place():
                state = self._state(epoch=len(history), as_in_weights=sorted(self.left_out))
                state["network"] = checkpoint.without_start(
                    self.network, self.left_out, self.runtime.dtype
                )
                checkpoint.save(folder / "best.pt", state)

    def resume(self, path: Path) -> list[dict]:
        """Go on from a checkpoint of the same settings; its history, empty where there is none.

        Raises:
            UserError: a checkpoint that is damaged, or another config's.
        """
        content = _checked.pop(path, None) if path.exists() else None
        if content is None and self.processes.first and path.exists():
            content = checkpoint.load(path)
        content = self.processes.broadcast_object(content)
        if content is None:
            log.info("nothing to resume at %s: starting anew", path)
            return []
        check_same(path, content, self._state())
        checkpoint.load_network(self.network, content, path)
        try:
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            self.ema.load(content["ema"])
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise UserError(
                f"{path}: its optimiser's state is not this run's ({type(error).__name__}: "
                f"{str(error)[:200]}); put last.pt back, or start the run over with --anew"
            ) from error
        history = content["history"]
        if self.processes.first:
            self._keep_best(history, path.parent)
            _write_history(history, path.parent)
        log.info("resumed after epoch %d", len(history))
        return history

    def load_best(self, path: Path, history: list[dict]) -> None:
        """Put the weights of the history's best epoch into the network.

        Raises:
            UserError: the file holds another run's, or another epoch's.
        """
        content = self.processes.broadcast_object(
            read_checkpoint(path) if self.processes.first else None
        )
        check_same(path, content, self._state())
        epoch, best = content["epoch"], best_epoch(history)["epoch"]
        if epoch != best:
            raise UserError(
                f"{path}: holds epoch {epoch}, and the run's best is {best}; put that one's back, "
                "or start the run over with --anew"
            )
        own = self.network.state_dict()
        rest = {key: own[key] for key in content["as_in_weights"] if key in own}
        content["network"] = rest | content["network"]
        checkpoint.load_network(self.network, content, path)

    def _state(self, **more: Any) -> dict[str, Any]:
        """A checkpoint: the network, and the facts that a later user of it must check."""
        facts = {
            "fingerprint": self.data.fingerprint,
            "split": self.data.split,
            "weights": self.network.weights.sha256,
            "start": self.network.start,
            "adapted": self.network.adapted,
            "seed": self.config.seed,
            "settings": self.config.settings(),
            "classes": list(self.data.classes),
            "image_size": self.network.weights.image_size,
            "stored_size": self.data.train.source.shape[-1],
            "tta": tta_of(self.config, self.data),
        }
        return {"network": self.network.state_dict(), **facts, **more}


def _write_history(history: list[dict], folder: Path) -> None:
    write_whole(folder / "history.json", json.dumps(history, indent=2))


# ---- before anything trains ----


def check_unfinished(folder: Path, config: LevelConfig) -> None:
    """Do not write over a run of the same config that was stopped on its way, unasked.

    Raises:
        UserError: there is one; it says how to go on.
    """
    place = folder / "last.pt"
    if config.anew or not place.is_file():
        return
    try:
        history = _begun(place, config)
    except checkpoint.Damaged as error:  # with the one before it, the run may go on
        before = checkpoint.previous(place)
        with contextlib.suppress(checkpoint.Damaged):
            if before.is_file() and _begun(before, config):
                raise UserError(f"{error}; --anew starts over") from error
        return
    if history and not finished(history, config.train):
        raise UserError(
            f"an unfinished run of this config is in {folder}, after {len(history)} of "
            f"{config.train.epochs} epochs: --resume goes on with it "
            f"({command()} --resume), --anew starts over"
        )


def check_resumable(folder: Path, config: LevelConfig, data: Splits) -> None:
    """Raise UserError where training cannot go on from what is there.

    What was read is kept until `Progress.resume` asks for it.
    """
    place = folder / "last.pt"
    _checked.clear()
    if not place.exists():
        return
    content = checkpoint.load(place)
    if not _whole(content) or not_finite(content["network"]):
        raise UserError(
            f"{place}: not a checkpoint that training goes on from, as a best.pt or one with NaN "
            "in its weights; put last.pt back, or give --anew instead of --resume to start over"
        )
    own = {"settings": config.settings(), "fingerprint": data.fingerprint, "split": data.split}
    check_same(place, content, own)
    _checked[place] = content


def resumed(place: Path) -> dict[str, Any] | None:
    """What is in the last.pt that `Progress.resume` will go on from, if it will."""
    return _checked.get(place)


def _begun(place: Path, config: LevelConfig) -> list[dict]:
    """The history in a checkpoint of this config that training can go on from; else empty."""
    settings, history = _outline(place, place.stat().st_ctime_ns)
    return [] if differences(settings, config.settings()) else history


@functools.cache
def _outline(place: Path, written: int) -> tuple[dict[str, Any], list[dict]]:
    """A checkpoint's settings and history, empty where training cannot go on from it.

    Kept by its time of writing: a command looks at all its runs, then each run at its own.
    """
    content = checkpoint.load(place)
    return (content["settings"], content["history"]) if _whole(content) else ({}, [])


def _whole(content: dict[str, Any]) -> bool:
    """Whether a checkpoint holds all that training goes on from."""
    return (
        _holds(content, NEEDED)
        and content["history"] != []
        and all(_holds(entry, EPOCH) for entry in content["history"])
        and {"state", "param_groups"} <= content["optimizer"].keys()
    )


def _holds(content: Any, kinds: dict[str, type]) -> bool:
    """Whether it is a dict with values of these types."""
    return isinstance(content, dict) and all(
        isinstance(content.get(k), t) for k, t in kinds.items()
    )
