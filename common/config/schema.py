"""A level's configuration as dataclasses."""

import copy
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from common.config.ranges import (
    NOT_NEGATIVE,
    PART,
    PICTURES,
    POSITIVE,
    SEEDS,
    SHARE,
    SIDE,
    STAGES,
    whole,
)
from common.utils.paths import OWN, PROJECT, tilde

# A technique by name, with or without parameters: "flip", or {"crop": {"padding": 4}}.
Step = str | dict[str, dict[str, Any] | None]


@dataclass
class DataConfig:
    """Pictures."""

    name: Literal["cifar10", "cifar100", "cifar100_coarse", "folder", "digits"] = "cifar10"
    """cifar10, cifar100, cifar100_coarse (its 20 coarse labels), digits, or folder
    (train/<class>/*, test/<class>/*)"""
    root: str | None = None
    """the folder of pictures; for CIFAR where its archive lies or goes (default: data/)"""
    title: str | None = None
    """what reports call the data (default: the data set's or the folder's name)"""
    mirror: bool | None = None
    """whether a mirrored picture keeps its label (default: no for digits, else yes)"""
    stored_size: Annotated[int | None, whole(1, SIDE)] = None
    """side in pixels at which pictures are kept, and augmented (default: the pictures' common
    size, else the network's input size)"""
    split_seed: Annotated[int, whole(0, 2**32 - 1)] = 0
    """seed of the train/val split; the same for all levels and seeds"""
    val_fraction: Annotated[float, PART] = 0.2
    """share of the training pictures set aside to choose with"""
    limit: Annotated[int | None, whole(1)] = None
    """use at most this many training (val included) and this many test pictures"""
    skip_unreadable: bool = False
    """skip and count unreadable pictures instead of stopping"""
    drop_copies: bool = False
    """leave out of train what is an exact copy of a val or test picture; val and test stay whole"""


@dataclass
class NetworkConfig:
    """Network."""

    arch: Step = "resnet18"
    """the backbone's name in common/models/backbones.py, with or without options"""
    weights: str = "imagenet"
    """imagenet, tiny-imagenet (bundled), none, or a .pth or .safetensors file"""
    weights_title: str | None = None
    """what reports call the weights (default: their name, or the file's)"""
    image_size: Annotated[int | None, whole(32, SIDE)] = None
    """side in pixels of the network's input (default: what suits the weights)"""
    trainable: Annotated[list[str], STAGES] = field(default_factory=lambda: ["head"])
    """the stages that train, by name; all else is frozen"""
    taps: list[str] | None = None
    """the stages that the head reads (default: the level's own choice)"""
    start_from: str | None = None
    """a level, or one with a config of it (level1_baseline/wide), whose best checkpoint of the same
    seed is the starting point"""
    new_head: bool = False
    """of what start_from names, take the stages alone"""
    normalise: bool = True
    """the classifier's input is normalised, by batch norm without scale and shift"""
    adapt_batch_norm: Annotated[int | Literal["auto"], PICTURES] = "auto"
    """training pictures on which batch norm's statistics are estimated anew, once, before anything
    trains; 0: not at all; auto: where that was seen to help with these weights"""


@dataclass
class TrainConfig:
    """Training."""

    epochs: Annotated[int, whole(1)] = 5
    """passes over the training pictures"""
    views: Annotated[int | None, whole(1)] = None
    """augmented views of each picture: what the frozen stages make of them is kept, and epochs take
    them in turn (default: new ones each epoch)"""
    batch_size: Annotated[int, whole(1, 2**31 - 1)] = 128
    """pictures a step"""
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    """adam, adamw, or sgd (Nesterov momentum 0.9)"""
    lr: Annotated[float, POSITIVE] = 1e-3
    """learning rate, the peak where a schedule moves it"""
    head_lr: Annotated[float | None, POSITIVE] = None
    """the head's own, as it is new where the stages are not (default: that of the stages)"""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    """L2 penalty of adam and sgd; decoupled for adamw"""
    schedule: Step = "constant"
    """constant, cosine, one_cycle (with warm-up), plateau (on val loss), gradual (stage by stage
    from the head down), each with parameters, layer_decay among them"""
    label_smoothing: Annotated[float, SHARE] = 0.0
    """share of the target spread over all classes"""
    clip_norm: Annotated[float | None, POSITIVE] = None
    """largest norm of the gradient (default: not clipped)"""
    ema: Annotated[float | None, PART] = None
    """share that a moving average of the weights keeps at a step, e.g. 0.999; val, test and the
    checkpoint are the average's (default: none)"""
    early_stopping: Annotated[int | None, whole(1)] = None
    """epochs without a better val accuracy before it stops (default: never)"""
    freeze_batch_norm: bool = False
    """batch norm in the stages that train stays frozen: its running statistics normalise, its
    scale and shift do not move"""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto (the fastest that the device does in hardware), float32, bfloat16, float16"""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps"""
    threads: Annotated[int | None, whole(1, 1024)] = None
    """CPU threads (default: OMP_NUM_THREADS, else all cores)"""
    compile: bool = False
    """compile the network by torch.compile: a minute or two at the start, for faster steps on a
    GPU; with `fast` only"""
    deterministic: bool = False
    """on a GPU, too, the same seed gives the same bits; slower there"""

    def peak(self, part: str) -> float:
        """The learning rate of the head ("head") or a stage, less what the schedule makes of it."""
        return self.head_lr if part == "head" and self.head_lr else self.lr


