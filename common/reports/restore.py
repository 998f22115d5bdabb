"""A run brought back from what it left: its settings, its network, its test pictures.

Whoever wrote them, nothing is unpickled; and a level that fails here is passed over.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
import yaml

from common import levels
from common.config import LevelConfig, TestConfig, load_config, yaml_files
from common.config.ranges import SIDE
from common.config.schema import comparable
from common.data import ImageSet, Splits, load_splits
from common.data.cifar import KINDS, archive_place
from common.data.splits import title_of
from common.models import StagedNetwork
from common.models.weights import NAMED
from common.reports.schema import Run
from common.reports.summary import bare_network
from common.runtime import Runtime
from common.training import checkpoint
from common.training.checkpoint import read_checkpoint
from common.utils import paths
from common.utils.errors import UserError, line
from common.utils.paths import expanded, run_name, run_place, runs_root

log = logging.getLogger("rungs")

CPU = Runtime(torch.device("cpu"), torch.float32)  # where networks are looked at


def read_settings(
    content: Any,
    project: Path,
    data_root: str | None,
    weights: str | None,
    place: Path | None = None,
) -> LevelConfig:
    """Settings as a report or a checkpoint tells them -> `LevelConfig` for this machine.

    Paths are the submitter's: `data_root` and `weights` replace them. `place`, where the settings
    stand, is named in errors.

    Raises:
        UserError: settings that this checkout does not know.
    """
    where = f"{place}: " if place else ""
    if isinstance(content, dict):  # where this process writes is nobody else's to say
        content = {key: value for key, value in content.items() if key != "runs"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        try:
            file.write_text(yaml_files.write(content), encoding="utf-8")
            config: LevelConfig = load_config(file)
        except UserError as error:
            where += "settings: " if place else ""
            raise UserError(where + str(error).replace(f"{file}: ", "")) from error
        except (yaml.YAMLError, RecursionError, OSError, ValueError) as error:
            raise UserError(f"{where}settings that are none ({line(error)})") from error
    config.seeds = config.reports = None  # how it was asked for is no matter here
    config.resume = config.anew = config.audit = config.summary = False
    config.log = "none"
    data, network = config.data, config.network
    if data.name == "folder":
        data.root = data_root or _here(data.root, project)
    elif data.name != "digits":  # an archive's checksum says what it is: any copy will do
        own = _here(data.root, project)
        data.root = data_root or (own if own and Path(own).is_dir() else None)
    if network.weights not in NAMED:
        network.weights = weights or _here(network.weights, project)
    return config


def _here(path: str | None, project: Path) -> str | None:
    """A path as the submitter gave it: relative ones are looked for in the submission."""
    if path is None:
        return None
    full = expanded(path)
    return str(full if full.is_absolute() else project / full)


def load_trained(
    level: Path, place: Path, classes: int | None = None
) -> tuple[StagedNetwork, dict]:
    """The network as it was tested, in eval mode on the CPU, and the checkpoint's content.

    `classes`: how many; as the checkpoint says if
    None.

    Raises:
        UserError: no checkpoint, a damaged one, or one of another network or number of classes.
    """
    content = read_checkpoint(place)
    if classes is None:
        names, size = content.get("classes"), content.get("stored_size")
        facts = {
            "classes": isinstance(names, list) and all(isinstance(name, str) for name in names),
            "stored_size": type(size) is int and 0 < size <= SIDE,
            "tta": content.get("tta") in get_args(get_type_hints(TestConfig)["tta"]),
        }
        if missing := [fact for fact, fine in facts.items() if not fine]:
            raise UserError(f"{place}: no {missing[0]} that can be; train it again")
        classes = len(content["classes"])
    config = read_settings(content["settings"], paths.PROJECT, None, None, place)
    network = bare_network(level, config, classes)
    content = checkpoint.completed(content, config.network, place)
    checkpoint.load_network(network, content, place)
    return network.eval(), content


@contextlib.contextmanager
def passed_over(what: str) -> Iterator[None]:
    """What of a level's own code fails here ends no other level's run: it is left out and said."""
    try:
        yield
    except (Exception, SystemExit) as error:
        log.warning("left out: %s (%s: %s)", what, type(error).__name__, line(error))


def networks_of(runs: list[Run]) -> dict[str, StagedNetwork]:
    """The networks of these runs by level, of those whose checkpoint is in this project."""
    found = {}
    for run in runs:
        m = run.metrics
        place = run_place(runs_root(), m) / run_name(run.level, run.config, run.seed)
        with passed_over(f"the network of {run.level}"), contextlib.suppress(UserError):
            level = levels.find_level(run.level)
            network, content = load_trained(level, place / "best.pt", m["data"]["classes"])
            if is_of(content, m):
                found[run.level] = network
    return found


def is_of(content: dict, metrics: dict) -> bool:
    """Whether a checkpoint is of the run that a report's metrics are of."""
    same = content["fingerprint"] == metrics["data"]["fingerprint"]
    same &= content["epoch"] == metrics["best_epoch"]
    return same and comparable(content["settings"]) == comparable(metrics["settings"])


def pictures_of(run: Run) -> tuple[ImageSet | None, str]:
    """A run's test pictures where they are on this machine, else why not; nothing is downloaded."""
    m = run.metrics
    data, why = splits_of(m["settings"], m["image_size"], m["data"]["fingerprint"])
    return data and data.test, why


def splits_of(settings: Any, image_size: int, fingerprint: str) -> tuple[Splits | None, str]:
    """A run's pictures where they are on this machine, else why not; nothing is downloaded."""
    try:
        config = read_settings(settings, paths.PROJECT, None, None).data
        place = archive_place(config)
        unpacked = place and place.parent / KINDS[config.name].base_folder
        if place and not (place.is_file() or unpacked.is_dir()):
            return None, f"{title_of(config)} is not on this machine."
        data = load_splits(config, image_size)
    except (UserError, OSError, ValueError) as error:
        return None, f"the pictures cannot be read ({line(error)})."
    if data.fingerprint != fingerprint:
        return None, "the pictures here are not those of the runs."
    return data, ""
