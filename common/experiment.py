"""One run of one level: where it stands, what it uses, and what it leaves."""

import contextlib
import dataclasses
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from common import levels
from common.audit.context import SCRATCH, AuditContext
from common.audit.runner import audit
from common.cli import ONCE
from common.config import LevelConfig, yaml_files
from common.config.schema import flat
from common.data import Splits, build_augmentation, cifar, load_splits
from common.data.image_folder import in_words
from common.data.splits import in_turn
from common.earlier import PASSED, audit_digest, hangs_on, lower_run, set_aside
from common.evaluation import Results, statistics
from common.models import StagedNetwork, check_network, input_size, weights
from common.models.adapt import adapt_batch_norm, batch_norm_statistics, pictures_to_adapt
from common.reports.schema import Run
from common.reports.store import Reports, check_place, write_report
from common.reports.summary import network_rows
from common.runtime import command, counter_seed, distributed, provenance, start_runtime
from common.training import checkpoint, guards
from common.training.logging import Logbook, TensorBoardLog
from common.training.place import HANGS_ON, Place, restarted
from common.training.progress import best_epoch, check_resumable, check_unfinished, resumed
from common.training.schedules import build_schedule
from common.utils.download import fetch
from common.utils.errors import UserError
from common.utils.files import check_writable, clear_drafts, read_bytes, write_whole
from common.utils.paths import OWN, reports_folder, run_name, runs_folder, tilde

log = logging.getLogger("rungs")

APART = "network.trainable", "network.taps", "network.start_from"  # each level has its own

EXAMPLES = 24  # training pictures, each class in turn, that a report shows


