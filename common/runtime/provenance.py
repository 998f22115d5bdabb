"""What must be said of a run to repeat it: command, commit, machine and versions."""

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psutil
import torch

from common.runtime.device import Runtime
from common.utils import paths
from common.utils.processes import place_in_run

ARITHMETIC = "4"  # a new number whenever the same weights' logits come to be rounded differently
LIBRARIES = "torch", "torchvision", "numpy", "scikit-learn"


def provenance(runtime: Runtime) -> dict:
    """What a report says of its origin: command, commit, machine and versions."""
    return {
        "command": command(),
        "commit": _commit(),
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpu": torch.cuda.get_device_name() if runtime.device.type == "cuda" else None,
            "device": str(runtime.device),
            "precision": runtime.precision,
            "threads": torch.get_num_threads(),
            "processes": runtime.processes.world,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in LIBRARIES},
            "arithmetic": ARITHMETIC,
        },
    }


def command() -> str:
    """The command line as typed, the home folder as ~ and the script relative to the project."""
    script = Path(sys.argv[0]).resolve()
    if script.is_relative_to(paths.PROJECT):
        script = script.relative_to(paths.PROJECT)
    start = str(script)
    if script.parts[0] == "common":
        start = "-m " + ".".join(script.with_suffix("").parts).removesuffix(".__main__")
    return " ".join([_launcher(), start, *(_typed(argument) for argument in sys.argv[1:])])


def _typed(argument: str) -> str:
    """An argument as a shell takes it, a path in the home folder from ~ on."""
    option, equals, value = argument.partition("=")
    shown = paths.tilde(option) + equals + paths.tilde(value)
    # a ~ in quotes is a plain character to a shell: only what needs them gets them
    return shown if shlex.quote(argument) == argument else shlex.quote(shown)


def _launcher() -> str:
    if place_in_run()[1] == 1:
        return "python"
    line = f"torchrun --nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}"
    machines = int(os.environ["GROUP_WORLD_SIZE"])
    return line + (f" --nnodes {machines}" if machines > 1 else "")


def _commit() -> str | None:
    """The checkout's commit, with "+changes" where tracked files differ; None outside git."""

    def git(*arguments: str) -> str:
        line = ["git", "-C", str(paths.PROJECT), *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!reports")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
