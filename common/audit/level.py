"""The audit's checks on the level's own `main`: run whole, on the few pictures, in a folder apart.

`fit`, `evaluate` and the report are the real ones; what passes between them is looked at.
"""

import contextlib
import copy
import logging
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from common.audit.context import AuditContext, Seen, check, cross_entropy
from common.config import LevelConfig
from common.data import ImageSet, Splits
from common.evaluation import Results
from common.models import StagedNetwork
from common.models.adapt import STATISTICS, pictures_to_adapt
from common.models.weights import weights_file
from common.runtime.distributed import ALONE
from common.training import checkpoint
from common.utils import paths


class Stop(Exception):
    """Ends a run at its door to training."""


class Silent(logging.NullHandler):
    """Stands for a run's log.txt."""

    def __init__(self, *_: object):
        super().__init__()

    def begin(self) -> None:
        """Nothing is written."""


class Watched(ImageSet):
    """The test pictures, which note when they are read."""

    seam: "Seam"

    def __getattribute__(self, name: str) -> object:
        if name in ("rows", "labels", "images", "subset"):
            seam = object.__getattribute__(self, "seam")
            seam.touched.add(seam.moment)
        return super().__getattribute__(name)

    def __len__(self) -> int:
        return len(object.__getattribute__(self, "rows"))  # a count is in every report


@dataclass
class Seam:
    """What was seen between the parts of a run.

    Attributes:
        start: the network's tensors when training begins.
        sums: of the network's tensors, by the moment after which they were taken.
        given: the data of each call.
        moment: where the run is; touched: when the test pictures were read.
    """

    start: dict[str, Tensor] = field(default_factory=dict)
    adapted: int = 0
    sums: dict[str, list[float]] = field(default_factory=dict)
    given: dict[str, Splits] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    results: Results | None = None
    written: object = None
    metrics: dict | None = None
    moment: str = "before training"
    touched: set[str] = field(default_factory=set)


def run_whole(
    context: AuditContext, config: LevelConfig, start: dict | None = None, only_start: bool = False
) -> Seam:
    """The level's main with this config; `start` is what the level that it starts from left."""
    seam, names = Seam(), context.main.__globals__
    test = context.data.test
    watched = Watched(test.source, test.rows, test.labels, test.classes, test.names)
    object.__setattr__(watched, "seam", seam)
    data = replace(context.data, test=watched)

    def fit(network: StagedNetwork, data: Splits, *rest: object, **named: object) -> list[dict]:
        seam.calls.append("fit")
        seam.given["fit"], seam.adapted = data, network.adapted
        seam.start = copy.deepcopy(network.state_dict())
        if only_start:
            raise Stop
        seam.moment = "in training"
        history = before["fit"](network, data, *rest, **named)
        seam.moment = "after training"
        seam.sums["training"] = _sums(network)
        return history

    def evaluate(network: StagedNetwork, data: Splits, *rest: object, **named: object) -> Results:
        seam.calls.append("evaluate")
        seam.given["evaluate"] = data
        seam.sums["what came before the test"] = _sums(network)
        seam.moment = "in evaluate"
        seam.results = before["evaluate"](network, data, *rest, **named)
        seam.moment = "after evaluate"
        seam.sums["the test"] = _sums(network)
        return seam.results

    before = {name: names[name] for name in ("fit", "evaluate") if name in names}
    seam.parts = [*before]
    ours = {"fit": fit, "evaluate": evaluate}
    with _apart(context, data, config, start, seam):
        names.update({name: ours[name] for name in before})
        try:
            with contextlib.suppress(Stop):
                seam.metrics = context.main(config)
        finally:
            names.update(before)
    return seam


def _sums(network: StagedNetwork) -> list[float]:
    """What tells whether anything has moved; a hash takes ten times as long."""
    return [float(value.double().sum()) for value in network.state_dict().values()]


