"""The grader's checks: what a submission claims against what is recomputed from its files.

Each looks at a `Grade`, keeps there what it has read or computed, and gives a `CheckResult`.
`CHECKS`, at the end, has their order, and what each needs of those before it.
"""

import math
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.config import LevelConfig
from common.config.schema import comparable, flat
from common.data import Splits, duplicates, load_splits
from common.data.cifar import KINDS, TITLES
from common.evaluation import Predictions, statistics, tta_of
from common.grade import sandbox
from common.grade.submission import CheckResult, Grade
from common.models import StagedNetwork, Weights, build_backbone, input_size
from common.models.adapt import STATISTICS, adapt_batch_norm, pictures_to_adapt
from common.models.weights import NAMED, describe_weights
from common.reports.restore import read_settings
from common.reports.text import points
from common.runtime import Runtime, provenance, start_runtime
from common.training.checkpoint import completed, digest, read_checkpoint
from common.utils.errors import UserError
from common.utils.paths import OWN, run_name

_starts: dict[tuple, dict[str, Tensor]] = {}  # by what they hang on
LENIENCE = 0.002  # share of the predictions that may differ on another machine or version


def _compared(expected: str, wrong: list[str]) -> CheckResult:
    """Of a check that lists what is not as it must be."""
    return CheckResult(not wrong, expected, ", ".join(wrong) or "the same")


def _other_hashes(found: str | None, report: object, checkpoint: object) -> list[str]:
    """Who claims another SHA-256 than the one found here, and which."""
    claims = {"the report": report, "the checkpoint": checkpoint}
    return [f"{str(h)[:12]}... in {who}" for who, h in claims.items() if h != found]


def check_report(grade: Grade) -> CheckResult:
    """The report can be read as a whole."""
    problem, files = grade.problems.get("report"), "metrics.json, history.json and predictions.npz"
    return CheckResult(problem is None, files, problem or str(grade.report))


def check_checkpoint(grade: Grade) -> CheckResult:
    """The checkpoint can be read as a whole."""
    problem, expected = grade.problems.get("checkpoint"), "the best.pt of the report's run"
    return CheckResult(problem is None, expected, problem or str(grade.checkpoint_path))


def check_settings(grade: Grade) -> CheckResult:
    """The checkpoint was made with the settings, and in the epoch, that the report tells."""
    content, metrics = grade.checkpoint, grade.metrics
    own, other = comparable(metrics["settings"]), comparable(content["settings"])
    wrong = [
        f"{key} {other.get(key)} instead of {own.get(key)}"
        for key in sorted(own.keys() | other.keys())
        if own.get(key) != other.get(key)
    ]
    if content["epoch"] != metrics["best_epoch"]:
        wrong.append(f"epoch {content['epoch']} instead of {metrics['best_epoch']}")
    seen = "the same" if not wrong else "another run's: " + ", ".join(wrong[:4])
    known = [g for g in grade.grader.grades if g.metrics is not None and own != other]
    owners = [g.level for g in known if comparable(g.metrics["settings"]) == other]
    seen = f"{owners[0]}'s checkpoint: {seen}" if owners else seen
    expected = "a checkpoint made with the report's settings"
    return CheckResult(not wrong and not owners, expected, seen)


def check_data(grade: Grade) -> CheckResult:
    """The pictures are those of the report and the checkpoint, by what this checkout reads."""
    claimed, grader = grade.metrics["data"], grade.grader
    try:
        grade.config = _config_for_here(grade)
        grade.runtime = start_as_then(grade.config, grade.metrics)
        size = input_size(grade.config.network)
        key = repr((grade.config.data, size))
        if key not in grader.data:
            grader.data[key] = load_splits(grade.config.data, size)
    except UserError as error:
        hint = "" if grader.data_root else "; --data-root says where the pictures are here"
        return CheckResult(False, "the pictures of the report's settings", f"{error}{hint}")
    data = grade.data = grader.data[key]
    wrong = _other_hashes(data.fingerprint, claimed["fingerprint"], grade.checkpoint["fingerprint"])
    counts = {"train": len(data.train), "val": len(data.val), "test": len(data.test)}
    counts |= {"classes": len(data.classes), "skipped": data.skipped}
    counts["dropped"] = len(data.dropped or ())
    for key, count in counts.items():
        if claimed.get(key, 0) != count:  # earlier reports do not say what was dropped
            wrong.append(f"{claimed.get(key, 0)} {key} in the report instead of {count}")
    return _compared(f"{data.title}, fingerprint {data.fingerprint[:12]}...", wrong)