class Experiment:
    """A level's run with one config and seed.

    Args:
        script: the level's run.py.
        config: its configuration.
    Attributes:
        data: the splits.
        place: runs/<title>/<level>[-<recipe>][-seed<k>], where the run is when it has finished.
        folder: where it is at work, with checkpoints and the log.
        runtime: device and precision.
    """

    def __init__(self, script: str | Path, config: LevelConfig):
        self.script = Path(script).resolve()
        folder = self.script.parent
        self.level, self.levels, self.config = folder.name, folder.parent, config
        build_augmentation(config.augment, mirror=True)  # an unknown name is said before the work
        build_schedule(config.train.schedule, steps=1)
        check_network(config.network)
        self.processes = distributed.join(config.train.device)
        self.runtime = start_runtime(config.train, config.fast, self.processes)
        with self.processes.in_turn():
            fetch([*cifar.missing(config.data), *weights.missing(config.network)])
            self.data: Splits = load_splits(config.data, input_size(config.network))
        self.name = run_name(self.level, config.recipe, config.seed)
        self.place = Place(runs_folder(self.data.title, config.given) / self.name)
        self.folder = self.place.work
        self.reports = reports_folder(config.reports, self.data.title, config.given)
        if self.processes.broadcast_object(restarted(self.folder)):
            config.resume = True
        self.code = levels.code_at_start(folder)
        self.begun, self.lower = False, None
        self.adapting = 0.0  # seconds
        if self.processes.first:
            self._take_place()
        self.folder = self.processes.broadcast_object(self.folder)
        self._agree()

    def _take_place(self) -> None:
        """Make sure that the run can be written, and nothing else be harmed; begin its log."""
        config, folder = self.config, self.place.folder
        check_place(self.reports, self.name)
        check_writable(folder.parent, "make it writable, or choose another place with --runs")
        check_writable(self.reports, "make it writable, or choose another with --reports")
        guards.lock(folder)
        self.place.settle()
        set_aside(self.place, self.reports, config, self.data)
        self.folder = self.place.work
        self.folder.mkdir(exist_ok=True)
        clear_drafts(self.folder)
        for leftover in self.folder.glob("*.features"):  # of use to a run at work alone
            leftover.unlink()
        for leftover in self.folder.glob(f"{SCRATCH}*"):  # as what an audit wrote
            shutil.rmtree(leftover)
        if config.resume:
            check_resumable(self.folder, config, self.data)
        else:
            check_unfinished(self.folder, config)
        TensorBoardLog(config.log, self.folder).close()  # what is not installed is said now
        self._log_to_file()
        self._say_what_it_uses()

    def _agree(self) -> None:
        """Raise UserError where another process has other pictures, options or versions."""
        facts = {"options": self.config.settings(), "version of torch": torch.__version__}
        facts |= {"pictures": self.data.fingerprint, "split": self.data.split}
        facts |= {"device": self.runtime.device.type, "precision": self.runtime.precision}
        self.processes.check_equal(facts)

    def build(self, build_network: Callable[[LevelConfig, int], StagedNetwork]) -> StagedNetwork:
        """The level's network on the device, started from weights or another level's best."""
        torch.manual_seed(counter_seed(self.config.seed, "start"))
        with self.processes.in_turn():
            network = build_network(self.config, len(self.data.classes))
        network.to(self.runtime.device, memory_format=torch.channels_last)
        if self.processes.first:
            if self.config.network.start_from:
                self._start_from(network, self.config.network.start_from)
            else:
                self._adapt(network)
            guards.check_room(self.folder, network, self.config.train.ema is not None)
        facts = self.processes.broadcast_object((network.start, network.adapted))
        network.start, network.adapted = facts
        self.processes.broadcast_(network.state_dict().values())
        self.frozen_before = network.frozen_hash()
        return network

    def audit(self, build_network: Callable[[LevelConfig, int], StagedNetwork]) -> None:
        """Look for the classic training bugs, unless `config.audit` is off; then the run begins.

        Raises:
            AuditFailed: the checks that failed. What an earlier run left is as it was.
        """
        if self.processes.first:
            if self.config.audit:
                self._audit(build_network)
            self._begin()
        self.processes.barrier()

    def _audit(self, build_network: Callable[[LevelConfig, int], StagedNetwork]) -> None:
        """Look for bugs, unless none was found when all that an audit hangs on was the same."""
        state = audit_digest(self.script.parent, self.config, self.data, self.runtime)
        place = self.place.folder.parent / PASSED / self.name
        with contextlib.suppress(OSError, ValueError):
            before, when = read_bytes(place).decode("utf-8").split("\n")[:2]
            if before == state and self.config.audit == "auto":
                log.info("audit: passed %s, and nothing that it looks at has changed", when)
                return
        facts = self.config, build_network, self.data, self.runtime, self._main()
        audit(AuditContext(*facts, scratch=self.folder))
        place.parent.mkdir(exist_ok=True)
        write_whole(place, f"{state}\n{time.strftime('%Y-%m-%d %H:%M')}\n")

    def _main(self) -> Callable[[LevelConfig], dict] | None:
        """The level's main: that of the script at work, or of a copy of it."""
        script = sys.modules["__main__"]
        if Path(getattr(script, "__file__", None) or ".").resolve() != self.script:
            script = levels.load_module(self.script.parent)
        return getattr(script, "main", None)

    def _begin(self) -> None:
        """Write the settings, and from now on the log; until here nothing of the folder changed."""
        write_whole(self.folder / "config.yaml", yaml_files.write(self.config.settings()))
        now = {"code": self.code, "torch": torch.__version__}
        self.began = self.place.begin(now, self.config.resume)
        if others := [HANGS_ON[name] for name in now if self.began[name] != now[name]]:
            log.warning("began with another %s, and goes on with this one", " and ".join(others))
        self.logbook.begin()
        self.begun = True

    def report(self, network: StagedNetwork, history: list[dict], results: Results) -> dict:
        """Write this run's report, on the first process; returns the metrics."""
        frozen = {"before": self.frozen_before, "after": network.frozen_hash()}
        if frozen["before"] != frozen["after"]:
            raise RuntimeError(f"frozen stages changed during training: {frozen}")
        parts = "train", "val", "test", "test_single"
        metrics = {
            "schema": 1,
            "level": self.level,
            "config": self.config.recipe,
            "seed": self.config.seed,
            "place": self.place.folder.parent.name,
            "data": _describe_data(self.data),
            "weights": {"name": network.weights.name, "sha256": network.weights.sha256},
            "adapted": network.adapted,
            "start": network.start,
            "started_from": self.lower,
            "image_size": network.weights.image_size,
            "trainable": network.trainable,
            "parameters": sum(p.numel() for p in network.parameters()),
            "trained_parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
            "network": network_rows(network, network.weights.image_size),
            "epochs": len(history),
            "best_epoch": best_epoch(history)["epoch"],
            **{part: getattr(results, part).score() for part in parts},
            "tta": results.tta,
            "frozen": frozen,
            "below": None,
            "detail": _detail(results),
            "seconds": round(
                self.adapting + sum(e["seconds"] for e in history) + results.seconds, 1
            ),
            **provenance(self.runtime),
            "settings": self.config.settings(),
        }
        if not self.processes.first:
            return metrics
        if not self.begun:
            log.warning("not audited: run.py has no line run.audit(build_network)")
            self._begin()
        run = Run(
            self.reports / self.name,
            metrics,
            history,
            labels=results.test.labels.numpy(),
            predictions=results.test.classes.numpy(),
            single=results.test_single.classes.numpy(),
            logits=results.test.logits.numpy(),
            classes=list(self.data.classes),
        )
        reports = Reports.read(self.reports)
        metrics["below"] = reports.gain(run)
        some = self.data.train.subset(in_turn(self.data.train.labels)[:EXAMPLES])
        examples = some.images.numpy(), some.labels.numpy()
        write_report(run, reports.below(run), examples)
        log.info("test accuracy %.2f %%; report: %s", 100 * metrics["test"]["accuracy"], run.folder)
        log.removeHandler(self.logbook)
        self.logbook.close()
        self.place.finish(self._facts(network, metrics))
        return metrics

    def _facts(self, network: StagedNetwork, metrics: dict) -> dict:
        """What run.json says of the run."""
        state = dict(sorted(network.state_dict().items()))
        below = metrics["below"] or {}
        return {
            **hangs_on(self.code, self.data, network.weights.sha256),
            **self.began,
            "below": network.start if self.lower else None,
            "network": checkpoint.digest(state),
            "level": self.level,
            "recipe": self.config.recipe,
            "differ": self.config.differ,
            "seed": self.config.seed,
            "accuracy": metrics["test"]["accuracy"],
            "gain": below.get("gain"),
            "report": str(tilde(str((self.reports / self.name).absolute()))),
            "when": time.strftime("%Y-%m-%d %H:%M"),
        }

    def _adapt(self, network: StagedNetwork) -> None:
        """Estimate batch norm's statistics anew; of a run that goes on they are in its checkpoint,
        and computed with another number of threads they might differ in the last bit.
        """
        count = pictures_to_adapt(self.config.network, self.data)
        if not count:
            return
        started = time.perf_counter()
        last = self.folder / "last.pt"
        if content := resumed(last):
            state = content["network"]
            adapted = {key: state.get(key) for key in batch_norm_statistics(network)}
            checkpoint.load_network(network, {"network": network.state_dict() | adapted}, last)
            network.start = content["start"]  # of what trains, the statistics have moved since
        else:
            adapt_batch_norm(network, self.data, count, self.runtime)
            log.info("batch norm adapted to %d training pictures", count)
            network.start = checkpoint.digest(batch_norm_statistics(network))
        network.adapted = count
        self.adapting = time.perf_counter() - started

    def _start_from(self, network: StagedNetwork, name: str) -> None:
        """Load the best checkpoint of another level's run with the same data, weights and seed."""
        lower, stem = lower_run(self.config, self.levels, self.place.folder)
        path = lower.folder / "best.pt"
        script = self.levels / name.partition("/")[0] / "run.py"
        how = f"run first: {_command_for(script, stem, self.config)}"
        if not path.is_file():
            raise UserError(f"{self.level} starts from {name}'s best checkpoint; {how}")
        content = checkpoint.read_checkpoint(path)
        facts = {
            "fingerprint": (self.data.fingerprint, "pictures"),
            "split": (self.data.split, "split"),
            "weights": (network.weights.sha256, "starting weights"),
            "adapted": (
                pictures_to_adapt(self.config.network, self.data),
                "network.adapt_batch_norm",
            ),
            "image_size": (network.weights.image_size, "network.image_size"),
            "stored_size": (self.data.train.source.shape[-1], "data.stored_size"),
        }
        for fact, (own, what) in facts.items():
            if content.get(fact) != own:
                raise UserError(f"{path}: made with other {what} than this run's; {how}")
        content = checkpoint.completed(content, self.config.network, path)
        network.adapted, network.start = content["adapted"], checkpoint.digest(content["network"])
        new_head = self.config.network.new_head
        differ = content["network"].keys() ^ network.state_dict().keys()
        if differ and not new_head and all(key.startswith("head.") for key in differ):
            raise UserError(
                f"{path}: has another head than this run's network; --network.new_head true takes "
                "the stages alone"
            )
        load = checkpoint.load_stages if new_head else checkpoint.load_network
        load(network, content, path)
        self.lower, head = lower.folder.name, ", with a new head" if new_head else ""
        log.info("starts from %s, epoch %d%s", path, content["epoch"], head)

    def _log_to_file(self) -> None:
        for handler in [h for h in log.handlers if isinstance(h, Logbook)]:
            log.removeHandler(handler)
            handler.close()
        self.logbook = Logbook(self.folder, self.config.resume)
        log.addHandler(self.logbook)

    def _say_what_it_uses(self) -> None:
        data, machine = self.data, self.runtime
        log.info("%s, seed %d: %s", self.level, self.config.seed, command())
        counts = len(data.train), len(data.val), len(data.test), len(data.classes)
        words = "%s: %d train, %d val, %d test pictures, %d classes"
        log.info(words, data.title, *counts, extra=ONCE)
        if data.left_out:
            log.info("left out: %s", in_words(data.left_out), extra=ONCE)
        if data.dropped:
            words = "left out of train: %d copies of val or test pictures"
            log.info(words, len(data.dropped), extra=ONCE)
        if not data.mirror:
            words = "a mirrored picture is another one here: flips off, TTA by one-pixel shifts"
            log.info(words, extra=ONCE)
        several = f", {self.processes.world} processes" if self.processes.world > 1 else ""
        log.info("%s, %s%s", machine.device, machine.precision, several, extra=ONCE)