@contextlib.contextmanager
def _apart(
    context: AuditContext, data: Splits, config: LevelConfig, start: dict | None, seam: Seam
) -> Iterator[None]:
    """A project of its own for an Experiment: its folder, its data, and no log, lock or report."""
    log, name = logging.getLogger("rungs"), config.network.start_from
    handlers = log.handlers[:]
    Experiment = context.main.__globals__["Experiment"]  # noqa: N806
    experiment, report = sys.modules[Experiment.__module__], Experiment.report

    def reported(run: object, network: StagedNetwork, *rest: object) -> dict:
        seam.sums["what came before the report"] = _sums(network)
        return report(run, network, *rest)

    def written(run: object, *_: object) -> None:
        seam.written = run

    stands = {
        "load_splits": lambda *_: data,
        "fetch": lambda *_: None,
        "start_runtime": lambda *_: context.runtime,
        "write_report": written,
        "Logbook": Silent,
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(patch.multiple(experiment, **stands))
        stack.enter_context(patch.object(Experiment, "report", reported))
        stack.enter_context(patch.object(experiment.guards, "lock"))
        stack.enter_context(patch.object(experiment.distributed, "join", lambda *_: ALONE))
        stack.enter_context(patch.object(paths, "PROJECT", Path(folder)))
        if name and start:
            level, _, stem = name.partition("/")
            run = paths.runs_folder(data.title)
            run /= paths.run_name(level, stem or "config", config.seed)
            run.mkdir(parents=True)
            checkpoint.save(run / "best.pt", start)
        try:
            yield
        finally:
            log.handlers[:] = handlers


def _config(context: AuditContext, **changes: object) -> LevelConfig:
    config = copy.deepcopy(context.config)
    config.train.epochs, config.train.early_stopping, config.audit = 1, None, False
    config.reports, config.anew, config.log = None, False, "none"
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def left_by_the_level_before(context: AuditContext) -> dict | None:
    """A checkpoint to start from: this network, each tensor changed by a little."""
    if not context.config.network.start_from:
        return None
    network, generator = context.network(), torch.Generator().manual_seed(1)
    state = {
        key: value.cpu() * (1 + 0.1 * torch.rand(value.shape, generator=generator))
        if value.is_floating_point()
        else value.cpu()
        for key, value in network.state_dict().items()
    }
    return {
        "network": state,
        "fingerprint": context.data.fingerprint,
        "split": context.data.split,
        "weights": network.weights.sha256,
        "adapted": pictures_to_adapt(context.config.network, context.data),
        "image_size": network.weights.image_size,
        "stored_size": context.data.train.source.shape[-1],
        "settings": {},
        "epoch": 1,
    }


def whole(context: AuditContext) -> Seam:
    """A run of the level's main, which several checks look at."""
    if "Experiment" not in getattr(context.main, "__globals__", ()):
        return Seam()
    return run_whole(context, _config(context), context.once(left_by_the_level_before))


@check("main trains, then tests", "a run.py that leaves out a part, or gives it other data")
def trains_then_tests(context: AuditContext) -> Seen:
    seam, wrong = context.once(whole), []
    if seam.calls != seam.parts:
        wrong.append(f"called {', '.join(seam.calls) or 'neither'}")
    for name, data in seam.given.items():
        if not isinstance(data.test, Watched) or data.train is not seam.given["fit"].train:
            wrong.append(f"{name} got other data than the run's")
    for (_, before), (moment, after) in pairwise(seam.sums.items()):
        if before != after:
            wrong.append(f"the network was changed by {moment}")
    expected = "fit, then evaluate, on the run's own data, and nothing moved in between"
    return not wrong, expected, ", ".join(wrong) or _seen(seam, "fit", "evaluate")


@check("test is never read in training", "the epoch, or anything else, chosen on the test set")
def test_untouched(context: AuditContext) -> Seen:
    seam = context.once(whole)
    early = seam.touched & {"before training", "in training", "after evaluate"}
    seen = f"read {' and '.join(sorted(early))}" if early else _seen(seam, "fit")
    return not early, "test pictures that are read once, after training", seen


@check("what is reported was computed", "figures of other pictures, of another pass, or made up")
def reported_as_computed(context: AuditContext) -> Seen:
    seam = context.once(whole)
    wrong = [*_wrong_figures(seam)] if "evaluate" in seam.parts else []
    expected = "the figures of evaluate's own logits"
    return not wrong, expected, ", ".join(wrong) or _seen(seam, "evaluate")


@check("the run starts as configured", "another start than the weights, start_from or the seed say")
def starts_as_configured(context: AuditContext) -> Seen:
    seam, before = context.once(whole), context.once(left_by_the_level_before)
    expected = "the weights of the file or of the level before, the rest by the seed"
    if "fit" not in seam.parts:
        return True, expected, _seen(seam, "fit")
    wrong = [*_wrong_start(context, seam, before)]
    loaded = {k for k in before["network"] if k in seam.start} if before else set()
    if context.config.network.new_head:
        loaded = {key for key in loaded if not key.startswith("head.")}
    drawn = seam.start.keys() - loaded
    for same in (True, False) if drawn else ():
        config = _config(context, seed=context.config.seed + (not same))
        other = run_whole(context, config, before, only_start=True).start
        if all(torch.equal(seam.start[key], other[key]) for key in drawn) != same:
            wrong.append("the same seed starts otherwise" if same else "another seed starts alike")
    return not wrong, expected, ", ".join(wrong) or "that"


def _seen(seam: Seam, *parts: str) -> str:
    """That all was well; or what of a run.py of another build could not be looked at."""
    lacking = [part for part in parts if part not in seam.parts]
    return f"not looked at: run.py has no main with {', '.join(lacking)}" if lacking else "that"


def _wrong_figures(seam: Seam) -> Iterator[str]:
    """Which reported figures are not those of the logits that evaluate computed."""
    if seam.results is None or not isinstance(seam.metrics, dict):
        yield "nothing reported"
        return
    for part in ("train", "val", "test", "test_single"):
        predictions, figures = getattr(seam.results, part), seam.metrics.get(part, {})
        right = int((predictions.logits.argmax(1) == predictions.labels).sum())
        loss = float(cross_entropy(predictions.logits.double(), predictions.labels))
        own = {"correct": right, "total": len(predictions.labels)}
        own |= {"accuracy": right / len(predictions.labels), "loss": loss}
        off = [k for k, v in own.items() if abs(figures.get(k, -1) - v) > 1e-5 * max(1, abs(v))]
        if off:
            yield f"{part}'s {off[0]} is {figures.get(off[0])}, not {own[off[0]]}"
    run, test = seam.written, seam.results.test
    if run is None or not torch.equal(torch.from_numpy(run.predictions), test.logits.argmax(1)):
        yield "other predictions written than computed"
    elif not torch.equal(torch.from_numpy(run.labels), test.labels):
        yield "other labels written than test's"


def _wrong_start(context: AuditContext, seam: Seam, before: dict | None) -> Iterator[str]:
    """What is wrong with the network that training began with."""
    config = context.config.network
    if before:
        kept = [k for k in before["network"] if not (config.new_head and k.startswith("head."))]
        off = [k for k in kept if not torch.equal(seam.start[k].cpu(), before["network"][k])]
        if off:
            yield f"start_from's {off[0]} and {len(off) - 1} more are not in"
        return
    count = pictures_to_adapt(config, context.data)
    if seam.adapted != count:
        yield f"batch norm adapted on {seam.adapted} pictures, not {count}"
    own = context.network().state_dict()
    for key, value in own.items() if weights_file(config) else ():
        statistic = key.startswith("stages.") and key.endswith(STATISTICS)
        same = torch.equal(seam.start[key], value)
        if key.startswith("stages.") and not (statistic and count) and not same:
            yield f"{key} is not as in the weights"
            return
    moved = [k for k in own if k.endswith("running_var") and k.startswith("stages.")]
    if count and moved and all(torch.equal(seam.start[k], own[k]) for k in moved):
        yield "batch norm was not adapted"
