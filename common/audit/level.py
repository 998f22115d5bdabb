"""The audit's checks on the level's own `main`: run whole, on the few pictures, in a folder apart.

`fit`, `evaluate` and the report are the real ones; what passes between them is looked at. What a
run.py of another build does not have, is not.
"""

import contextlib
import copy
import importlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from typing import Any
from unittest.mock import patch

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from common.audit.context import (
    AuditContext,
    Seen,
    check,
    cross_entropy,
    largest_gap,
    nothing_to_resume,
    plain_logits,
    repeatable,
)
from common.config import LevelConfig
from common.config.schema import flat
from common.data import ImageSet, Splits
from common.evaluation import Results
from common.models import StagedNetwork
from common.models.adapt import STATISTICS, pictures_to_adapt
from common.models.weights import weights_file
from common.runtime.distributed import ALONE
from common.training import checkpoint, place
from common.utils import paths
from common.utils.errors import UserError, line

PHASE = "train.", "network.trainable"  # what may differ where fit is called for several phases


class Stop(BaseException):
    """Ends a run at its door to training, whatever it catches."""


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
        parts: which of fit and evaluate run.py has; calls: of them, in order.
        data, settings: the run's.
        wrong: what a part was given instead; otherwise: which of the settings, by part.
        start, adapted: the network's tensors when training begins, and what it says of batch norm.
        sums: of the network's tensors, by what had just happened.
        plain: logits of train, val and test by a plain pass, when evaluate is called.
        history, results, metrics, written: what fit, evaluate and main returned, and what was to be
            written.
        moment: where the run is; touched: when the test pictures were read.
    """

    parts: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    data: Splits | None = None
    settings: dict | None = None
    wrong: list[str] = field(default_factory=list)
    otherwise: list[tuple[str, set[str]]] = field(default_factory=list)
    start: dict[str, Tensor] = field(default_factory=dict)
    adapted: int = 0
    sums: list[tuple[str, list[float]]] = field(default_factory=list)
    plain: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    results: Results | None = None
    metrics: dict | None = None
    written: Any = None
    moment: str = "before training"
    touched: set[str] = field(default_factory=set)

    def given(self, part: str, values: list) -> StagedNetwork:
        """Look at what a part was called with; returns the network."""
        self.calls.append(part)
        data, config = (_first(kind, values) for kind in (Splits, LevelConfig))
        for name in ("train", "val", "test"):
            if data is not None and getattr(data, name) is not getattr(self.data, name):
                self.wrong.append(f"{part} got other {name} pictures than the run's")
        if config is not None:
            given, own = flat(config.settings()), flat(self.settings)
            self.otherwise.append((part, {key for key in own if given[key] != own[key]}))
        return _first(StagedNetwork, values)

    def note(self, what: str, network: StagedNetwork) -> None:
        """Something has happened; a hash of the network would take ten times as long as sums."""
        state = network.state_dict().values()
        self.sums.append((what, [float(value.cpu().sum(dtype=torch.float64)) for value in state]))


def _first(kind: type, values: list) -> Any:
    return next((value for value in values if isinstance(value, kind)), None)


def run_whole(
    context: AuditContext, config: LevelConfig, start: dict | None = None, only_start: bool = False
) -> Seam:
    """The level's main with this config; `start` is what the level that it starts from left."""
    seam, names = Seam(settings=copy.deepcopy(config).settings()), context.main.__globals__
    test = context.data.test
    watched = Watched(test.source, test.rows, test.labels, test.classes, test.names)
    object.__setattr__(watched, "seam", seam)
    seam.data = replace(context.data, test=watched)
    before = {name: names[name] for name in ("fit", "evaluate") if name in names}
    seam.parts = [*before]

    def fit(*given: object, **named: object) -> list[dict]:
        network = seam.given("fit", [*given, *named.values()])
        if not seam.start:
            seam.start, seam.adapted = copy.deepcopy(network.state_dict()), network.adapted
        if only_start:
            raise Stop
        seam.moment = "in training"
        history = before["fit"](*given, **named)
        seam.history += copy.deepcopy(history)
        seam.moment = "after training"
        seam.note("training", network)
        return history

    def evaluate(*given: object, **named: object) -> Results:
        network = seam.given("evaluate", [*given, *named.values()])
        seam.note("what came before the test", network)
        training = network.training
        for part in ("train", "val", "test"):
            images = context.pictures(getattr(context.data, part))
            seam.plain[part] = plain_logits(network, images)
        network.train(training)
        seam.moment = "in evaluate"
        seam.results = before["evaluate"](*given, **named)
        seam.moment = "after evaluate"
        seam.note("the test", network)
        return seam.results

    ours = {"fit": fit, "evaluate": evaluate}
    with _apart(context, config, start, seam):
        names.update({name: ours[name] for name in before})
        try:
            seam.metrics = context.main(config)
        except Stop:
            pass
        except UserError as error:
            seam.wrong.append(f"main ended: {line(error)}")
        finally:
            names.update(before)
    return seam