@dataclass
class TestConfig:
    """Test."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    tta: Literal["none", "flip", "shifts", "flip_shifts"] = "none"
    """test-time augmentation: none, flip (the picture and its mirror image), shifts (the picture
    and its four one-pixel shifts), flip_shifts (both: ten); where data.mirror is false, either
    becomes shifts"""


@dataclass
class Benchmark:
    """The test accuracy in percent that a run is held to, where data, weights and size match."""

    data: str
    weights: str
    image_size: int
    accuracy: float


# options that the weights do not hang on: how a run is made, what it is called and held to
BESIDE = {"resume", "anew", "name", "reports", "seeds", "audit", "log", "summary"}
BESIDE |= {"benchmarks", "data.title", "network.weights_title"}


@dataclass
class LevelConfig:
    """Run."""

    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augment: list[Step] = field(default_factory=list)
    """what is done to a training batch: named steps with parameters, in order"""
    train: TrainConfig = field(default_factory=TrainConfig)
    test: TestConfig = field(default_factory=TestConfig)
    benchmarks: list[Benchmark] = field(default_factory=list)
    """the accuracies in percent that runs on given data and weights are held to"""
    seed: Annotated[int, whole(0)] = 0
    """decides the new layers' start, the batches' order, augmentation and dropout"""
    seeds: Annotated[list[int] | None, SEEDS] = None
    """run once with each of these seeds, e.g. --seeds 0 1 2"""
    resume: bool = False
    """go on with this level's unfinished run"""
    anew: bool = False
    """run again what is finished, whose run stays until the new one is whole; start over where this
    config has an unfinished run"""
    audit: bool | Literal["auto"] = "auto"
    """look for the classic training bugs before the run; auto: not again where code, config and
    data are what they were when it last passed"""
    log: Literal["none", "tensorboard"] = "none"
    """tensorboard writes each epoch for `tensorboard --logdir runs` while it trains"""
    fast: bool = True
    """fold and run the frozen stages once where that is exact; false: the plain way"""
    name: str | None = None
    """what this recipe of the level is called (default: what differs from its config)"""
    runs: str | None = None
    """folder for the runs (default: the environment variable RUNGS_RUNS, else runs/)"""
    reports: str | None = None
    """folder for the reports (default: beside the run, in runs/<title>/reports)"""
    summary: bool = False
    """print the network stage by stage, and stop"""

    file: Path = field(init=False, default=PROJECT / "config.yaml")  # the YAML it came from
    recipe: str = field(init=False, default=OWN)  # of the level; "config": its own
    lower: str = field(init=False, default=OWN)  # the recipe of start_from's, by the same options
    given: str = field(init=False, default="")  # what the whole ladder shares, besides the data
    differ: dict = field(init=False, default_factory=dict)  # from its file, by dotted key

    @property
    def draws(self) -> int | str:
        """What the training batches' orders and augmentation are drawn by: the seed, and the level
        whose weights the run goes on from, as that one has seen its own draws.
        """
        start = self.network.start_from
        return f"{self.seed} after {start}" if start else self.seed

    def with_seed(self, seed: int) -> "LevelConfig":
        """The same configuration with another seed."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def settings(self) -> dict[str, Any]:
        """Every option and its value, as plain data; paths below the home folder from `~` on."""
        names = [f.name for f in dataclasses.fields(self) if f.init and f.name != "runs"]
        values = {key: value for key, value in dataclasses.asdict(self).items() if key in names}
        for group, key in ((values["data"], "root"), (values["network"], "weights")):
            group[key] = tilde(group[key])
        return values | {"reports": tilde(values["reports"])}


def flat(groups: dict) -> dict[str, Any]:
    """Dotted key -> value, of a mapping and the mappings in it: {"a": {"b": 1}} is {"a.b": 1}.

    What is deeper is a value: a schedule's parameters, say, are compared as one.
    """
    items = {}
    for key, value in groups.items():
        inner = isinstance(value, dict)
        items |= {f"{key}.{name}": v for name, v in value.items()} if inner else {key: value}
    return items


def differences(old: dict, new: dict) -> list[str]:
    """Dotted keys of two runs' settings that differ and bear on the weights."""
    return [*changed(old, new)]


def changed(old: dict, new: dict) -> dict[str, Any]:
    """Of two settings, the new values that differ and bear on the weights, by dotted key; what the
    old ones do not name, as an earlier version's, is what it is by default.
    """
    old = flat(LevelConfig().settings()) | flat(old)
    return {k: v for k, v in flat(new).items() if k not in BESIDE and old.get(k) != v}


PATHS = {"data.root", "network.weights"}  # the submitter's; what lies there is compared by hash


def comparable(settings: dict) -> dict[str, Any]:
    """What of a run's settings bears on its weights, flat."""
    items = flat(settings)
    return {key: items[key] for key in items if key not in BESIDE | PATHS}
