"""This process among those of its run; and commands in processes of their own."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from common.utils.errors import UserError

EVERY = 1.0  # seconds between two looks at the memory


def place_in_run() -> tuple[int, int, int]:
    """Rank, number of processes, and rank on this machine, by torchrun's environment variables.

    (0, 1, 0) of a process that torchrun did not start. Imports no torch: commands ask it first.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) < 2:
        return 0, 1, 0
    return tuple(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def launch() -> str:
    """By which this start of torchrun is known from another, and its restarts are not; "" without
    it.
    """
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{run} {os.getppid()}" if run else ""


class Failed(UserError):
    """A command that ended badly by itself: its exit code, and the last line of its stderr."""

    def __init__(self, code: int, words: str):
        super().__init__(f"it ended with status {code}: {words[:300] or 'no word'}")
        self.code, self.words = code, words.removeprefix("error: ")


@contextlib.contextmanager
def started(
    command: list[str], folder: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    """Start a command, of which nothing outlives the block, in a group and a session of its own.

    Args:
        folder: where it runs (default: where we do).
        environment: all of its variables (default: ours).
    Raises:
        Failed: at the block's end, where the command has ended by then, and not well.
    """
    with tempfile.TemporaryFile() as errors:  # no pipe, which whoever it starts could keep open
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        try:
            yield process
            code = process.poll()
        finally:
            _kill(process)
        if code:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
            lines = errors.read().decode("utf-8", "replace").split("\n")
            raise Failed(code, next((line.strip() for line in lines[::-1] if line.strip()), ""))


def _kill(process: subprocess.Popen) -> None:
    """End a process with all that it has started, also what it has left behind in its group."""
    if process.poll() is None:  # else its number may be another's by now
        with contextlib.suppress(psutil.NoSuchProcess):
            for below in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    below.kill()
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):  # none left
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def run_measured(command: list[str], folder: Path) -> int | None:
    """Run a command to its end.

    Returns:
        The peak of the summed PSS of its process tree in bytes (a page that several share counts
        once); None where the system does not tell.
    Raises:
        UserError: the command ended with status 2, which is a user's error.
        RuntimeError: it failed otherwise.
    """
    found = []
    try:
        with started(command, folder) as process:
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(EVERY)
                found.append(tree_memory(process.pid))
    except Failed as error:
        kind = UserError if error.code == 2 else RuntimeError
        raise kind(error.words or "no message") from None
    return max(filter(None, found), default=None)


def tree_memory(pid: int) -> int | None:
    """Summed PSS of a process and all below it, in bytes; None where the system does not tell."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it has just ended
                found.append(getattr(process.memory_full_info(), "pss", None))
    return sum(filter(None, found)) or None
