"""A level's trained network, from the best checkpoint of its run."""

import contextlib
from pathlib import Path
from typing import get_args, get_type_hints

from common import levels
from common.config import TestConfig
from common.config.ranges import SIDE
from common.config.schema import comparable
from common.data import ImageSet, load_splits
from common.data.cifar import KINDS, archive_place
from common.models import StagedNetwork, input_size
from common.reports.readers import read_settings
from common.training import checkpoint
from common.training.checkpoint import read_checkpoint
from common.utils import paths
from common.utils.errors import UserError
from common.utils.paths import run_name, runs_folder


def load_trained(
    level: Path, place: Path, classes: int | None = None
) -> tuple[StagedNetwork, dict]:
    """The network as it was tested, in eval mode on the CPU, and the checkpoint's content.

    Its starting weights need not be there any more. `classes`: how many; as the checkpoint says if
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
    config.network.image_size = input_size(config.network)
    config.network.weights = "none"
    network = levels.load_module(level).build_network(config, classes)
    checkpoint.load_network(network, content, place)
    return network.eval(), content


def networks_of(metrics: list[dict]) -> dict[str, StagedNetwork]:
    """The networks of these runs by level, of those whose checkpoint is in this project."""
    found = {}
    for m in metrics:
        name = run_name(m["level"], m["config"], m["seed"])
        place = runs_folder(m["data"]["title"]) / name / "best.pt"
        with contextlib.suppress(UserError):
            level = levels.find_level(m["level"])
            network, content = load_trained(level, place, m["data"]["classes"])
            same = content["fingerprint"] == m["data"]["fingerprint"]
            same &= content["epoch"] == m["best_epoch"]
            if same and comparable(content["settings"]) == comparable(m["settings"]):
                found[m["level"]] = network
    return found


def pictures_of(m: dict) -> tuple[ImageSet | None, str]:
    """A run's test pictures where they are on this machine, else why not; nothing is downloaded."""
    try:
        config = read_settings(m["settings"], paths.PROJECT, None, None).data
        place = archive_place(config)
        unpacked = place and place.parent / KINDS[config.name].base_folder
        if place and not (place.is_file() or unpacked.is_dir()):
            return None, f"{m['data']['title']} is not on this machine."
        data = load_splits(config, m["image_size"])
    except UserError as error:
        return None, f"the pictures cannot be read ({error})."
    if data.fingerprint != m["data"]["fingerprint"]:
        return None, "the pictures here are not those of the runs."
    return data.test, ""
