"""Runs that there are: the one that a run starts from, whether one is done, and what becomes of one
whose settings are others than its name says."""

import hashlib
import json
import logging
import shutil
from pathlib import Path

import torch

from common import levels
from common.config import LevelConfig, load_config
from common.config.ended import DONE, run_facts, settings_of
from common.config.recipe import is_shared, joined, shortened
from common.config.schema import PATHS, changed, comparable, flat
from common.data import Splits, load_splits, splits
from common.models import input_size, weights
from common.reports.figures.album import ALBUM, places
from common.reports.schema import read_metrics
from common.reports.store import FILES
from common.runtime import Runtime
from common.training.place import HANGS_ON, Place
from common.utils.errors import UserError, nearest
from common.utils.files import drafted_folder, read_json, write_whole
from common.utils.paths import OWN, expanded, reports_folder, run_name, runs_folder, tilde

log = logging.getLogger("rungs")

PASSED = ".audits"  # folder beside the runs: what was audited when its audit passed


def hangs_on(code: str, data: Splits, weights: str | None) -> dict[str, str | None]:
    """What a run's result hangs on besides its settings, as run.json has it."""
    return {
        "code": code,
        "torch": torch.__version__,
        "fingerprint": data.fingerprint,
        "split": data.split,
        "weights": weights,
    }


def audit_digest(level: Path, config: LevelConfig, data: Splits, runtime: Runtime) -> str:
    """SHA-256 over what an audit's outcome hangs on."""
    code = levels.code_digest(level, (*levels.ROOMS, "audit"))
    facts = hangs_on(code, data, weights.describe_weights(config.network).sha256)
    facts["device"] = str(runtime.device)
    settings = comparable(config.settings())
    return hashlib.sha256(json.dumps([facts, settings], sort_keys=True).encode()).hexdigest()


def lower_run(config: LevelConfig, project: Path, folder: Path) -> tuple[Place, str]:
    """The run that one in this folder starts from, and the stem of its config's file: the recipe
    that start_from names, else the first that is there of this run's name, of its options, and the
    level's own.

    Raises:
        UserError: there is no such level or recipe.
    """
    name, seed = config.network.start_from, config.seed
    level, _, recipe = name.partition("/")
    known = [path.name for path in levels.find_levels(project)]
    if level not in known:
        raise UserError(f"network.start_from: no level '{level}'{nearest(level, known)}")
    stems = {file.stem for file in (project / level).rglob("*.yaml")}
    given = [config.lower] if config.lower != OWN else []
    choices = [recipe, *given] if recipe else [*filter(None, [config.name]), *given, OWN]
    places = [Place(folder.parent / run_name(level, choice, seed)) for choice in choices]
    place = next((place for place in places if (place.folder / "best.pt").is_file()), places[-1])
    if place.folder == folder:
        raise UserError(f"network.start_from: a run cannot start from itself, {name}")
    if recipe and recipe not in stems and not place.folder.is_dir():
        hint = nearest(recipe, stems - {OWN})
        raise UserError(f"network.start_from: no config or run '{recipe}' of {level}{hint}")
    return place, recipe if recipe in stems else OWN


def set_aside(place: Place, reports: Path, config: LevelConfig, data: Splits) -> None:
    """Where a run of other settings has this run's name, as when the config's file was changed, it
    goes by what differs from the file now; and so does its report.

    Raises:
        UserError: the name was given, and is another recipe's.
    """
    own, name = config.settings(), place.folder.name
    for folder, read in ((place.folder, _of_run), (reports / name, _of_report)):
        settings, pictures, sha256 = read(folder)
        if not settings:
            continue
        differ = changed(comparable(settings), comparable(own))
        elsewhere = changed(
            {k: v for k, v in flat(settings).items() if k in PATHS},
            {k: v for k, v in flat(own).items() if k in PATHS},
        )
        there = {"data.root": data.fingerprint, "network.weights": None}
        if elsewhere:
            there["network.weights"] = weights.describe_weights(config.network).sha256
        others = {"data.root": pictures, "network.weights": sha256}
        differ |= {k: v for k, v in elsewhere.items() if others[k] != there[k]}
        if not differ:
            continue
        if config.name is not None:
            words = f"'{config.name}' is a run with other {', '.join(differ)}"
            raise UserError(f"{folder}: {words}; choose another --name")
        recipe = _recipe_now(settings, config)
        other, number = run_name(name.partition("-")[0], recipe, config.seed), 1
        while folder.with_name(other).exists():
            number += 1
            other = run_name(name.partition("-")[0], f"{recipe}-{number}", config.seed)
        log.info("%s is of other settings (%s): kept as %s", name, ", ".join(differ), other)
        for ending in ("", ".new"):
            if folder.with_name(name + ending).is_dir():
                folder.with_name(name + ending).rename(folder.with_name(other + ending))
        _say(folder.with_name(other), recipe if number == 1 else f"{recipe}-{number}")


