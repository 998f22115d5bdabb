"""The command of a level's run.py: one run for each seed, then the pages."""

import logging
from collections.abc import Callable
from pathlib import Path

from common import cli
from common.config import LevelConfig
from common.data import splits
from common.earlier import place_of, result_of
from common.evaluation import statistics
from common.models import check_network, input_size
from common.reports.store import Reports
from common.reports.summary import bare_network, network_summary
from common.runtime import distributed
from common.training import guards
from common.training.place import restarted
from common.training.progress import check_unfinished
from common.utils.errors import NoNetwork, UserError
from common.utils.paths import reports_folder

log = logging.getLogger("rungs")


def run_seeds(main: Callable[[LevelConfig], dict], level: Path, config: LevelConfig) -> list[dict]:
    """Run a level once for each seed, and log mean and standard deviation of several.

    A run that is done is not done again, unless `config.anew`.

    Raises:
        UserError: among others, no network; it names what helps without one.
    """
    seeds = config.seeds or [config.seed]
    try:
        metrics = [_run_or_show(main, level, config.with_seed(seed)) for seed in seeds]
    except NoNetwork as error:
        raise UserError(f"{error}; or run with --offline, which needs no network") from error
    if len(seeds) > 1:
        found = statistics.summarise([100 * m["test"]["accuracy"] for m in metrics])
        log.info("%(n)d seeds: test accuracy %(mean).2f +- %(sd).2f %%", found)
    return metrics


def _run_or_show(main: Callable[[LevelConfig], dict], level: Path, config: LevelConfig) -> dict:
    check_network(config.network)  # before processes have met: what is wrong is said by one
    processes = distributed.join(config.train.device)
    done = _shown(level, config) if processes.first else None
    return processes.broadcast_object(done) or main(config)


def _shown(level: Path, config: LevelConfig) -> dict | None:
    """The metrics of a run that is done, which is said; None of one to be run."""
    place = place_of(level, config)
    if place.unsettled:
        guards.lock(place.folder)
        place.settle()
    metrics, why = result_of(level, config, place)
    if metrics:
        accuracy, when = 100 * metrics["test"]["accuracy"], place.done()["when"]
        words = "%s: done %s, %.2f %% on test; --anew runs it again"
        log.info(words, place.folder.name, when, accuracy)
    elif why:
        log.info("%s: trained again: %s", place.folder.name, why)
    return metrics


def check_unfinished_runs(runs: list[tuple[Path, LevelConfig]]) -> None:
    """Raise UserError, before the first of these levels' runs, where one was stopped on its way and
    is neither to be resumed nor to be started anew; or is at work.
    """
    anew = [(level, config) for level, config in runs if not config.resume]
    for level, config in anew if distributed.place().first else ():
        for seed in config.seeds or [config.seed]:
            place = place_of(level, config.with_seed(seed))
            folder = place.work
            if restarted(folder):  # the run that it goes on with
                continue
            try:
                check_unfinished(folder, config.with_seed(seed))
            except UserError:
                guards.lock(place.folder)  # it may not be finished because it is at work
                raise


def run_level(main: Callable[[LevelConfig], dict], script: str, config: LevelConfig) -> None:
    """The command of a level's run.py, once its command line is read."""
    level = Path(script).resolve().parent

    def run() -> None:
        if config.summary:
            return print_summary(level, config)
        check_unfinished_runs([(level, config)])
        metrics = run_seeds(main, level, config)
        if distributed.place().first:
            log.info("page: %s", write_pages(config, metrics)[1])

    cli.command(run, several=True, resumes=True)


def print_summary(level: Path, config: LevelConfig) -> None:
    """Print a level's network stage by stage; of data and weights nothing is read."""
    network = bare_network(level, config, splits.count_classes(config.data))
    if distributed.place().first:
        print(network_summary(network, input_size(config.network)))


def write_pages(config: LevelConfig, metrics: list[dict]) -> tuple[str, Path]:
    """The ladder and the page over all reports beside these runs', once a command.

    Returns:
        The ladder's table as text; the page's path.
    """
    from common.reports.page import build_page  # plotting libraries: not before the last epoch

    folder = reports_folder(config.reports, metrics[0]["data"]["title"], config.given)
    return build_page(Reports.read(folder))
