"""What stops a run, found early and said in one line: no numbers, memory, disk, another run."""

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from common.models import StagedNetwork
from common.utils.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks: runs are not kept apart there
    fcntl = None

log = logging.getLogger("rungs")

SPARE = 2**26  # bytes left free beside what a run writes: logs, reports


class NotFinite(UserError):
    """A loss or gradient that is no number."""


class FiniteSteps:
    """Lets the optimiser take no step with a loss or gradient that is no number.

    On a CPU, `check` raises before such a step. A GPU would have to be waited for each time: there
    `check` hands the fused optimiser a flag, by which it changes nothing from that step on, and
    `look` waits, and raises.

    Args:
        steps: of an epoch.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device, steps: int):
        self.optimizer, self.steps = optimizer, steps
        self.at_once = device.type != "cuda"
        self.first = torch.tensor(-1, device=device)  # the first such step's number; -1: none

    def check(self, value: Tensor, step: int) -> None:
        """Before step number `step` of the run; `value` () is finite if loss and gradient are."""
        self.first = torch.where((self.first < 0) & ~value.isfinite(), step, self.first)
        if self.at_once:
            self.look()
        else:
            self.optimizer.found_inf = (self.first >= 0).float()

    def look(self) -> None:
        """Raise NotFinite where there was such a step."""
        if (step := int(self.first)) >= 0:
            epoch, step = divmod(step, self.steps)
            raise NotFinite(
                f"loss or gradient not finite at epoch {epoch + 1}, step {step + 1}: "
                "lower train.lr or set train.clip_norm"
            )


@contextlib.contextmanager
def explained(batch_size: int) -> Iterator[None]:
    """Turn what training may run into into one line: out of memory, with the batch size to try.

    Likewise what this device cannot compute the same way twice, where that is asked for.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if "does not have a deterministic implementation" in str(error):
            operation = str(error).split()[0]
            raise UserError(
                f"train.deterministic: {operation} has no deterministic way on this device; "
                "leave it out, or choose another network.arch"
            ) from error
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "allocate memory" not in str(error) and "not enough mem" not in str(error):
            raise
        smaller = f"try --train.batch_size {batch_size // 2}"
        hint = smaller if batch_size > 1 else "choose smaller pictures (network.image_size)"
        raise UserError(f"out of memory with batches of {batch_size} pictures: {hint}") from error


def check_room(folder: Path, network: StagedNetwork, averaged: bool = False) -> None:
    """Raise UserError unless the checkpoints of a run find room on the disk.

    There are four at most at a time: the best, the last and the one before it while the next is
    written; these three hold the optimiser's two numbers a parameter that trains, too, and where
    weights are `averaged` a third. What an earlier run has left there is written over.
    """
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    trained = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    last = weights + (3 if averaged else 2) * trained
    there = sum(file.stat().st_size for file in folder.glob("*.pt"))
    need = max(weights + 3 * last - there, last) + SPARE
    free = shutil.disk_usage(folder).free
    if free < need:
        raise UserError(
            f"{folder}: {free / 2**20:,.0f} MiB free, and a run's checkpoints take up to "
            f"{need / 2**20:,.0f} MiB; make room"
        )


def lock(folder: Path) -> None:
    """Keep other processes' runs out of a folder until this one ends, however it ends.

    Nothing in the folder changes: the lock is beside it.

    Raises:
        UserError: another process has it.
    """
    if fcntl is None:
        return
    place = folder.parent / ".locks" / folder.name
    place.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(place, os.O_RDWR | os.O_CREAT)  # open, and so locked, to the end
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
            log.warning("%s: runs cannot be kept apart here (%s)", folder, error.strerror)
            os.close(file)
            return
        other = os.read(file, 20).decode().strip() or "unknown"
        os.close(file)
        raise UserError(
            f"{folder}: another run of this level is at work here (process {other}); wait for it, "
            "or give this one another --seed"
        ) from error
    os.truncate(file, 0)
    os.write(file, f"{os.getpid()}\n".encode())
