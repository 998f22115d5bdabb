"""A learning rate for a level: its loss while the rate grows from step to step.

    python -m common.find_lr LEVEL                 # a path, a name, or a number
    python -m common.find_lr 3 --offline

Further options are those of the level's run.py. Writes find_lr.svg into a run folder of its own,
and trains nothing that is kept. Smith, 2017, https://arxiv.org/abs/1506.01186.
"""

import itertools
import logging
from typing import TYPE_CHECKING

import numpy as np

from common import cli, levels
from common.config import LevelConfig, load_config
from common.utils.errors import UserError

if TYPE_CHECKING:
    from common.training import Trainer

log = logging.getLogger("rungs")

LOW, HIGH, STEPS = 1e-6, 1.0, 150
SMOOTH = 0.9  # share of the running mean of the loss that a step keeps


def main() -> None:
    """Find a rate for the level named first on the command line."""
    parser = cli.Parser("find_lr", __doc__, "LEVEL [its options]")
    named, _, options = parser.parse_before_levels()
    if len(named) != 1:
        raise UserError("name a level: python -m common.find_lr LEVEL [its options]")
    level = levels.find_level(*named)
    config = load_config(level / "config.yaml", options, prog=parser.prog)
    build_network = levels.load_function(level, "build_network")

    from common.experiment import Experiment
    from common.models import Trunk
    from common.reports.figures import charts
    from common.reports.figures.style import svg
    from common.training import Trainer
    from common.utils.files import write_whole

    config.train.schedule, config.audit, config.resume = "constant", False, False
    config.train.head_lr = None  # one rate for all
    config.recipe = "find_lr"  # a folder of its own: the level's runs stay
    config.file = config.file.with_name("find_lr.yaml")  # after which an earlier sweep is renamed
    configured = config.train.lr
    run = Experiment(level / "run.py", config)
    network = run.build(build_network)
    run.audit(build_network)  # off: the run begins
    rates, losses = sweep(Trainer(network, run.data, config, Trunk(network, run.runtime)), config)
    rate = suggest(rates, losses)
    place = run.folder / "find_lr.svg"
    write_whole(place, svg(charts.learning_rates(rates, losses, rate, configured)))
    log.info("a rate to try: %.1e (the config has %.1e); curve: %s", rate, configured, place)


def sweep(trainer: "Trainer", config: LevelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Rates (n,) and smoothed losses (n,), until the loss is four times its least or no number."""
    from common.training.guards import NotFinite

    epochs = itertools.chain.from_iterable(map(trainer.train.epoch, itertools.count(1)))
    rates, losses, mean = [], [], 0.0
    trainer.network.train()
    for step, (features, targets) in zip(range(STEPS), epochs, strict=False):
        config.train.lr = LOW * (HIGH / LOW) ** (step / (STEPS - 1))
        try:
            loss = float(trainer.step(step, features, targets)[0])
            trainer.finite.look()
        except NotFinite:
            break
        mean = SMOOTH * mean + (1 - SMOOTH) * loss
        smoothed = mean / (1 - SMOOTH ** (step + 1))  # without the zero that it began with
        if smoothed > 4 * min([*losses, smoothed]):
            break
        rates.append(config.train.lr)
        losses.append(smoothed)
    return np.array(rates), np.array(losses)


def suggest(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate at which the loss falls steepest, over the rate's logarithm.

    Raises:
        UserError: the loss never falls.
    """
    if len(rates) < 3:
        raise UserError("the loss grows from the first step: the network cannot be trained so")
    slopes = np.gradient(losses, np.log(rates))
    if slopes.min() >= 0:
        raise UserError(f"the loss falls at no rate from {LOW:g} to {HIGH:g}: nothing learns here")
    return float(rates[slopes.argmin()])


if __name__ == "__main__":
    cli.command(main)
