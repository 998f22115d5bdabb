"""Commands in processes of their own: what is left of them, and what they say."""

import contextlib
import subprocess
import sys
import time

import psutil
import pytest

from common.utils.errors import UserError
from common.utils.processes import Failed, started

# starts a process in its own group and one that leaves it, says their numbers, and goes on as told
PARENT = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
pids = [subprocess.Popen(sleep, start_new_session=own).pid for own in (False, True)]
print(*pids, file=open("pids.part", "w"), flush=True)
import os; os.rename("pids.part", "pids")
"""


def alive(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def gone(pids):
    """Within a while: what was killed may take its time to go."""
    end = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_nothing_outlives_the_block(tmp_path):
    with started([sys.executable, "-c", PARENT + "time.sleep(600)"], tmp_path) as process:
        while not (tmp_path / "pids").exists():
            assert process.poll() is None
            time.sleep(0.05)
        pids = [process.pid, *map(int, (tmp_path / "pids").read_text().split())]
        assert all(map(alive, pids))
    assert gone(pids)


def test_what_a_command_leaves_behind_ends_with_it(tmp_path):
    with started([sys.executable, "-c", PARENT], tmp_path) as process:
        process.wait()
    inside, outside = map(int, (tmp_path / "pids").read_text().split())
    assert gone([inside])
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(outside).kill()  # whoever leaves group and parent is nobody's any more


def test_too_slow_and_stopped_from_without(tmp_path):
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(subprocess.TimeoutExpired), started(sleep, tmp_path) as process:
        process.wait(0.2)
    assert process.returncode < 0
    with started(sleep) as process:  # ended by us: that is no failure
        pass
    assert process.returncode < 0


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('first\\nerror: no room\\n \\n')", "error: no room"),
        ("raise SystemExit(1)", "no word"),
        ("import sys; sys.stderr.write('x' * 10**6); sys.exit(1)", "x" * 300),
        ("import sys; sys.stderr.buffer.write(b'\\xff\\x1b[2J'); sys.exit(1)", "\ufffd?[2J"),
    ],
)
def test_the_last_words_of_a_failure(code, said):
    with pytest.raises(UserError) as failure, started([sys.executable, "-c", code]) as process:
        process.wait()
    assert str(failure.value) == f"it ended with status 1: {said}"
    assert isinstance(failure.value, Failed) and failure.value.code == 1
