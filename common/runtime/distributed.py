"""Several processes at one run, on one machine or many: what each does, and what they share.

`torchrun` starts them, PyTorch's process group connects them and DistributedDataParallel averages
their gradients. All make the same steps with the same draws, each on its share of every batch; the
first one, of rank 0, writes. A process alone goes the same way, and exchanges nothing.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from common.utils.errors import SharedError, UserError, line
from common.utils.processes import place_in_run

MEETING = timedelta(minutes=10)  # until all have started, and for each step
PATIENCE = timedelta(hours=2)  # for the first process: to decode pictures, to audit, to report

_patient: list[dist.ProcessGroup] = []  # the same processes, by gloo, with that patience


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: this one's number among all.
        world: how many there are.
        local_rank: this one's number among those of its machine.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this one writes, and speaks."""
        return self.rank == 0

    def shard(self, count: int) -> range:
        """Of `count` pictures in order this process's, side by side: no one's are more than the
        first one's, or less by two.
        """
        start, stop = (-(-count * rank // self.world) for rank in (self.rank, self.rank + 1))
        return range(start, stop)

    def rows(self, count: int, least: int) -> list[int] | slice:
        """The rows of a training batch of `count` that this process computes: its part.

        Of a last batch that is too small for all, the part may have less than `least` pictures.
        Then one of them is repeated, or the batch's first is: to be computed with the others, and
        not counted in loss or accuracy. Batch norm that trains does see them.
        """
        part = self.shard(count)
        if len(part) < least and self.world > 1:
            return least * [part[0] if part else 0]
        return slice(part.start, part.stop)

    def all_reduce(self, value: Tensor) -> Tensor:
        """The sum over all processes, to each."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def all_gather(self, part: Tensor, count: int) -> Tensor:
        """Each process's rows `shard(count)` of a table, put together: (count, ...), to each."""
        if self.world == 1:
            return part
        table = part.new_zeros((count, *part.shape[1:]))
        table[self.shard(count).start : self.shard(count).stop] = part
        return self.all_reduce(table)

    def broadcast_object(self, value: Any) -> Any:
        """The first process's plain data and tensors on the CPU, to each."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=_patient[0])
        return box[0]

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with the first process's."""
        for tensor in tensors if self.world > 1 else ():
            packed = tensor.detach().contiguous()  # channels last, for one, is not
            dist.broadcast(packed, src=0)
            tensor.detach().copy_(packed)

    def check_equal(self, facts: dict[str, Any]) -> None:
        """Raise SharedError where another process has other facts: the name is what differs."""
        if self.world == 1:
            return
        others: list[dict] = [{} for _ in range(self.world)]
        dist.all_gather_object(others, facts, group=_patient[0])
        for rank, other in enumerate(others):
            for name, value in others[0].items():
                if other.get(name) != value:
                    raise SharedError(
                        f"processes 0 and {rank} differ in their {name}; give every machine the "
                        "same code, options, pictures and kind of device"
                    )

    def barrier(self) -> None:
        """Until all have come here."""
        if self.world > 1:
            dist.all_reduce(torch.zeros(1), group=_patient[0])

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """For what makes caches: the block on the first process, then on the first of each other
        machine, whose disk may be its own, then on the rest.
        """
        turn = 0 if self.first else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.barrier()
        yield
        for _ in range(turn, 2):
            self.barrier()

    def parallel(
        self, network: nn.Module, function: Callable[..., Tensor]
    ) -> Callable[..., Tensor]:
        """A function of the network whose gradients are averaged over the processes.

        Not all parameters that train need take part in a step. That also keeps the gradients'
        buckets as they are from the first step on, and so the order in which three or more are
        added up: a resumed run's sums are the same to the bit.
        """
        if self.world == 1:
            return function
        return DistributedDataParallel(_Function(network, function), find_unused_parameters=True)


class _Function(nn.Module):
    """A function as the forward of the module whose parameters it uses."""

    def __init__(self, network: nn.Module, function: Callable[..., Tensor]):
        super().__init__()
        self.network, self.function = network, function

    def forward(self, *arguments: Any) -> Tensor:
        """The function's."""
        return self.function(*arguments)


ALONE = Processes()


def place() -> Processes:
    """This process's place among all that torchrun started; it may not have met them yet."""
    return Processes(*place_in_run())


def join(device: str) -> Processes:
    """Meet the other processes, if torchrun started any; on GPUs, each takes its own.

    Args:
        device: as configured: auto, cpu, cuda.
    Raises:
        UserError: fewer GPUs here than processes, a device that they cannot share, or the others
            cannot be reached.
    """
    here = place()
    if here.world == 1:
        return here
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"train.device: several processes take auto, cpu or cuda, not {device}")
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    if gpus:
        count = int(os.environ["LOCAL_WORLD_SIZE"])
        if gpus < count:
            raise UserError(
                f"torchrun: {count} processes here, and {gpus} GPUs; --nproc-per-node {gpus} at "
                "most, or --train.device cpu"
            )
        torch.cuda.set_device(here.local_rank)
    if not dist.is_initialized():
        try:
            backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
            options = {"rank": here.rank, "world_size": here.world, "timeout": MEETING}
            dist.init_process_group(backend, store=_store(), **options)
            _patient[:] = [dist.new_group(backend="gloo", timeout=PATIENCE)]
        except (dist.DistError, RuntimeError) as error:
            text = f"torchrun: the other processes cannot be reached ({line(error)})"
            raise UserError(text) from error
    return here


def _store() -> dist.Store:
    """Where the processes find each other: torchrun's, which is still there when it starts them
    again, and in it the addresses of those that are gone.
    """
    store, _, _ = next(rendezvous("env://", timeout=MEETING))
    store.set_timeout(MEETING)
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:  # else the hosts' counts differ
        store = dist.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    return store


def joined() -> bool:
    """Whether this process has met the others."""
    return dist.is_initialized()


def lost(error: BaseException) -> bool:
    """Whether an error means that another process of the run is gone."""
    words = "gloo", "Connection closed", "Connection reset", "NCCL"
    text = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return dist.is_initialized() and (isinstance(error, dist.DistError) or text)


def leave() -> None:
    """Take leave of the other processes after a run that went well."""
    if dist.is_initialized():
        dist.destroy_process_group()
