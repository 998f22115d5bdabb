"""Level 3: a head that fuses three depths.

layer4 says what a picture shows, layer3 and layer2 keep finer parts of it. The head leads those
down to layer4 by two blocks of its own. All else is level 2's, so that this level's gain is the
head's.
"""

import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":  # --help and a mistyped option are answered before torch is imported
    from common.cli import level_config

    config = level_config(__file__)

from common.commands import run_level
from common.config import LevelConfig
from common.evaluation import evaluate
from common.experiment import Experiment
from common.models import StagedNetwork, Trunk, as_map, build_backbone
from common.models.backbones import check_stages
from common.training import fit
from level2_augmentation.run import build_network as level2_network
from level3_fusion.fusion_head import FusionHead, way_down


def build_network(config: LevelConfig, classes: int) -> StagedNetwork:
    """The pretrained stages, and a head on the outputs of layer2, layer3 and layer4.

    With a single tap there is nothing to fuse: that is level 2's network.
    """
    taps = config.network.taps or ["layer2", "layer3", "layer4"]
    if len(set(taps)) == 1:
        return level2_network(config, classes)
    backbone = build_backbone(config.network)
    check_stages("taps", taps, backbone.stages)
    taps = [stage for stage in backbone.stages if stage in taps]  # the shallowest first
    blocks = [way_down(backbone, upper, lower) for upper, lower in pairwise(taps)]
    head = FusionHead(blocks, backbone.channels[taps[-1]], classes, config.network.normalise)
    return StagedNetwork(backbone, head, config.network.trainable, taps, as_map)


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