def _config_for_here(grade: Grade) -> LevelConfig:
    """The run's settings; what goes by its path's name keeps the name it had where it lay."""
    metrics, places = grade.metrics, (grade.grader.data_root, grade.grader.weights)
    config = read_settings(metrics["settings"], grade.project, *places)
    if config.data.name == "folder" and grade.grader.data_root and config.data.title is None:
        config.data.title = metrics["data"]["title"]
    named = config.network.weights in NAMED or config.network.weights_title
    if grade.grader.weights and not named:
        config.network.weights_title = metrics["weights"]["name"]
    return config


def start_as_then(config: LevelConfig, metrics: dict) -> Runtime:
    """The run's device, precision and threads where this machine has them, else its own best."""
    threads = metrics["machine"].get("threads")
    here = type(threads) is int and 1 <= threads <= (os.cpu_count() or 1)
    config.train.threads = threads if here else None
    try:
        return start_runtime(config.train, config.fast)
    except UserError:
        config.train.device = config.train.precision = "auto"
        config.train.compile = False
        return start_runtime(config.train, config.fast)


def check_split(grade: Grade) -> CheckResult:
    """Train and val are divided as the report and the checkpoint say."""
    found, claimed = grade.data.split, grade.metrics["data"]["split"]
    wrong = _other_hashes(found, claimed, grade.checkpoint["split"])
    return _compared(f"split {found[:12]}...", wrong)


def check_duplicates(grade: Grade) -> CheckResult:
    """No test picture is among those that were trained on or chosen with."""
    return _duplicates(grade.data)


@lru_cache(maxsize=1)  # levels share their pictures
def _duplicates(data: Splits) -> CheckResult:
    rows = torch.cat([data.train.rows, data.val.rows])
    shared = int(torch.isin(data.test.rows, rows).sum())
    exact = duplicates.exact_copies(data.test, [data.train, data.val])
    near = duplicates.near_copies(data.test, [data.train, data.val])
    published = data.name in KINDS or data.name == "digits"  # checked archives are as they are
    seen = (
        f"{len(exact)} exact copies, {near} of {len(data.test)} look much like one (counted only)"
    )
    if names := duplicates.listed(exact):
        seen += f"; the copies: {names}; take them out of the data"
        seen += f"; {duplicates.WAY_ON}" if duplicates.exact_copies(data.test, [data.train]) else ""
    return CheckResult(not shared and (published or not exact), "no exact copy", seen)


def check_weights(grade: Grade) -> CheckResult:
    """The starting weights' file is the one that the run says it started from."""
    config = grade.config
    try:
        weights = describe_weights(config.network)
        start = [] if config.network.weights == "none" else [_started(grade)]
        own = grade.checkpoint, config.network, grade.checkpoint_path
        grade.checkpoint = completed(*own)
    except UserError as error:
        hint = "" if grade.grader.weights else "; --weights says where they are here"
        return CheckResult(False, "the weights of the report's settings", f"{error}{hint}")
    grade.weights, grade.start = weights, start
    return same_weights(grade, weights)


def same_weights(grade: Grade, weights: Weights) -> CheckResult:
    """What the report and the checkpoint say of the starting weights' file, against it."""
    claims = grade.metrics["weights"]["sha256"], grade.checkpoint.get("weights")
    wrong = _other_hashes(weights.sha256, *claims)
    return _compared(f"{weights.name}, SHA-256 {str(weights.sha256)[:12]}...", wrong)


def _started(grade: Grade) -> dict[str, Tensor]:
    """The stages as they began: with the weights, and batch norm adapted where it is to be. Levels
    that begin alike share them.
    """
    config, data, device = grade.config.network, grade.data, grade.runtime.device
    count = 0 if config.start_from else pictures_to_adapt(config, data)
    pictures = (data.fingerprint, data.split) if count else ()
    facts = repr(config.arch), describe_weights(config), count, pictures, device
    if facts not in _starts:
        network = StagedNetwork(build_backbone(config), nn.Identity(), [], [])
        network.to(device, memory_format=torch.channels_last)
        if count:
            adapt_batch_norm(network, data, count, grade.runtime)
        for oldest in list(_starts)[:-1]:
            del _starts[oldest]
        _starts[facts] = {key: value.cpu() for key, value in network.state_dict().items()}
    return _starts[facts]


