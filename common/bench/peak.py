"""The share of the machine's arithmetic peak that the trunk and the train step reach."""

import copy
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from common.config import LevelConfig
from common.data import ImageSet, Splits
from common.models import Classifier, StagedNetwork, Trunk, build_backbone
from common.runtime import Runtime
from common.training import Trainer

SIDES = 1024, 1536, 2048, 3072, 4096  # of the square products


def shares(config: LevelConfig, runtime: Runtime) -> dict[str, float]:
    """How much of the peak the trunk and the train step reach, on random pictures.

    Returns:
        `peak`: operations a second of the best square matrix product, in the run's precision;
        `trunk_224`: the share that the whole backbone, frozen, reaches at 224 px; `train_64`: that
        of a step at 64 px in which the backbone's last stage and a classifier train, its optimiser
        included. The operations are those of convolutions and linear layers alone.
    """
    peak = matmul_peak(runtime)
    trunk = _trunk(config, runtime, 224, all_frozen=True)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(config.train.batch_size, 3, 224, 224, generator=generator)
    images = images.to(runtime.device, runtime.dtype, memory_format=torch.channels_last)
    work = len(images) * _operations(trunk.network, 224, training=False)
    trunk_rate = work / best_time(lambda: trunk(images), runtime)

    trunk = _trunk(config, runtime, 64, all_frozen=False)
    trainer = _trainer(trunk, config)
    features, targets = next(trainer.train.epoch())
    trunk.network.train()
    work = len(targets) * _operations(trunk.network, 64, training=True)
    step_rate = work / best_time(lambda: trainer.step(0, features, targets), runtime)
    peak = max(peak, matmul_peak(runtime))  # measured before and after: the better one
    return {"peak": peak, "trunk_224": trunk_rate / peak, "train_64": step_rate / peak}


def matmul_peak(runtime: Runtime) -> float:
    """Operations a second of the best square matrix product in the run's precision."""
    rates = []
    for side in SIDES:
        a = torch.randn(side, side, device=runtime.device).to(runtime.dtype)
        rates.append(2 * side**3 / best_time(lambda a=a: a @ a, runtime))
    return max(rates)


def best_time(function: Callable[[], object], runtime: Runtime, times: int = 7) -> float:
    """Seconds of the fastest call, after one that is not counted."""

    def wait() -> None:
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()

    function()
    seconds = []
    for _ in range(times):
        wait()
        started = time.perf_counter()
        function()
        wait()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _operations(network: StagedNetwork, size: int, training: bool) -> float:
    """Multiplications and additions for a picture, as PyTorch counts them in the plain network.

    Of inference, through all frozen stages; of training, what follows them, and back.
    """
    network = copy.deepcopy(network).to("cpu")
    images, counter = torch.zeros(2, 3, size, size), FlopCounterMode(display=False)
    if not training:
        with counter, torch.no_grad():
            network.forward_prefix(images)
    else:
        with torch.no_grad():
            features = network.forward_prefix(images)
        with counter:
            logits = network.forward_suffix(features)
            F.cross_entropy(logits, torch.zeros(2, dtype=torch.int64)).backward()
    return counter.get_total_flops() / len(images)


def _trunk(config: LevelConfig, runtime: Runtime, size: int, all_frozen: bool) -> Trunk:
    """The config's backbone at this size with a classifier, the last stage trained or not."""
    settings = copy.deepcopy(config.network)
    settings.image_size = size
    backbone = build_backbone(settings)
    last = list(backbone.stages)[-1]
    head: nn.Module = Classifier([backbone.channels[last]], 10)
    network = StagedNetwork(backbone, head, ["head"] if all_frozen else [last, "head"], [last])
    return Trunk(network.to(runtime.device, memory_format=torch.channels_last), runtime)


def _trainer(trunk: Trunk, config: LevelConfig) -> Trainer:
    count, generator = config.train.batch_size, torch.Generator().manual_seed(0)
    source = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    part = ImageSet(source, torch.arange(count), torch.arange(count) % 10, tuple("0123456789"))
    facts = {"name": "noise", "title": "noise", "fingerprint": "", "split": "", "mirror": True}
    settings = copy.deepcopy(config)
    settings.augment = []
    return Trainer(trunk.network, Splits(part, part, part, **facts), settings, trunk)
