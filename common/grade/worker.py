"""The process in which a submission's `build_network` runs, for `common.replay`.

It is given the test pictures without their labels and gives back logits. Run as
`python -P -m common.grade.worker REQUEST` with the grader's checkout on PYTHONPATH.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from common.data import Batches, ImageSet
from common.evaluation import predict, views
from common.levels import load_module
from common.models import FeatureBatches, StagedNetwork, Trunk
from common.models.weights import describe_weights
from common.reports.readers import read_settings
from common.runtime import start_runtime
from common.training import checkpoint
from common.training.checkpoint import read_checkpoint
from common.utils import paths
from common.utils.errors import UserError


def main() -> None:
    """Read the request, build the level's network, and write its logits, float32 (V, N, C)."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    level, classes = Path(request["level"]), request["classes"]
    config = read_settings(request["settings"], level.parent, *request["paths"])
    machine = start_runtime(config.train, config.fast)
    weights = describe_weights(config.network)  # ours: pixels are no matter of theirs
    content = read_checkpoint(Path(request["checkpoint"]))
    pictures = torch.from_numpy(np.load(request["pictures"], mmap_mode="c", allow_pickle=False))
    count, names = len(pictures), tuple(map(str, range(classes)))
    test = ImageSet(pictures, torch.arange(count), torch.zeros(count, dtype=torch.int64), names)
    output = request["output"]

    # `common` stays this checkout's, for it is imported; all else comes from the submission
    own = str(paths.PROJECT)
    others = [place for place in sys.path if place and str(Path(place).resolve()) != own]
    sys.path[:] = [str(level.parent), str(level), *others]
    sys.argv[:] = [str(level / "run.py")]
    network = load_module(level).build_network(config, classes)
    if not isinstance(network, StagedNetwork):
        raise UserError(f"build_network gives {type(network).__name__}, not a StagedNetwork")
    network.to(machine.device, memory_format=torch.channels_last)
    checkpoint.load_network(network, content, Path(request["checkpoint"]))

    trunk = Trunk(network, machine)
    passes = []
    for view in views(request["tta"]):
        batches = Batches(test, weights, config.train.batch_size, machine, view)
        stream = FeatureBatches(batches, trunk, repeats=False)
        passes.append(predict(network, stream).logits.numpy())
    np.save(output, np.stack(passes))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # whatever a submission raises: one line for the grader
        text = " ".join(str(error).split())
        print(
            text if isinstance(error, UserError) else f"{type(error).__name__}: {text}",
            file=sys.stderr,
        )
        sys.exit(1)