def check_frozen(grade: Grade) -> CheckResult:
    """What the run says it froze is, to the last bit, what it started from; statistics that were
    estimated anew, but for rounding, as another machine's is.
    """
    network, start, missing = grade.config.network, grade.start, ""
    expected = "frozen tensors as in the starting weights"
    adapted = pictures_to_adapt(network, grade.data)
    if claims := _other_starts(grade, adapted):
        return CheckResult(False, expected, claims)
    if network.weights == "none" and not network.start_from:
        return CheckResult(True, expected, "they started at random: not compared")
    if level := network.start_from:
        folder = grade.checkpoint_path.parent.parent
        started = grade.metrics.get("started_from") or ""  # by its folder's name
        level = level.partition("/")[0]
        own = started.split("-")[0] == level and Path(started).name == started
        path = folder / (started if own else run_name(level, OWN, grade.config.seed)) / "best.pt"
        try:
            lower = completed(read_checkpoint(path), network, path)["network"]
            # the very one, or one that has been trained again since
            same = digest(lower) == grade.metrics.get("start")
            start = [lower] if same else [*start, lower]
        except Exception:  # its own level's checks say what is wrong with it
            missing = f" ({level}'s checkpoint is missing or unreadable)"
    state = grade.checkpoint["network"]
    frozen = [key for key in state if _part(key) not in network.trainable]
    known = [key for key in frozen if any(key in tensors for tensors in start)]
    changed = [
        k
        for k in known
        if not any(_same(state[k], other.get(k), k, near=adapted > 0) for other in start)
    ]
    seen = f"{len(changed)} of {len(known)} changed"
    if changed:
        seen += f", in {', '.join(sorted({_part(key) for key in changed}))}{missing}"
    unknown = len(frozen) - len(known)
    seen += f"; {unknown} not in those weights" if unknown else ""
    return CheckResult(not changed, expected, seen)


def _other_starts(grade: Grade, adapted: int) -> str:
    """What report and checkpoint say of the start that is not so, or not the same."""
    told = {"the report": grade.metrics, "the checkpoint": grade.checkpoint}
    counts = {who: content.get("adapted", 0) for who, content in told.items()}
    wrong = [
        f"batch norm adapted on {count} pictures, by {who}, instead of {adapted}"
        for who, count in counts.items()
        if count != adapted
    ]
    if grade.metrics.get("start") != grade.checkpoint.get("start"):
        wrong.append("another start in the report than in the checkpoint")
    return ", ".join(wrong)


def _part(key: str) -> str:
    parts = key.split(".")
    return parts[1] if parts[0] == "stages" and len(parts) > 1 else parts[0]


def _same(tensor: Tensor, other: Tensor | None, key: str, near: bool) -> bool:
    if other is None or tensor.shape != other.shape or tensor.dtype != other.dtype:
        return False
    if near and key.endswith(STATISTICS):
        return torch.allclose(tensor, other, rtol=1e-3, atol=1e-4)
    return torch.equal(tensor, other)


def check_network(grade: Grade) -> CheckResult:
    """The level's network takes the weights, and gives logits of the test pictures."""
    expected = "build_network's network with these weights"
    try:
        test, single = logits_of(grade, grade.checkpoint_path)
    except UserError as error:
        return CheckResult(False, expected, str(error))
    grade.predictions, grade.single, grade.test = test, single, test.score()
    correct, total = grade.test["correct"], grade.test["total"]
    grade.test["interval"] = statistics.wilson_interval(correct, total)
    grade.same = same_machine(grade.metrics, grade.runtime)
    machine = f"{grade.runtime.device}, {grade.runtime.precision}"
    return CheckResult(True, expected, f"built; {machine}")


def logits_of(grade: Grade, checkpoint: Path) -> tuple[Predictions, Predictions]:
    """What the level's network makes of the test pictures with a checkpoint's weights."""
    level, timeout = grade.project / grade.level, grade.grader.timeout
    return sandbox.test_logits(level, grade.config, checkpoint, grade.data, timeout)


def same_machine(metrics: dict, runtime: Runtime) -> bool:
    """Whether equal predictions are due: the device, precision and versions of the run.

    Several processes, which divide the batches, round otherwise than the grader's one.
    """
    here = provenance(runtime)
    keys = {"machine": ("device", "cpu", "gpu", "precision", "threads")}
    keys["versions"] = ("torch", "torchvision", "numpy", "arithmetic")
    alone = metrics["machine"].get("processes", 1) == 1
    same = (metrics[g].get(key) == here[g][key] for g, names in keys.items() for key in names)
    return alone and all(same)


