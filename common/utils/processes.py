"""This process among those of its run; and commands in processes of their own."""

import os
import subprocess
from pathlib import Path

from common.utils.errors import UserError

EVERY = 1.0  # seconds between two looks at the memory


def place_in_run() -> tuple[int, int, int]:
    """Rank, number of processes, and rank on this machine, by torchrun's environment variables.

    (0, 1, 0) of a process that torchrun did not start. Imports no torch: commands ask it first.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) < 2:
        return 0, 1, 0
    return tuple(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def run_measured(command: list[str], folder: Path) -> int | None:
    """Run a command to its end.

    Returns:
        The peak of the summed PSS of its process tree in bytes (a page that several share counts
        once); None where the system does not tell.
    Raises:
        UserError: the command ended with status 2, which is a user's error.
        RuntimeError: it failed otherwise.
    """
    peak = None
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while True:
                try:
                    _, errors = process.communicate(timeout=EVERY)
                    break
                except subprocess.TimeoutExpired:
                    now = tree_memory(process.pid)
                    peak = now if peak is None else max(peak, now or 0)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        kind = UserError if process.returncode == 2 else RuntimeError
        raise kind(last.removeprefix("error: "))
    return peak


def tree_memory(pid: int) -> int | None:
    """Summed PSS of a process and all below it, in bytes; None where there is no /proc."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = status.read_text(encoding="utf-8").rpartition(")")[2].split()
        except (OSError, UnicodeDecodeError):  # it has just ended
            continue
        parents.setdefault(int(after_name[1]), []).append(int(status.parent.name))
    total, tree = None, [pid]
    for member in tree:
        tree += parents.get(member, [])
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        total = (total or 0) + sum(1024 * int(x.split()[1]) for x in lines if x.startswith("Pss:"))
    return total
