"""Runs levels from the command line: a run a seed, then the page over all reports."""

import logging
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from common import cli
from common.config import LevelConfig, load_config
from common.data import cifar, splits
from common.models.weights import weights_file
from common.reports import page
from common.runtime import distributed
from common.training import guards
from common.training.progress import check_unfinished
from common.utils.errors import NoNetwork, UserError
from common.utils.paths import reports_folder, run_name, runs_folder

log = logging.getLogger("rungs")


def run_seeds(main: Callable[[LevelConfig], dict], config: LevelConfig) -> list[dict]:
    """Run a level once for each seed, and log mean and standard deviation of several.

    Raises:
        UserError: among others, no network; it names what helps without one.
    """
    seeds = config.seeds or [config.seed]
    try:
        metrics = [main(config.with_seed(seed)) for seed in seeds]
    except NoNetwork as error:
        places = [cifar.archive_place(config.data), weights_file(config.network)]
        missing = " and ".join(str(p) for p in places if p and not p.is_file())
        hint = "; without a network run with --offline"
        hint += f", or put the missing files in place: {missing}" if missing else ""
        raise UserError(f"{error}{hint}") from error
    if len(seeds) > 1:
        figures = [100 * m["test"]["accuracy"] for m in metrics]
        mean, deviation = statistics.mean(figures), statistics.stdev(figures)
        log.info("%d seeds: test accuracy %.2f +- %.2f %%", len(seeds), mean, deviation)
    return metrics


def check_unfinished_runs(runs: list[tuple[Path, LevelConfig]]) -> None:
    """Raise UserError, before the first of these levels' runs, where one was stopped on its way and
    is neither to be resumed nor to be started anew; or is at work.
    """
    for level, config in runs if distributed.place().first else ():
        for seed in config.seeds or [config.seed]:
            folder = runs_folder(splits.title_of(config.data))
            folder /= run_name(level.name, config.stem, seed)
            if config.resume:
                continue
            try:
                check_unfinished(folder, config.with_seed(seed))
            except UserError:
                guards.lock(folder)  # it may not be finished because it is at work
                raise


def run_level(main: Callable[[LevelConfig], dict], script: str) -> None:
    """The command line of a level's run.py."""
    level = Path(script).resolve().parent

    def run() -> None:
        arguments = sys.argv[1:]
        config = load_config(level / "config.yaml", arguments, prog=f"python {level.name}/run.py")
        check_unfinished_runs([(level, config)])
        metrics = run_seeds(main, config)
        if distributed.place().first:
            write_page(config, metrics)

    cli.command(run, several=True, resumes=True)


def write_page(config: LevelConfig, metrics: list[dict]) -> Path:
    """The page over all reports beside these runs'; its path, which is said."""
    page = page.build(reports_folder(config.reports, metrics[0]["data"]["title"]))
    log.info("page: %s", page)
    return page