def check_predictions(grade: Grade) -> CheckResult:
    """predictions.npz is what the checkpoint makes of the test pictures."""
    saved, labels = grade.arrays, grade.predictions.labels.numpy()
    logits, total = grade.predictions.logits.numpy(), len(labels)
    allowed = _allowed(total, grade.same)
    expected = f"the checkpoint's predictions, {allowed} of {total} different at most"
    if saved["logits"].shape != logits.shape or not np.array_equal(saved["labels"], labels):
        return CheckResult(False, expected, "other labels than the test set's")
    differ = int((saved["predictions"] != grade.predictions.classes.numpy()).sum())
    gap = float(np.abs(saved["logits"].astype(np.float32) - logits).max() / np.abs(logits).max())
    close = not grade.same or gap <= 2e-3  # twice float16's rounding
    seen = f"{differ} of {total} differ, logits by {gap:.1e} of the largest"
    chosen = saved["logits"][np.arange(total), saved["predictions"]]
    torn = int((chosen < saved["logits"].max(1)).sum())
    seen += f"; {torn} are not their own logits' class" if torn else ""
    single = grade.single.classes.numpy()
    moved = int((saved.get("single", single) != single).sum())
    seen += f"; {moved} differ in a single pass" if moved else ""
    return CheckResult(max(differ, moved) <= allowed and close and not torn, expected, seen)


def _allowed(total: int, same: bool) -> int:
    """How many of so many predictions may come out otherwise."""
    return 0 if same else math.floor(LENIENCE * total)


def check_metrics(grade: Grade) -> CheckResult:
    """metrics.json's test figures are the recomputed ones, and it is about this run."""
    metrics, config, data, same = grade.metrics, grade.config, grade.data, grade.same
    facts = {"tta": tta_of(config, data), "image_size": grade.weights.image_size}
    facts |= {"weights.name": grade.weights.name, "data.title": data.title, "data.name": data.name}
    facts |= {"trainable": config.network.trainable, "level": grade.level, "seed": config.seed}
    said, wrong = flat(metrics), []
    for key, value in facts.items():
        claim = said.get(key)
        if claim != value and not (key == "trainable" and set(claim) == set(value)):
            wrong.append(f"{key} {claim} instead of {value}")
    name = run_name(metrics["level"], metrics["config"], metrics["seed"])
    if name != grade.report.name:
        wrong.append(f"a report of {name} in {grade.report.name}")
    test, claims = grade.predictions, metrics["detail"]
    detail = statistics.describe(test.logits.numpy(), test.labels.numpy())
    detail["interval"] = list(grade.test["interval"])
    for key, value in detail.items() if same else ():
        if not _equal(claims[key], value, 1e-4):
            wrong.append(f"detail.{key} {str(claims[key])[:60]} instead of {str(value)[:60]}")
    for part, score in {"test": grade.test, "test_single": grade.single.score()}.items():
        claim, total = metrics[part], score["total"]
        near = abs(claim["correct"] - score["correct"]) <= _allowed(total, same)
        near &= claim["total"] == total
        if not near or claim["accuracy"] != claim["correct"] / total:
            figures = f"{claim['correct']} of {claim['total']} ({claim['accuracy']:.4f})"
            wrong.append(f"{part} {figures} instead of {score['correct']} of {total}")
        elif not math.isclose(claim["loss"], score["loss"], rel_tol=1e-4 if same else 0.05):
            wrong.append(f"{part} loss {claim['loss']:.6f} instead of {score['loss']:.6f}")
    expected = f"test {grade.test['correct']} of {grade.test['total']} right"
    near = "the same within 0.2 % (another machine or version)"
    return CheckResult(not wrong, expected, ", ".join(wrong) or ("the same" if same else near))


def _equal(claimed: object, found: object, tolerance: float) -> bool:
    """Whether a figure, a list of figures or a text is the recomputed one."""
    if found is None or isinstance(found, str):
        return claimed == found
    pair = np.asarray(claimed, float), np.asarray(found, float)
    return pair[0].shape == pair[1].shape and np.allclose(*pair, 0, tolerance, equal_nan=True)


def check_history(grade: Grade) -> CheckResult:
    """The epoch that was tested is the one that history.json says was best on val."""
    metrics, values = grade.metrics, [epoch["val_accuracy"] for epoch in grade.history]
    best, highest = values.index(max(values)) + 1, max(values)
    epochs, tested, accuracy = metrics["epochs"], metrics["best_epoch"], metrics["val"]["accuracy"]
    seen = f"epoch {tested} of {epochs} with val {accuracy:.4f}"
    seen += f"; history.json: epoch {best} of {len(values)} with {highest:.4f}"
    # val is scored anew after training, where rounding may move a picture
    close = (epochs, tested) == (len(values), best) and abs(accuracy - highest) <= LENIENCE
    return CheckResult(close, "the tested epoch is the best of history.json", seen)


