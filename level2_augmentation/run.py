"""Level 2: augmentation, and partial fine-tuning.

The network is level 1's. Its last stage trains along with the classifier, at a third of its
rate, and sees each picture and its mirror image: what changes is in config.yaml.
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
from common.models import Classifier, StagedNetwork, Trunk, build_backbone
from common.training import fit


def build_network(config: LevelConfig, classes: int) -> StagedNetwork:
    """The pretrained stages, and a linear classifier on the last one's normalised average."""
    backbone = build_backbone(config.network)
    taps = config.network.taps or [list(backbone.stages)[-1]]
    channels = [backbone.channels[tap] for tap in taps]
    head = Classifier(channels, classes, config.network.normalise)
    return StagedNetwork(backbone, head, config.network.trainable, taps)


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
