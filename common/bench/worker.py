"""One timed run of the benchmark, in a process of its own: `python -m common.bench.worker REQUEST`.

The request is a JSON file: level, arguments, pipeline, start (a checkpoint or null), pictures, test
and folder. The answer, seconds and what test found, goes to `folder`/answer.json.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from common import cli, levels
from common.bench.plain import Ways, fit_and_test
from common.config import LevelConfig, load_config
from common.data import Splits, load_splits
from common.evaluation import average_logits, tta_of, views
from common.evaluation.predictions import test_passes
from common.models import StagedNetwork, Trunk, input_size
from common.models.adapt import adapt_batch_norm, pictures_to_adapt
from common.runtime import Runtime, counter_seed, start_runtime
from common.training import checkpoint, fit

PLAIN = {  # each takes one more of our ways than the one before
    "plain": Ways(),
    "data path": Ways(data_path=True),
    "layout": Ways(data_path=True, channels_last=True),
    "precision": Ways(data_path=True, channels_last=True, precision=True),
}
PIPELINES = *PLAIN, "folding", "ours"  # folding: ours, but nothing is kept


class Forgetful(Trunk):
    """A trunk that keeps nothing."""

    def __init__(self, network: StagedNetwork, runtime: Runtime):
        super().__init__(network, runtime)
        self.keeps = False


def main() -> None:
    """Read the request, run the pipeline, and write what it took."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    level, folder = Path(request["level"]), Path(request["folder"])
    config = load_config(level / "config.yaml", request["arguments"])
    machine = start_runtime(config.train, config.fast)
    data = load_data(config, request["test"])
    torch.manual_seed(counter_seed(config.seed, "start"))
    network = levels.load_module(level).build_network(config, len(data.classes))
    if request["start"]:
        start = Path(request["start"])
        content = checkpoint.completed(checkpoint.read_checkpoint(start), config.network, start)
        checkpoint.load_network(network, content, start)
    answer = timed(request["pipeline"], network, data, config, machine, folder)
    answer["picture_bytes"] = data.train.source[:1].nbytes * sum(
        len(part) for part in (data.train, data.val, data.test)
    )
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def load_data(config: LevelConfig, test: int) -> Splits:
    """The config's splits, with the first `test` of its test pictures at most."""
    data = load_splits(config.data, input_size(config.network))
    kept = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:test]
    return replace(data, test=data.test.subset(kept.sort().values))


def timed(
    pipeline: str,
    network: StagedNetwork,
    data: Splits,
    config: LevelConfig,
    machine: Runtime,
    folder: Path,
) -> dict:
    """Train and test by a pipeline: seconds, pictures a second, correct and total of test.

    A picture counts each time that the recipe looks at it, however that is done.
    """
    started, kept = time.perf_counter(), 0
    network.to(machine.device)
    count = pictures_to_adapt(config.network, data)
    if count and not config.network.start_from:  # the recipe begins so, whichever way it is run
        adapt_batch_norm(network, data, count, machine)
    if pipeline in PLAIN:
        ways, machine = PLAIN[pipeline], replace(machine, fast=False, compile=False)
        correct, total = fit_and_test(network, data, config, machine, ways, folder)
    else:
        network.to(machine.device, memory_format=torch.channels_last)
        trunk = (Forgetful if pipeline == "folding" else Trunk)(network, machine)
        fit(network, data, config, trunk, folder)
        score = average_logits(list(test_passes(network, data, config, trunk))).score()
        correct, total = score["correct"], score["total"]
        kept = trunk.kept_bytes
    seconds = time.perf_counter() - started
    passes = config.train.epochs * (len(data.train) + len(data.val))
    passes += len(views(tta_of(config, data))) * len(data.test)
    return {
        "seconds": seconds,
        "pictures_per_second": passes / seconds,
        "correct": correct,
        "total": total,
        "kept_bytes": kept,
    }


if __name__ == "__main__":
    cli.command(main)