def check_benchmark(grade: Grade) -> CheckResult:
    """The accuracy reaches the benchmark that applies, if one does."""
    grade.bar, reason = _find_bar(grade)
    if grade.bar is None:
        return CheckResult(True, "a row that matches", f"{reason}: gains and integrity only")
    percent = 100 * grade.test["accuracy"]
    return CheckResult(percent >= grade.bar, f"at least {grade.bar:g} %", f"{percent:.2f} %")


def _find_bar(grade: Grade) -> tuple[float | None, str]:
    """The benchmark in percent that applies, and where none does, why."""
    metrics, data, network = grade.metrics, grade.config.data, grade.config.network
    title, weights = metrics["data"]["title"], metrics["weights"]["name"]
    size = metrics["image_size"]
    if data.limit is not None:
        return None, f"data.limit {data.limit}: only part of the pictures"
    known = {title: name for name, title in TITLES.items()} | {"digits": "digits"}
    if known.get(title, data.name) != data.name:
        return None, f"pictures called {title} that are {data.name}"
    if weights in NAMED and weights != network.weights:
        return None, f"weights called {weights} that are {network.weights}"
    for row in grade.benchmarks:
        if (row.data, row.weights, row.image_size) == (title, weights, size):
            return row.accuracy, ""
    return None, f"no row for {title}, {weights}, {size} px"


def check_gain(grade: Grade) -> CheckResult:
    """No loss against the next lower level, on the same test pictures."""
    expected, below = "no loss against the level below", grade.below
    if below is None:
        return CheckResult(True, expected, "there is no level below")
    if below.predictions is None:
        return CheckResult(None, expected, f"not run: {below.level} gave no predictions")
    own, other = grade.data, below.data
    if (own.fingerprint, own.split) != (other.fingerprint, other.split):
        seen = f"{below.level} is on other pictures or another split: no comparison"
        return CheckResult(False, expected, seen)
    new, old = grade.predictions, below.predictions.classes.numpy()
    gain = statistics.compare(new.labels.numpy(), old, new.classes.numpy())
    grade.gain = gain | {"level": below.level}
    low, high = map(points, gain["interval"])
    seen = f"{gain['verdict']}: {points(gain['gain'])} points over {below.level}"
    seen += f" (95 % interval {low} to {high}, p {gain['p_value']:.2g}, "
    seen += f"{gain['fixed']} fixed, {gain['broken']} broken)"
    return CheckResult(gain["verdict"] != "loss", expected, seen)


def check_claimed_gain(grade: Grade) -> CheckResult:
    """metrics.json's `below` is the recomputed gain."""
    gain, below, claimed = grade.gain, grade.below, grade.metrics["below"]
    if gain is None and below is not None and below.predictions is None:
        return CheckResult(None, "", grade.results["gain"].seen)
    if gain is None:
        return CheckResult(claimed is None, "none", str(claimed).lower())
    expected = f"{points(gain['gain'])} points over {gain['level']}"
    if claimed is None:  # it ran before the level below did
        return CheckResult(True, expected, "none claimed")
    same = grade.same and below.same
    wrong = [] if claimed["level"] == gain["level"] else [f"over {claimed['level']}"]
    if abs(claimed["gain"] - gain["gain"]) > (1e-9 if same else 2 * LENIENCE):
        wrong.append(f"{points(claimed['gain'])} points")
    for key in ("interval", "p_value", "fixed", "broken", "verdict") if same else ():
        if not _equal(claimed[key], gain[key], 1e-9):
            wrong.append(f"{key} {claimed[key]} instead of {gain[key]}")
    seen = ", ".join(wrong) + "; changed, or the level below has run again since"
    return CheckResult(not wrong, expected, seen if wrong else "the same")


Check = Callable[[Grade], CheckResult]
CHECKS: dict[str, tuple[Check, *tuple[str, ...]]] = {  # the check, and what it needs of a grade
    "report": (check_report,),
    "checkpoint": (check_checkpoint, "metrics"),
    "checkpoint is this run's": (check_settings, "checkpoint"),
    "data": (check_data, "checkpoint"),
    "split": (check_split, "data"),
    "test pictures not in train": (check_duplicates, "data"),
    "starting weights": (check_weights, "data"),
    "frozen parts": (check_frozen, "start"),
    "network": (check_network, "start"),
    "predictions.npz": (check_predictions, "predictions", "arrays"),
    "metrics.json": (check_metrics, "predictions"),
    "history.json": (check_history, "start", "history"),
    "benchmark": (check_benchmark, "predictions"),
    "gain": (check_gain, "predictions"),
    "gain claimed": (check_claimed_gain, "predictions"),
}
