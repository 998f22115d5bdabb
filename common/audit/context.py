"""What the audit's checks look at: a level's own network, data and trainer, few and small.

Everything here goes through the code that a run goes through, in float32, on a few dozen pictures
at the smallest size that networks accept, or near it. What a check compares it with is computed
apart from it.
"""

import contextlib
import copy
import dataclasses
import logging
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth
from torchvision.transforms import functional as tv

from common.config import LevelConfig, Step
from common.data import ImageSet, Splits
from common.data.splits import in_turn
from common.models import StagedNetwork, Trunk, check_network
from common.runtime import Runtime, counter_seed
from common.training import Trainer, checkpoint, fit, guards
from common.utils.errors import UserError, line

log = logging.getLogger("rungs")

T = TypeVar("T")

SIZE = 32  # pixels: the smallest input that is accepted
COUNTS = {"train": 44, "val": 20, "test": 20}  # pictures; their last batches are short
BATCH = 16
SCRATCH = ".audit-"  # how folders begin that hold what is written meanwhile

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
    margin: float | None = None  # how often the figure seen fits into its bound; None: exact
    told: bool = False  # a run says it, though it passed
    first: str | None = None  # the check that failed before it

    def line(self) -> str:
        """The line that the audit prints."""
        text = f"{'ok  ' if self.passed else 'FAIL'} {self.check}: expected {self.expected}"
        text += f"; seen {self.seen}"
        if self.passed:
            return text
        text += f"; may follow from '{self.first}': look there first" if self.first else ""
        return f"{text}; usual cause: {self.cause}" if self.cause else text


Check = Callable[["AuditContext"], Finding]
Seen = (  # passed, expected, seen, margin, told
    tuple[bool, str, str]
    | tuple[bool, str, str, float | None]
    | tuple[bool, str, str, float | None, bool]
)


def check(name: str, cause: str) -> Callable[[Callable], Check]:
    """Make a check of a function that takes a context and returns what it has `Seen`."""

    def wrap(function: Callable[["AuditContext"], Seen]) -> Check:
        @wraps(function)
        def run(context: "AuditContext") -> Finding:
            try:
                with guards.explained(BATCH), _memory():
                    passed, expected, seen, *more = function(context)
            except guards.NotFinite as error:
                return Finding(name, False, "numbers", line(error), cause)
            except UserError:
                raise
            except Exception as error:  # a bug may raise anything; that is a finding too
                frames = traceback.extract_tb(error.__traceback__)
                ours = [frame for frame in frames if "site-packages" not in frame.filename]
                seen = f"{type(error).__name__}: {line(error)} (line {ours[-1].lineno} of "
                seen += f"{Path(ours[-1].filename).name})"
                return Finding(name, False, "no error", seen, cause)
            return Finding(name, bool(passed), expected, seen, cause, *more)

        run.check = name
        return run

    return wrap


@contextlib.contextmanager
def _memory() -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError("no memory for the audit; --audit false leaves it out") from error


