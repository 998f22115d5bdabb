"""Batch norm's statistics estimated anew on the pictures at hand, before anything trains.

Pretrained statistics belong to the pictures of pretraining. Li et al., 2016,
https://arxiv.org/abs/1603.04779: those of the new pictures are better where the two differ much,
as in size or sharpness. Where they differ little, the old ones, of a million pictures, are.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from common.config import NetworkConfig
from common.data import Batches, Splits
from common.models.staged import Features, StagedNetwork, batch_norms
from common.runtime import Runtime
from common.runtime.distributed import ALONE

STATISTICS = "running_mean", "running_var", "num_batches_tracked"
BATCH = 128  # pictures whose mean and variance are taken together

# What `auto` is: pictures, by weights. Chosen once, on val; reports/LOG.md has the figures.
AUTO = {"tiny-imagenet": 7680}


def pictures_to_adapt(config: NetworkConfig, data: Splits) -> int:
    """How many training pictures batch norm's statistics are estimated on; 0: not at all."""
    asked = config.adapt_batch_norm
    asked = AUTO.get(config.weights, 0) if asked == "auto" else asked
    return min(asked, len(data.train))


@torch.no_grad()
def adapt_batch_norm(
    network: StagedNetwork, data: Splits, count: int, runtime: Runtime
) -> dict[str, Tensor]:
    """Estimate the statistics of all stages' batch norm on `count` training pictures, unaugmented.

    A fixed function of weights, pictures and input size: which pictures is drawn once, whatever the
    run's seed, and it computes in float32.

    Returns:
        The new statistics, by their names in the network's state dict.
    """
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
    some = data.train.subset(order[:count].sort().values)
    norms = [norm for norm in batch_norms(network.stages) if norm.track_running_stats]
    momenta, was_training = [norm.momentum for norm in norms], network.training
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    exact, seen = replace(runtime, dtype=torch.float32, processes=ALONE), 0
    for images, _ in Batches(some, network.weights, BATCH, exact).epoch():
        seen += len(images)
        for norm in norms:
            norm.momentum = len(images) / seen  # each picture counts alike: the last batch is short
        network.run(Features(images, {}), list(network.stages))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)
    return batch_norm_statistics(network)


def batch_norm_statistics(network: nn.Module) -> dict[str, Tensor]:
    """What batch norm has estimated, of all stages: names and values of the state dict."""
    state = network.state_dict().items()
    return {key: x for key, x in state if key.startswith("stages.") and key.endswith(STATISTICS)}
