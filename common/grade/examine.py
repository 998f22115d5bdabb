"""Examines one level of a submission: every check but those that need the level below."""

import logging
from dataclasses import dataclass, field

import torch

from common.config import Benchmark, LevelConfig, TrainConfig
from common.data import Splits, load_splits
from common.evaluation import Predictions, statistics, tta_of
from common.grade import sandbox
from common.grade.checks import (
    Finding,
    check_data,
    check_duplicates,
    check_frozen,
    check_history,
    check_metrics,
    check_predictions,
    check_settings,
    check_weights,
    find_bar,
    same_machine,
)
from common.grade.submission import Submission
from common.models import input_size
from common.models.weights import NAMED, describe_weights
from common.reports.readers import read_settings
from common.runtime import Runtime, start_runtime
from common.utils.errors import UserError

log = logging.getLogger("rungs")

CHECKS = [
    "report",
    "checkpoint",
    "checkpoint is this run's",
    "data",
    "split",
    "test pictures not in train",
    "starting weights",
    "frozen parts",
    "network",
    "predictions.npz",
    "metrics.json",
    "history.json",
    "benchmark",
    "gain",
    "gain claimed",
]


@dataclass(frozen=True)
class Options:
    """What the grader's command line says of this machine."""

    data_root: str | None = None
    weights: str | None = None
    timeout: float = 3600
    retrain: bool = False


@dataclass
class Grade:
    """One level's outcome.

    Attributes:
        test: correct, total, accuracy and loss, recomputed, with the accuracy's `interval`
        bar: the benchmark that applies, in percent
        below: what `statistics.compare` gives against the level below, with its name as `level`
    """

    submission: Submission
    findings: list[Finding] = field(default_factory=list)
    test: dict | None = None
    bar: float | None = None
    below: dict | None = None
    config: LevelConfig | None = None
    data: Splits | None = None
    predictions: Predictions | None = None
    same: bool = False

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def fill(self, checks: list[str]) -> None:
        """In the checks' order, those that could not be run among them."""
        found = {finding.check: finding for finding in self.findings}
        first = next((f.check for f in self.findings if not f.passed), "")
        missing = f"not run: see {first}"
        self.findings = [found.get(c) or Finding(c, None, "", missing) for c in checks]


class DataCache:
    """Reads each data set once, however many levels use it."""

    def __init__(self) -> None:
        self._data: dict[str, tuple[Splits, Finding]] = {}

    def read(self, config: LevelConfig) -> tuple[Splits, Finding]:
        """The splits, and whether test pictures are in train."""
        size = input_size(config.network)
        key = repr((config.data, size))
        if key not in self._data:
            data = load_splits(config.data, size)
            self._data[key] = data, check_duplicates(data)
        return self._data[key]


def examine(
    submission: Submission, rows: list[Benchmark], options: Options, cache: DataCache, whose: str
) -> Grade:
    """Every check but those that need the level below.

    Args:
        rows: the level's benchmarks.
        whose: another level whose checkpoint this is, or "".
    """
    grade = Grade(submission)
    try:
        _examine(grade, rows, options, cache, whose)
    except _Stop as stop:
        grade.findings.append(stop.finding)
    except Exception as error:  # files made to break a reader must not end the others' grade
        log.warning("%s: cannot be examined", submission.level, exc_info=True)
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        grade.findings = [Finding("report", False, "a report that can be examined", text)]
        grade.predictions = grade.test = None
    return grade


class _Stop(Exception):
    """A finding after which nothing more can be said."""

    def __init__(self, check: str, expected: str, seen: object):
        self.finding = Finding(check, False, expected, str(seen))