class AuditContext:
    """A level as the checks see it.

    Args:
        config: the level's; a copy is made small.
        build_network: the level's own.
        data: the whole data, of which a few pictures are used.
        main: the level's own, which is run whole; None where there is none.
        scratch: where its runs may keep what they write; None: where the system keeps such files.
    """

    def __init__(
        self,
        config: LevelConfig,
        build_network: Callable[[LevelConfig, int], StagedNetwork],
        data: Splits,
        runtime: Runtime,
        main: Callable[[LevelConfig], dict] | None = None,
        scratch: Path | None = None,
    ):
        self.main, self.scratch = main, scratch
        self.config = copy.deepcopy(config)
        self.config.train.batch_size = BATCH
        self.config.resume = self.config.anew = self.config.audit = False
        self.config.reports, self.config.log = None, "none"
        for size in (2 * SIZE, SIZE):
            self.config.network.image_size = size
            try:
                check_network(self.config.network)
            except UserError:  # the file's layers hang on the size, as those of mlp
                log.info("audited at %d px, for which the weights are not: with none", SIZE)
                self.config.network.weights = "none"
        self.runtime = Runtime(runtime.device, torch.float32, runtime.fast)
        self.whole, self.data = data, _few(data)
        self.build_network = build_network
        self._built: dict[tuple[int, int], StagedNetwork] = {}
        self._made: dict[Callable, object] = {}
        self._trunk: Trunk | None = None

    def once(self, make: Callable[["AuditContext"], T]) -> T:
        """What the function makes of this context, made once for all checks."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """A folder for the block."""
        options = {"dir": self.scratch, "prefix": SCRATCH}
        with tempfile.TemporaryDirectory(**options) as place:
            yield Path(place)

    def network(self, size: int = SIZE, classes: int | None = None) -> StagedNetwork:
        """A network of its own for each caller, for pictures of this size, with a fresh head."""
        which = size, classes or len(self.data.classes)
        if which not in self._built:
            torch.manual_seed(counter_seed(self.config.seed, "audit"))
            config = copy.deepcopy(self.config)
            config.network.image_size = size
            built = self.build_network(config, which[1])
            self._built[which] = built.to(self.runtime.device, memory_format=torch.channels_last)
        return copy.deepcopy(self._built[which])

    def trainer(
        self,
        data: Splits | None = None,
        augment: list[Step] | None = None,
        keeps: bool = True,
        seed: int | None = None,
        **train: object,
    ) -> Trainer:
        """The run's trainer around such a network.

        Args:
            data: other pictures than the run's.
            augment: other steps than the run's.
            keeps: false for a trunk that keeps nothing: each step's pictures go through it anew.
            seed: another than the run's.
            train: settings of that group instead of the run's.
        """
        config, data = copy.deepcopy(self.config), data or self.data
        config.augment = config.augment if augment is None else augment
        config.seed = config.seed if seed is None else seed
        for key, value in train.items():
            setattr(config.train, key, value)
        network = self.network(classes=len(data.classes))
        trunk = self.trunk(network)
        trunk.keeps = trunk.keeps and keeps
        return Trainer(network, data, config, trunk)

    def trunk(self, network: StagedNetwork) -> Trunk:
        """Its trunk; what is folded is folded once, as all such networks' stages are the same."""
        if self._trunk is None:
            self._trunk = Trunk(network, self.runtime)
        trunk = copy.copy(self._trunk)
        trunk.network, trunk.kept, trunk.kept_bytes = network, [], 0
        trunk.stages = trunk.stages if self.runtime.fast else network.stages
        return trunk

    def fitted(self, data: Splits, epochs: int, patience: int | None = None) -> StagedNetwork:
        """Such a network after `fit`, with the weights that it keeps."""
        config = copy.deepcopy(self.config)
        config.train.epochs, config.train.early_stopping = epochs, patience
        network = self.network()
        with self.folder() as folder, nothing_to_resume():
            fit(network, data, config, self.trunk(network), folder)
        return network

    def pictures(self, part: ImageSet) -> Tensor:
        """Network input (N, 3, S, S) of a part, by torchvision instead of by `Batches`."""
        return self.prepare(part.images)

    def prepare(self, pixels: Tensor, size: int = SIZE) -> Tensor:
        """uint8 (N, 3, H, W) -> network input (N, 3, S, S), by torchvision."""
        scaled = pixels.float() / 255
        scaled = tv.resize(scaled, [size, size], antialias=min(pixels.shape[2:]) > size)
        return tv.normalize(scaled, IMAGENET_MEAN, IMAGENET_STD).to(self.runtime.device)


def _few(data: Splits) -> Splits:
    """A few pictures of each part, all classes in turn, in an array of their own."""
    parts = {}
    for name, count in COUNTS.items():
        part = getattr(data, name)
        turns = in_turn(part.labels)[:count]
        parts[name] = part.subset(turns.sort().values)
    rows = torch.cat([part.rows for part in parts.values()]).unique()
    source = data.train.source[rows]
    for name, part in parts.items():
        own = torch.searchsorted(rows, part.rows)
        parts[name] = dataclasses.replace(part, source=source, rows=own)
    return dataclasses.replace(data, **parts)


@torch.no_grad()
def plain_logits(network: nn.Module, images: Tensor) -> Tensor:
    """One pass of network input in eval mode: logits (N, C), on the CPU."""
    return network.eval()(images).cpu()


def largest_gap(a: Tensor, b: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))


def margin(figure: float, bound: float) -> float:
    """How often a figure that must stay below a bound fits into it."""
    return bound / max(abs(figure), 1e-12)


def without_dropout(network: nn.Module) -> nn.Module:
    """The same network with nothing left out by chance, for comparisons to the last digit."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd | StochasticDepth):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return network


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy written out, apart from the one that training calls."""
    logs = logits - logits.logsumexp(1, keepdim=True)
    if targets.ndim == 2:  # shares of the classes
        hit = (targets * logs).sum(1).mean()
    else:
        hit = logs.gather(1, targets[:, None]).mean()
    return -((1 - smoothing) * hit + smoothing * logs.mean())


@contextlib.contextmanager
def nothing_to_resume() -> Iterator[None]:
    """Runs in the block write no last.pt: most of what they write, and no check reads it."""
    save = checkpoint.save

    def save_others(path: Path, *rest: object, **named: object) -> None:
        if path.name != "last.pt":
            save(path, *rest, **named)

    with patch.object(checkpoint, "save", save_others):
        yield


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """A GPU adds up in the same order each time for the block, as far as it can."""
    if device.type != "cuda":
        yield
        return
    was = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it cannot
            yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warns)
