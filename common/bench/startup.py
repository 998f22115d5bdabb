"""What a command takes before its work begins and after it has ended."""

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import levels
from common.utils import paths
from common.utils.processes import Failed, started

REPEATS = 5  # of each answer; the median counts
PICTURES = 12_500  # of the run, a fifth of them val


def measure(options: list[str]) -> str:
    """A table: seconds of quick answers beside `import torch`, and what a run of the lowest level
    spends outside training and evaluation (its start, its report, the page; the audit is off).

    Args:
        options: the run's, as on a level's command line.
    """
    level = levels.find_levels()[0]
    script = str(level / "run.py")
    commands = {
        'python -c "import torch"': ["-c", "import torch"],
        f"python {level.name}/run.py --help": [script, "--help"],
        f"python {level.name}/run.py --trian.epochs 1": [script, "--trian.epochs", "1"],
        f"python {level.name}/run.py --print_config": [script, "--print_config"],
        "python -m common.course --help": ["-m", "common.course", "--help"],
    }
    seconds = {name: [] for name in commands}
    for _ in range(REPEATS):  # in turn, so that a busy moment of the machine meets all alike
        for name, command in commands.items():
            seconds[name].append(_seconds(command))
    lines = [f"{statistics.median(found):6.2f} s  {name}" for name, found in seconds.items()]
    total, inside = _run(level, options)
    lines.append(f"{total:6.2f} s  {level.name} on {PICTURES:,} pictures, of these")
    lines.append(f"{inside:6.2f} s  training and evaluation")
    lines.append(f"{total - inside:6.2f} s  start, report and page")
    return "\n".join(lines)


def _seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    with contextlib.suppress(Failed), started([sys.executable, *command], paths.PROJECT) as child:
        child.wait()
    return time.perf_counter() - begun


def _run(level: Path, options: list[str]) -> tuple[float, float]:
    """Seconds of a whole run, and of its training and evaluation, in a copy of the project.

    A short run goes before it, so that pictures that must be decoded first are.
    """
    with tempfile.TemporaryDirectory(prefix="rungs-") as folder:
        project = Path(folder) / "project"
        levels.copy_code([level], project)
        reports = project / "reports"
        command = [sys.executable, str(project / level.name / "run.py"), *options]
        command += ["--audit", "false", "--anew", "--reports", str(reports)]
        for more in (["--data.limit", "200", "--train.epochs", "1"], ["--data.limit", PICTURES]):
            begun = time.perf_counter()
            environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
            with started([*command, *map(str, more)], environment=environment) as child:
                child.wait()
            total = time.perf_counter() - begun
        metrics = max(reports.glob("*/metrics.json"), key=lambda file: file.stat().st_mtime)
        return total, json.loads(metrics.read_text(encoding="utf-8"))["seconds"]