def _recipe_now(settings: dict, config: LevelConfig) -> str:
    """What a run with these settings is called, by the config's file as it is now."""
    base = load_config(config.file).settings() if config.file.is_file() else config.settings()
    differ = changed(base, settings)
    own = {k: v for k, v in differ.items() if not is_shared(k) and k != "seed"}
    return joined(config.file.stem, shortened(own) or "before")


def _of_run(folder: Path) -> tuple[dict | None, str | None, str | None]:
    """A run's settings, and the SHA-256 of its pictures and of its starting weights."""
    facts = run_facts(folder) or {}
    return settings_of(folder), facts.get("fingerprint"), facts.get("weights")


def _of_report(folder: Path) -> tuple[dict | None, str | None, str | None]:
    metrics = _report_metrics(folder)
    if not metrics:
        return None, None, None
    return metrics["settings"], metrics["data"]["fingerprint"], metrics["weights"]["sha256"]


def _report_metrics(folder: Path) -> dict | None:
    try:
        return read_metrics(folder)
    except UserError:  # none, or damaged
        return None


def _say(folder: Path, recipe: str) -> None:
    """Let a run, or a report, that has another name now say so."""
    for kind, key in (("metrics.json", "config"), (DONE, "recipe")):
        if (folder / kind).is_file():
            content = read_json(folder / kind) | {key: recipe}
            if kind == DONE:
                report = expanded(content["report"])
                content["report"] = str(tilde(str(report.with_name(folder.name))))
            write_whole(folder / kind, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def place_of(level: Path, config: LevelConfig) -> Place:
    """Where a level's run with this config stands."""
    folder = runs_folder(splits.title_of(config.data), config.given)
    return Place(folder / run_name(level.name, config.recipe, config.seed))


def result_of(level: Path, config: LevelConfig, place: Place) -> tuple[dict | None, str]:
    """The metrics of a run that need not be done again; else None, and why it must be.

    Raises:
        UserError: a run has ended there of which this cannot be told.
    """
    no_file = (place.folder / DONE).is_dir()  # which no new one could replace
    if (file := place.damage()) and (no_file or not config.anew):
        raise UserError(
            f"{place.folder / file}: a run has ended here, and this is not readable: put it back, "
            "or move the folder away; --anew replaces it"
        )
    done = place.done()
    at_work = config.resume and (place.new / "last.pt").is_file()
    if config.anew or at_work or not done:
        return None, ""
    if changed(comparable(settings_of(place.folder) or {}), comparable(config.settings())):
        return None, ""
    data = load_splits(config.data, input_size(config.network))
    try:
        sha256 = weights.describe_weights(config.network).sha256
    except UserError:  # not here: then what it says must do
        sha256 = done.get("weights")
    own = hangs_on(levels.code_digest(level), data, sha256)
    if config.network.start_from:
        lower, _ = lower_run(config, level.parent, place.folder)
        own["below"] = (lower.done() or {}).get("network")
    if differ := [what for fact, what in HANGS_ON.items() if own.get(fact) != done.get(fact)]:
        return None, f"{' and '.join(differ)} changed"
    report = reports_folder(config.reports, data.title, config.given) / place.folder.name
    there = expanded(done["report"])
    if not report.is_dir() and _is_report(there, config, done):
        _copy_report(there, report)
    if not _is_report(report, config, done):
        return None, f"{report} is not its report"
    return _report_metrics(report), ""


def _is_report(folder: Path, config: LevelConfig, done: dict) -> bool:
    """Whether a report is this run's: by its settings, and by what it reached."""
    metrics = _report_metrics(folder)
    if not metrics or changed(comparable(metrics["settings"]), comparable(config.settings())):
        return False
    return metrics["test"]["accuracy"] == done["accuracy"]


def _copy_report(there: Path, folder: Path) -> None:
    """Copy a report, and nothing else that lies there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    names = {*FILES, *(file.name for file in places(ALBUM, there))}
    with drafted_folder(folder) as draft:
        for file in there.iterdir():
            if file.name in names and file.is_file() and not file.is_symlink():
                shutil.copy(file, draft / file.name)
