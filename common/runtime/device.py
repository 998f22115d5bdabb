"""Where and how a run computes: device, precision, seeds; and what must be said to repeat it."""

import contextlib
import ctypes
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from common.config import TrainConfig
from common.runtime.distributed import ALONE, Processes
from common.runtime.small_convolutions import SmallMaps
from common.utils.errors import SharedError, UserError

log = logging.getLogger("rungs")

COMPILERS = "g++", "clang++", "c++", "cl"  # one of which torch.compile needs on a CPU


@dataclass(frozen=True)
class Runtime:
    """The device, and the type that its fast arithmetic is done in (weights stay float32).

    With `fast`, what gives the same result sooner: see models/trunk.py, small_convolutions.py.
    """

    device: torch.device
    dtype: torch.dtype
    fast: bool = True
    compile: bool = False
    processes: Processes = ALONE

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Mixed precision for the block (off where the type is float32), and fast convolutions."""
        mixed = self.dtype != torch.float32
        products = self.fast and not self.compile and self.device.type == "cpu"
        convolutions = SmallMaps() if products else contextlib.nullcontext()
        with torch.autocast(self.device.type, self.dtype, mixed), convolutions:
            yield

    def compiled(self, function: Callable) -> Callable:
        """The function, compiled by torch.compile where the run asks for it."""
        return torch.compile(function, dynamic=False) if self.compile else function

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, which float16's small range needs; disabled for the other types."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def start_runtime(config: TrainConfig, fast: bool = True, processes: Processes = ALONE) -> Runtime:
    """Choose the device and the precision, and set the number of CPU threads.

    Raises:
        UserError: a device that is not there, a precision that the device cannot do, or
            compilation where there is no compiler.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if fast:
        _keep_freed_memory()
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA's first use
    torch.use_deterministic_algorithms(config.deterministic)
    # float32 means float32; TF32 has the bits of float16
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    device = _device(config.device, several=processes.world > 1)
    if config.compile and device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
        raise UserError("train.compile: no C++ compiler here; install g++, or leave it out")
    dtype, compiled = _dtype(config.precision, device), config.compile and fast
    return Runtime(device, dtype, fast, compiled, processes)


def _keep_freed_memory() -> None:
    """Keep what tensors free for the next ones, up to 1 GiB.

    glibc gives blocks of some MiB back to the system at once, and every step would have the system
    clear and map them anew: a tenth of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        trim_threshold, mmap_threshold = -1, -3  # names and numbers of malloc.h
        mallopt(mmap_threshold, 2**25)  # the largest that it takes
        mallopt(trim_threshold, 2**30)


def _device(name: str, several: bool) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        elif torch.backends.mps.is_available() and not several:
            name = "mps"
        else:
            name = "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device).tolist()  # "meta" is made, but cannot be read
    except Exception as error:  # torch's backends that are not here fail in a dozen ways
        raise UserError(f"train.device: no device '{name}' here; try auto or cpu") from error
    return device


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "float16" and device.type == "cpu":
        raise SharedError("train.precision: float16 needs a GPU; on a CPU use bfloat16 or float32")
    if precision != "auto":
        return getattr(torch, precision)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    """AVX-512 bf16 or AMX: without them bfloat16 is emulated, and slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def counter_seed(*counters: int | str) -> int:
    """A 63-bit seed from counters such as (seed, "batch", epoch, step): no state to save."""
    digest = hashlib.sha256(repr(counters).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def free_memory(device: torch.device) -> float:
    """Bytes free on a device (on a CPU: available without swapping)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