@contextlib.contextmanager
def _apart(
    context: AuditContext, config: LevelConfig, start: dict | None, seam: Seam
) -> Iterator[None]:
    """A project of its own for an Experiment: its folder, its data, and no log, lock or report."""
    experiment = importlib.import_module("common.experiment")  # which imports the audit
    log, name = logging.getLogger("rungs"), config.network.start_from
    handlers, report = log.handlers[:], experiment.Experiment.report

    def reported(run: object, network: StagedNetwork, *rest: object, **named: object) -> dict:
        seam.note("what came before the report", network)
        return report(run, network, *rest, **named)

    def written(run: object, *_: object) -> None:
        seam.written = run

    stands = {
        "load_splits": lambda *_: seam.data,
        "fetch": lambda *_: None,
        "start_runtime": lambda *_: context.runtime,
        "write_report": written,
        "Logbook": Silent,
    }
    with context.folder() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(patch.multiple(experiment, **stands))
        stack.enter_context(patch.object(experiment.Experiment, "report", reported))
        stack.enter_context(patch.object(place.Place, "finish", _nothing))
        stack.enter_context(patch.multiple(experiment.guards, lock=_nothing, check_room=_nothing))
        stack.enter_context(patch.object(experiment.distributed, "join", lambda *_: ALONE))
        stack.enter_context(patch.object(paths, "PROJECT", folder))
        stack.enter_context(patch.dict(os.environ, {paths.VARIABLE: str(folder)}))
        if name and start:
            level, _, stem = name.partition("/")
            run = paths.runs_folder(seam.data.title, config.given)
            run /= paths.run_name(level, stem or paths.OWN, config.seed)
            run.mkdir(parents=True)
            checkpoint.save(run / "best.pt", start)
        stack.enter_context(nothing_to_resume())
        try:
            yield
        finally:
            log.handlers[:] = handlers


def _nothing(*_: object) -> None:
    pass


def _config(context: AuditContext, seed: int | None = None) -> LevelConfig:
    config = copy.deepcopy(context.config)
    train = config.train
    train.epochs, train.early_stopping = 2, None  # one for each of two phases
    train.views = train.views and 1  # which comes again
    config.seed = config.seed if seed is None else seed
    return config


