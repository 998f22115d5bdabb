"""What the audit's checks look at: a level's own network, data and trainer, few and small.

Everything here goes through the code that a run goes through, in float32, on at most 64 pictures
at the smallest size that networks accept. What a check compares it with is computed apart from it.
"""

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth
from torchvision.transforms import functional as tv

from common.config import LevelConfig
from common.data import ImageSet, Splits
from common.data.splits import in_turn
from common.models import StagedNetwork, Trunk
from common.runtime import Runtime, counter_seed
from common.training import Trainer, fit, guards
from common.utils.errors import UserError, line

SIZE = 32  # pixels: the smallest input that is accepted
COUNTS = {"train": 60, "val": 27, "test": 27}  # pictures; their last batches are short
BATCH = 16

# RGB in [0, 1] that published weights were trained on; kept apart from the run's own on purpose
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Finding:
    """One check's outcome, in words."""

    check: str
    passed: bool
    expected: str
    seen: str
    cause: str  # what usually makes it fail

    def line(self) -> str:
        """The line that the audit prints."""
        text = f"{'ok  ' if self.passed else 'FAIL'} {self.check}: expected {self.expected}"
        text += f"; seen {self.seen}"
        return text if self.passed else f"{text}; usual cause: {self.cause}"


Check = Callable[["AuditContext"], Finding]


def check(name: str, cause: str) -> Callable[[Callable], Check]:
    """Make a check of a function that takes a context and returns (passed, expected, seen)."""

    def wrap(function: Callable[["AuditContext"], tuple[bool, str, str]]) -> Check:
        @wraps(function)
        def run(context: "AuditContext") -> Finding:
            try:
                with guards.explained(BATCH):
                    passed, expected, seen = function(context)
            except UserError:
                raise
            except Exception as error:  # a bug may raise anything; that is a finding too
                passed, expected = False, "no error"
                seen = f"{type(error).__name__}: {line(error)}"
            return Finding(name, bool(passed), expected, seen, cause)

        run.check = name
        return run

    return wrap


class AuditContext:
    """A level as the checks see it.

    Args:
        config: the level's; a copy is made small.
        build_network: the level's own.
        data: the whole data, of which a few pictures are used.
    """

    def __init__(
        self,
        config: LevelConfig,
        build_network: Callable[[LevelConfig, int], StagedNetwork],
        data: Splits,
        runtime: Runtime,
    ):
        self.config = copy.deepcopy(config)
        self.config.network.image_size = SIZE
        self.config.train.batch_size = BATCH
        self.config.resume = False
        self.runtime = Runtime(runtime.device, torch.float32, runtime.fast)
        self.whole, self.data = data, _few(data)
        self.build_network = build_network
        self._built: dict[int, StagedNetwork] = {}

    def network(self, size: int = SIZE) -> StagedNetwork:
        """A network of its own for each caller, for pictures of this size, with a fresh head."""
        if size not in self._built:
            torch.manual_seed(counter_seed(self.config.seed, "audit"))
            config = copy.deepcopy(self.config)
            config.network.image_size = size
            built = self.build_network(config, len(self.data.classes))
            self._built[size] = built.to(self.runtime.device, memory_format=torch.channels_last)
        return copy.deepcopy(self._built[size])

    def trainer(self, **train: object) -> Trainer:
        """The run's trainer around such a network; `train` overrides settings of that group."""
        config = copy.deepcopy(self.config)
        for key, value in train.items():
            setattr(config.train, key, value)
        network = self.network()
        return Trainer(network, self.data, config, Trunk(network, self.runtime))

    def fitted(self, data: Splits, epochs: int) -> StagedNetwork:
        """Such a network after `fit`, with the weights that it keeps."""
        config = copy.deepcopy(self.config)
        config.train.epochs, config.train.early_stopping = epochs, None
        network = self.network()
        with tempfile.TemporaryDirectory() as folder:
            fit(network, data, config, Trunk(network, self.runtime), Path(folder))
        return network

    def pictures(self, part: ImageSet) -> Tensor:
        """Network input (N, 3, S, S) of a part, by torchvision instead of by `Batches`."""
        return self.prepare(part.images)

    def prepare(self, pixels: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> network input (N, 3, S, S), by torchvision."""
        scaled = pixels.float() / 255
        smaller = min(pixels.shape[2:]) > SIZE
        scaled = tv.resize(scaled, [SIZE, SIZE], antialias=smaller)
        return tv.normalize(scaled, IMAGENET_MEAN, IMAGENET_STD).to(self.runtime.device)


def _few(data: Splits) -> Splits:
    """A few pictures of each part, all classes in turn."""
    parts = {}
    for name, count in COUNTS.items():
        part = getattr(data, name)
        turns = in_turn(part.labels)[:count]
        parts[name] = part.subset(turns.sort().values)
    return dataclasses.replace(data, **parts)


@torch.no_grad()
def plain_logits(network: nn.Module, images: Tensor) -> Tensor:
    """One pass of network input in eval mode: logits (N, C), on the CPU."""
    return network.eval()(images).cpu()


def largest_gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))


def without_dropout(network: nn.Module) -> nn.Module:
    """The same network with nothing left out by chance, for comparisons to the last digit."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd | StochasticDepth):
            module.p = 0.0
    return network


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy written out, apart from the one that training calls."""
    logs = logits - logits.logsumexp(1, keepdim=True)
    if targets.ndim == 2:  # shares of the classes
        hit = (targets * logs).sum(1).mean()
    else:
        hit = logs.gather(1, targets[:, None]).mean()
    return -((1 - smoothing) * hit + smoothing * logs.mean())
