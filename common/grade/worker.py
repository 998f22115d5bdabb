"""The process in which a submission's `build_network` runs, for sandbox.py.

It is given the test pictures without their labels and gives back logits. Run as
`python -P -m common.grade.worker FOLDER` with the grader's checkout on PYTHONPATH; request.json and
pictures.npy are there, and logits.npy comes to it.
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
from common.reports.restore import read_settings
from common.runtime import start_runtime
from common.training.checkpoint import completed, load_network, read_checkpoint
from common.utils import paths
from common.utils.errors import UserError


def main() -> None:
    """Read the request, build the level's network, and write its logits, float32 (V, N, C)."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    level, place = Path(request["level"]), Path(request["checkpoint"])
    classes = request["classes"]
    config = read_settings(request["settings"], level.parent, None, None)
    machine = start_runtime(config.train, config.fast)
    weights = describe_weights(config.network)  # ours: pixels are no matter of theirs
    content = completed(read_checkpoint(place), config.network, place)
    pictures = np.load(folder / "pictures.npy", mmap_mode="c", allow_pickle=False)
    count, names = len(pictures), tuple(map(str, range(classes)))
    labels = torch.zeros(count, dtype=torch.int64)
    test = ImageSet(torch.from_numpy(pictures), torch.arange(count), labels, names)

    # `common` stays this checkout's, for it is imported; all else comes from the submission
    own = str(paths.PROJECT)
    others = [place for place in sys.path if place and str(Path(place).resolve()) != own]
    sys.path[:] = [str(level.parent), str(level), *others]
    sys.argv[:] = [str(level / "run.py")]
    network = load_module(level).build_network(config, classes)
    if not isinstance(network, StagedNetwork):
        raise UserError(f"build_network gives {type(network).__name__}, not a StagedNetwork")
    network.to(machine.device, memory_format=torch.channels_last)
    load_network(network, content, place)

    trunk = Trunk(network, machine)
    passes = []
    for view in views(request["tta"]):
        batches = Batches(test, weights, config.train.batch_size, machine, view)
        stream = FeatureBatches(batches, trunk, epochs=1)
        passes.append(predict(network, stream).logits.numpy())
    np.save(folder / "logits.npy", np.stack(passes))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # whatever a submission raises: one line for the grader
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        print(kind + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(1)