def left_by_the_level_before(context: AuditContext) -> dict | None:
    """A checkpoint to start from: this network, each tensor changed by a little."""
    if not context.config.network.start_from:
        return None
    network = context.network()
    state = {
        key: value.cpu() * (1 + 0.1 / number) if value.is_floating_point() else value.cpu()
        for number, (key, value) in enumerate(network.state_dict().items(), 1)
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
    with repeatable(context.runtime.device):
        return run_whole(context, _config(context), context.once(left_by_the_level_before))


@check("main trains, then tests", "a run.py that leaves out a part, or gives it something else")
def trains_then_tests(context: AuditContext) -> Seen:
    seam = context.once(whole)
    wrong = [*seam.wrong]
    calls = [name for name, _ in groupby(seam.calls)]  # fit may be called for each of two phases
    phases = PHASE if seam.calls.count("fit") > 1 else ()
    for part, keys in seam.otherwise:
        if keys := {key for key in keys if part != "fit" or not key.startswith(phases)}:
            wrong.append(f"{part} got another {min(keys)} than the run's")
    if calls != seam.parts:
        wrong.append(f"called {', '.join(calls) or 'neither'}")
    for (_, before), (what, after) in pairwise(seam.sums):
        if before != after and what != "training":
            wrong.append(f"the network was changed by {what}")
    expected = "fit, then evaluate, with the run's own data and settings, and nothing else moves"
    return _seen(seam, expected, wrong, "fit", "evaluate")


@check("test is never read in training", "the epoch, or anything else, chosen on the test set")
def test_untouched(context: AuditContext) -> Seen:
    seam = context.once(whole)
    early = sorted(seam.touched & {"before training", "in training"})
    wrong = [f"read {' and '.join(early)}"] if early else []
    return _seen(seam, "test pictures that are read once, after training", wrong, "fit")


@check("what is reported was computed", "figures of other pictures, of another pass, or made up")
def reported_as_computed(context: AuditContext) -> Seen:
    seam = context.once(whole)
    wrong = [*_wrong_figures(seam)] if "evaluate" in seam.parts else []
    expected = "the figures of evaluate's own logits, and those a plain pass's"
    return _seen(seam, expected, wrong, "evaluate")


@check("the run starts as configured", "another start than the weights, start_from or the seed say")
def starts_as_configured(context: AuditContext) -> Seen:
    seam, before = context.once(whole), context.once(left_by_the_level_before)
    expected = "the weights of the file or of the level before, the rest by the seed"
    if "fit" not in seam.parts or not seam.start:
        return _seen(seam, expected, [], "fit")
    wrong = [*_wrong_start(context, seam, before)]
    loaded = set(before["network"]) if before else set()
    if context.config.network.new_head:
        loaded = {key for key in loaded if not key.startswith("head.")}
    own, again = context.network().state_dict(), _drawn_again(context)
    drawn = [key for key in own.keys() - loaded if not torch.equal(own[key].cpu(), again[key])]
    for same in (True, False) if drawn else ():
        config = _config(context, context.config.seed + (not same))
        with repeatable(context.runtime.device):
            other = run_whole(context, config, before, only_start=True).start
        if all(torch.equal(seam.start[key], other[key]) for key in drawn) != same:
            wrong.append("the same seed starts otherwise" if same else "another seed starts alike")
    return not wrong, expected, ", ".join(wrong) or "that"


def _drawn_again(context: AuditContext) -> dict[str, Tensor]:
    """The tensors of the level's network as its build_network draws it another time: what starts
    at zero hangs on no seed.
    """
    config = copy.deepcopy(context.config)
    return context.build_network(config, len(context.data.classes)).state_dict()


def _seen(seam: Seam, expected: str, wrong: list[str], *parts: str) -> Seen:
    """What was seen; where a run.py of another build lacks parts of it, that this was not looked
    at, which a run says.
    """
    lacking = [part for part in parts if part not in seam.parts]
    if wrong or not lacking:
        return not wrong, expected, ", ".join(wrong) or "that"
    return (
        True,
        expected,
        f"not looked at: run.py has no main with {', '.join(lacking)}",
        None,
        True,
    )


def _wrong_figures(seam: Seam) -> Iterator[str]:
    """Which reported figures are not those of the logits that evaluate computed."""
    if seam.results is None or not isinstance(seam.metrics, dict):
        yield "main returned no metrics" if seam.results else "evaluate was never called"
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
        plain = seam.plain.get("test" if part == "test_single" else part)
        if part != "test" and (
            plain.shape != predictions.logits.shape or largest_gap(predictions.logits, plain) > 1e-3
        ):
            yield f"{part} scored by other logits than a plain pass over it has"
    val, detail = seam.results.val, seam.metrics.get("detail", {})
    if "temperature" in detail and not _likeliest(detail["temperature"], val.logits, val.labels):
        yield f"temperature {detail['temperature']:.2f} is not val's likeliest"
    yield from _wrongly_written(seam)


def _wrongly_written(seam: Seam) -> Iterator[str]:
    """What is in the report's files and was not computed."""
    run, test = seam.written, seam.results.test
    if run is None:
        yield "no report written"
        return
    computed = {
        "predictions": (run.predictions, test.logits.argmax(1)),
        "labels": (run.labels, test.labels),
        "logits": (run.logits, test.logits),
        "single": (run.single, seam.results.test_single.logits.argmax(1)),
    }
    for what, (written, own) in computed.items():
        if not torch.equal(torch.from_numpy(written), own):
            yield f"other {what} written than computed"
    if seam.calls.count("fit") == 1:  # else the level's own way to put phases together
        scores = [entry["val_accuracy"] for entry in seam.history]
        best = seam.history[scores.index(max(scores))]["epoch"]
        if run.history != seam.history:
            yield "another history written than fit's"
        elif run.metrics.get("best_epoch") != best:
            yield f"best epoch {run.metrics.get('best_epoch')}, not {best}"


def _likeliest(temperature: float, logits: Tensor, labels: Tensor) -> bool:
    """Whether no temperature from 0.05 to 20 makes the labels likelier, to 1e-5 nats."""

    def loss(value: float) -> float:
        return float(cross_entropy(logits.double() / value, labels))

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded")
    return loss(temperature) < best.fun + 1e-5


def _wrong_start(context: AuditContext, seam: Seam, before: dict | None) -> Iterator[str]:
    """What is wrong with the network that training began with."""
    config = context.config.network
    if before:
        kept = [k for k in before["network"] if not (config.new_head and k.startswith("head."))]
        off = [k for k in kept if not torch.equal(seam.start[k].cpu(), before["network"][k])]
        if off:
            yield f"{len(off)} of start_from's {len(kept)} tensors are not in, as {off[0]}"
        return
    count = pictures_to_adapt(config, context.data)
    if seam.adapted != count:
        yield f"batch norm adapted on {seam.adapted} pictures, not {count}"
    own = {k: v for k, v in context.network().state_dict().items() if k.startswith("stages.")}
    for key, value in own.items() if weights_file(config) else ():
        if not (count and key.endswith(STATISTICS)) and not torch.equal(seam.start[key], value):
            yield f"{key} is not as in the weights"
            return
    moved = [key for key in own if key.endswith("running_var")]
    if count and moved and all(torch.equal(seam.start[key], own[key]) for key in moved):
        yield "batch norm was not adapted"
