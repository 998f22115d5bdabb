"""Finds the levels by looking, loads their modules, and runs them from the command line."""

import importlib.util
import logging
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import common.config
from common import data, pretrained
from common.config import LevelConfig, NoNetwork, UserError, nearest
from common.options import load_config

log = logging.getLogger("rungs")


def find_levels(project: Path | None = None) -> list[Path]:
    """The level directories, lowest first: `level<N>_<name>` with a run.py and a config.yaml."""
    project = project or common.config.PROJECT
    found = {}
    for path in project.iterdir():
        number = re.fullmatch(r"level(\d+)_\w+", path.name)
        if number and (path / "run.py").is_file() and (path / "config.yaml").is_file():
            found[int(number.group(1)), path.name] = path
    return [found[key] for key in sorted(found)]


def find_level(name: str, project: Path | None = None) -> Path:
    """A level's directory by its path, its name, or its number ("3").

    Raises:
        UserError: there is none.
    """
    levels = find_levels(project)
    wanted = Path(name).name
    for level in levels:
        if wanted == level.name or re.match(rf"level{re.escape(wanted)}_", level.name):
            return level
    names = [level.name for level in levels]
    raise UserError(
        f"no level '{name}' in {project or common.config.PROJECT}{nearest(wanted, names)}"
    )


def load_module(level: Path) -> ModuleType:
    """A level's run.py as a module, with its `build_network` and `main`."""
    spec = importlib.util.spec_from_file_location(f"{level.name}.run", level / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_seeds(main: Callable[[LevelConfig], dict], config: LevelConfig) -> list[dict]:
    """Run a level once for each seed, and log mean and standard deviation of several.

    Raises:
        UserError: among others, no network; it names what helps without one.
    """
    seeds = config.seeds or [config.seed]
    try:
        metrics = [main(config.with_seed(seed)) for seed in seeds]
    except NoNetwork as error:
        places = [data.archive_place(config.data), pretrained.weights_place(config.network)]
        missing = " and ".join(str(p) for p in places if p and not p.is_file())
        hint = "; without a network run with --offline"
        hint += f", or put the missing files in place: {missing}" if missing else ""
        raise UserError(f"{error}{hint}") from error
    if len(seeds) > 1:
        figures = [100 * m["test"]["accuracy"] for m in metrics]
        mean, deviation = statistics.mean(figures), statistics.stdev(figures)
        log.info("%d seeds: test accuracy %.2f +- %.2f %%", len(seeds), mean, deviation)
    return metrics


def run_level(main: Callable[[LevelConfig], dict], script: str) -> None:
    """The command line of a level's run.py."""
    level = Path(script).resolve().parent

    def run() -> None:
        arguments = sys.argv[1:]
        config = load_config(level / "config.yaml", arguments, prog=f"python {level.name}/run.py")
        run_seeds(main, config)

    command(run)


def command(action: Callable[[], object]) -> None:
    """Run a command: a user's error is one line and status 2, Ctrl-C one line and status 130."""
    if not any(type(h) is logging.StreamHandler for h in log.handlers):
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        action()
    except UserError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume goes on", file=sys.stderr)
        sys.exit(130)
