"""Proof that a killed run loses nothing: one run left alone, and the same one killed and resumed.

Both run in copies of the project, in a temporary folder, with the project's data and caches.
"""

import contextlib
import glob
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import levels
from common.config import LevelConfig
from common.training import checkpoint
from common.training.place import KEEP
from common.utils import paths
from common.utils.errors import UserError
from common.utils.files import read_npz
from common.utils.paths import run_name
from common.utils.processes import Failed, started

log = logging.getLogger("rungs")

CLOCK = {"seconds", "pictures_per_second"}  # what no two runs share


class NotTheSame(UserError):
    """A resumed run that came out otherwise."""

    status = 1


def verify(level: Path, config: LevelConfig, arguments: list[str]) -> None:
    """Run a level whole, then killed between two epochs and resumed; log what is equal.

    Args:
        level: its directory.
        config: its configuration, as read from the arguments.
        arguments: options of its run.py.
    Raises:
        UserError: a run that cannot be.
        NotTheSame: weights, history, figures, predictions or the last state differ.
    """
    if config.train.epochs < 2:
        raise UserError("--verify-resume: a run is killed between two epochs; --train.epochs 2")
    name = run_name(level.name, config.recipe, config.seed)
    with tempfile.TemporaryDirectory(prefix="rungs-") as place:
        whole, killed = (copied(Path(place) / kind, name) for kind in ("whole", "killed"))
        _run(whole, level.name, arguments)
        history = _history(whole, name)
        log.info("%s, whole: %d epochs", name, len(history))
        done = _kill(killed, level.name, name, arguments, history)
        _run(killed, level.name, [*arguments, "--resume"])
        if _history(killed, name)[: len(done)] != done:  # by its times
            raise NotTheSame(f"{name}: the epochs done before the kill were done again")
        first, second = outcome(whole, name), outcome(killed, name)
    for what, digest in first.items():
        same = "equal" if second[what] == digest else "NOT EQUAL"
        log.info("%s: %s (%s, %s)", what, same, digest[:12], second[what][:12])
    if first != second:
        raise NotTheSame(f"{name}: resumed after a kill it came out otherwise")
    log.info("%s: killed and resumed, it is the same to the bit", name)


def _history(project: Path, name: str) -> list[dict]:
    return json.loads((project / "reports" / name / "history.json").read_text("utf-8"))


def copied(place: Path, name: str) -> Path:
    """A copy of the project's code, where other runs than `name` are linked."""
    levels.copy_code(levels.find_levels(), place)
    for other in paths.runs_root().glob("*/*/best.pt"):
        link = place / "runs" / other.parent.relative_to(paths.runs_root())
        if other.parent.name.removesuffix(".new").removesuffix(".old") != name:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(other.parent)
    if (cache := paths.cache_folder()).is_dir():
        (place / "runs").mkdir(exist_ok=True)
        (place / "runs/cache").symlink_to(cache.absolute())
    return place


def outcome(project: Path, name: str) -> dict[str, str]:
    """What a run has left, less its times: a SHA-256 each of weights and reported figures.

    And of the state of training at its end: not all of it need have touched the others by then.
    """
    (best,) = project.glob(f"runs/*/{glob.escape(name)}/best.pt")
    last = checkpoint.load(best.with_name("last.pt"))
    report = project / "reports" / name
    metrics, history = (
        json.loads((report / f"{kind}.json").read_text("utf-8")) for kind in ("metrics", "history")
    )
    figures = {key: metrics[key] for key in ("train", "val", "test", "test_single", "best_epoch")}
    figures["detail"] = {k: v for k, v in metrics["detail"].items() if k not in CLOCK}
    arrays = read_npz(report / "predictions.npz")
    found = {
        "weights": checkpoint.load(best)["network"],
        "history": [{k: v for k, v in epoch.items() if k not in CLOCK} for epoch in history],
        "figures": figures,
        "predictions": {name: values.tobytes() for name, values in arrays.items()},
        "state": {key: last[key] for key in ("network", "optimizer", "scaler", "ema")},
    }
    return {what: checkpoint.digest(values) for what, values in found.items()}


def _run(project: Path, level: str, arguments: list[str]) -> None:
    with _started(project, level, arguments) as run:
        run.wait()


@contextlib.contextmanager
def _started(project: Path, level: str, arguments: list[str]) -> Iterator[subprocess.Popen]:
    """A run in a copy of the project, which does not outlive the block.

    Raises:
        UserError: it has ended by itself, and not well: its own reason.
    """
    command = [sys.executable, str(project / level / "run.py"), *_without_runs(arguments)]
    places = ["--reports", str(project / "reports")]
    # the copy's own modules and runs, whatever the environment says
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {KEEP: "1", paths.VARIABLE: str(project / "runs")}
    try:
        with started([*command, *places], environment=environment) as run:
            yield run
    except Failed as error:
        reason = error.words.replace(" " + " ".join(places), "") or f"exit status {error.code}"
        raise UserError(f"{level}: {reason}") from error


def _without_runs(arguments: list[str]) -> list[str]:
    """The options less `--runs DIR` and `--runs=DIR`."""
    before = ["", *arguments]
    return [
        argument
        for argument, option in zip(arguments, before, strict=False)
        if "--runs" not in (option, argument.partition("=")[0])
    ]


def _kill(
    project: Path, level: str, name: str, arguments: list[str], history: list[dict]
) -> list[dict]:
    """Start a run with this history, and kill it between its first epoch and its last's end.

    Returns:
        The history of the epochs that it had done.
    """
    rest = sum(epoch["seconds"] for epoch in history[1:])
    for _ in range(5):
        for left in project.glob(f"runs/*/{glob.escape(name)}"):  # of a try that came to its end
            shutil.rmtree(left)
        moment = random.uniform(0, rest)
        with _started(project, level, [*arguments, "--anew"]) as run:
            while run.poll() is None and not list(
                project.glob(f"runs/*/{glob.escape(name)}/last.pt")
            ):
                time.sleep(0.01)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(moment)
        (last,) = project.glob(f"runs/*/{glob.escape(name)}/last.pt")
        done = checkpoint.load(last)["history"]
        if len(done) < len(history):
            log.info("killed %.1f s after its first epoch, %d whole epochs done", moment, len(done))
            return done
    raise UserError(f"{level}: too quick to be killed on its way; give it more --train.epochs")