def _examine(
    grade: Grade, rows: list[Benchmark], options: Options, cache: DataCache, whose: str
) -> None:
    submission, add = grade.submission, grade.findings.append
    problem = submission.problems.get("report")
    expected = "metrics.json, history.json and predictions.npz"
    add(Finding("report", problem is None, expected, problem or f"{submission.report}"))
    if submission.metrics is None:
        return
    problem = submission.problems.get("checkpoint")
    expected = "the best.pt of the report's run"
    add(
        Finding("checkpoint", problem is None, expected, problem or f"{submission.checkpoint_path}")
    )
    if submission.checkpoint is None:
        return
    metrics, project = submission.metrics, submission.project
    add(check_settings(submission, whose))

    try:
        settings, paths = metrics["settings"], (options.data_root, options.weights)
        config = grade.config = read_settings(settings, project, *paths)
        _keep_names(config, metrics, options)
        machine = _start(config, metrics)
        data, copies = cache.read(config)
    except UserError as error:
        hint = "" if options.data_root else "; --data-root says where the pictures are here"
        raise _Stop("data", "the pictures of the report's settings", f"{error}{hint}") from error
    grade.data = data
    for finding in [*check_data(submission, data), copies]:
        add(finding)

    try:
        weights = describe_weights(config.network)
        add(check_weights(submission, weights))
        add(check_frozen(submission, config))
    except UserError as error:
        hint = "" if options.weights else "; --weights says where they are here"
        expected = "the weights of the report's settings"
        raise _Stop("starting weights", expected, f"{error}{hint}") from error

    if submission.history is not None:
        add(check_history(submission))
    tta = tta_of(config, data)
    grade.same = same_machine(metrics, machine)
    checkpoint, expected = submission.checkpoint_path, "build_network's network with these weights"
    try:
        test, single = sandbox.test_logits(
            project / submission.level, config, checkpoint, data.test, tta, options.timeout
        )
    except UserError as error:
        raise _Stop("network", expected, error) from error
    add(Finding("network", True, expected, f"built; {machine.device}, {machine.precision}"))

    grade.predictions, grade.test = test, test.score()
    grade.test["interval"] = statistics.wilson_interval(grade.test["correct"], grade.test["total"])
    facts = {"tta": tta, "image_size": weights.image_size, "weights.name": weights.name}
    facts |= {"data.title": data.title, "data.name": data.name}
    facts |= {"trainable": config.network.trainable}
    detail = statistics.describe(test.logits.numpy(), test.labels.numpy())
    detail["interval"] = list(grade.test["interval"])
    scores = {"test": grade.test, "test_single": single.score(), "detail": detail}
    add(check_metrics(submission, config, facts, scores, grade.same))
    if submission.predictions is not None:
        add(check_predictions(submission.predictions, test, single, grade.same))
    grade.bar, reason = find_bar(rows, metrics, config)
    seen = f"{100 * grade.test['accuracy']:.2f} %"
    if grade.bar is None:
        add(Finding("benchmark", True, "a row that matches", f"{reason}: gains and integrity only"))
    else:
        good = 100 * grade.test["accuracy"] >= grade.bar
        add(Finding("benchmark", good, f"at least {grade.bar:g} %", seen))


def _keep_names(config: LevelConfig, metrics: dict, options: Options) -> None:
    """What goes by its path's name keeps the name it was given where it lay."""
    if config.data.name == "folder" and options.data_root and config.data.title is None:
        config.data.title = metrics["data"]["title"]
    named = config.network.weights in NAMED or config.network.weights_title
    if options.weights and not named:
        config.network.weights_title = metrics["weights"]["name"]


def _start(config: LevelConfig, metrics: dict) -> Runtime:
    """The run's device, precision and threads where this machine has them, else its own best."""
    start_runtime(TrainConfig(device="cpu"))
    threads = metrics["machine"].get("threads")
    if type(threads) is int and 1 <= threads <= torch.get_num_threads():
        config.train.threads = threads
    try:
        return start_runtime(config.train, config.fast)
    except UserError:
        config.train.device = config.train.precision = "auto"
        return start_runtime(config.train, config.fast)
