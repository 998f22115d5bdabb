"""Level 4: deeper fine-tuning of level 3's network, and flip test-time augmentation.

`network.start_from` in config.yaml names the level whose best checkpoint is the start; one stage
more trains, at two thirds of the rate; and each test picture is seen twice, as it is and mirrored.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # --help and a mistyped option are answered before torch is imported
    from common.cli import level_config

    config = level_config(__file__)

from common.commands import run_level
from common.config import LevelConfig
from common.evaluation import evaluate
from common.experiment import Experiment
from common.models import Trunk
from common.training import fit
from level3_fusion.run import build_network  # the same network, started from its weights


def main(config: LevelConfig) -> dict:
    """Train, choose the epoch on val, score test once, report; returns the report's metrics."""
    run = Experiment(__file__, config)
    network = run.build(build_network)
    run.audit(build_network)
    trunk = Trunk(network, run.runtime)
    history = fit(network, run.data, config, trunk, run.folder)
    results = evaluate(network, run.data, config, trunk)
    return run.report(network, history, results)


if __name__ == "__main__":
    run_level(main, __file__, config)