def _detail(results: Results) -> dict:
    """More of the test score than its accuracy; the temperature is fitted on val."""
    val, test, score = results.val, results.test, results.test.score()
    temperature = statistics.fit_temperature(val.logits.numpy(), val.labels.numpy())
    detail = statistics.describe(test.logits.numpy(), test.labels.numpy(), temperature)
    interval = statistics.wilson_interval(score["correct"], score["total"])
    seconds = {"test": results.test_seconds, "test_single": results.single_seconds}
    return {"interval": list(interval), **detail, "seconds": seconds}


def _describe_data(data: Splits) -> dict:
    counts = {"train": len(data.train), "val": len(data.val), "test": len(data.test)}
    facts = {key: getattr(data, key) for key in ("name", "title", "fingerprint", "split")}
    counts |= {"skipped": data.skipped, "left_out": sum(data.left_out.values())}
    counts["dropped"] = len(data.dropped or ())
    return {**facts, "classes": len(data.classes), "mirror": data.mirror, **counts}


def _command_for(script: Path, stem: str, config: LevelConfig) -> str:
    """The command that runs another level, or a config of it, on this run's data and weights."""
    level = script.parent
    words = f"python {level.name}/{script.name}"
    for file in [*level.rglob(f"{stem}.yaml")][:1] if stem != OWN else ():
        words += f" --config {file.relative_to(level.parent)}"
    own, default = (flat(dataclasses.asdict(settings)) for settings in (config, LevelConfig()))
    shared = [key for key in own if key.startswith(("data.", "network."))]
    for key in (*shared, "reports", "runs", "seed"):
        if own[key] != default[key] and key not in APART:
            text = str(own[key]).lower() if isinstance(own[key], bool) else str(own[key])
            words += f" --{key} {shlex.quote(text)}"
    return words
