"""Names for what the command line makes of a config: a run is its settings, and stands by name.

What it changes of the pictures, the starting weights or the image size is shared by a whole ladder
(`given`, in the name of the folder of runs); what else it changes makes another recipe of the level
(`recipe`, in the run's own).
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from common.config.schema import LevelConfig, changed
from common.utils.errors import UserError
from common.utils.paths import OWN, expanded

SHARED = {"network.weights", "network.image_size"}  # and what concerns data
PLACES = {"data.name", "data.root"}  # which the data's title stands for
LONGEST = 60  # characters
PLAIN = re.compile(r"[A-Za-z0-9_.+-]*")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,59}")
AT_WORK = ".new", ".old"  # how the folders beside a run's end, while a new one is made


def name_recipe(config: LevelConfig, base: LevelConfig, below: LevelConfig | None) -> None:
    """Set a config's `recipe`, `lower` and `given` by what differs from its file's own, `base`.

    Args:
        below: the level that it starts from, given the same options. What these change there makes
            another recipe here, too.
    Raises:
        UserError: a `name` that cannot be a folder's.
    """
    config.differ = changed(base.settings(), config.settings())
    differ = (below.differ if below else {}) | config.differ
    shared = {k: v for k, v in differ.items() if is_shared(k) and k not in PLACES}
    if config.data.name == "digits" and {"data.name", "network.weights"} & differ.keys():
        shared["network.weights"] = config.network.weights
        if config.network.weights == "tiny-imagenet":
            del shared["network.weights"]  # as is usual with them
    config.given = shortened(shared)
    own = {k: v for k, v in differ.items() if not is_shared(k) and k != "seed"}
    config.recipe = joined(config.file.stem, shortened(own))
    config.lower = below.recipe if below else OWN
    if config.name is not None:
        seed = re.search(r"-seed\d+$", config.name)
        if not NAME.fullmatch(config.name) or seed or config.name == OWN:
            raise UserError(
                f"command line: name must be letters, digits and _.+- ('{OWN}' is the level's own, "
                f"-seed1 at the end another seed's), not '{config.name}'"
            )
        config.recipe = config.name
    if config.recipe.endswith(AT_WORK):
        raise UserError(f"a run's name cannot end in {' or '.join(AT_WORK)}: {config.recipe}")


def joined(stem: str, short: str) -> str:
    """A config file's name, and what differs from it."""
    return "-".join(filter(None, ["" if stem == OWN and short else stem, short]))


def is_shared(key: str) -> bool:
    """Whether an option is one that a whole ladder shares."""
    return key.startswith("data.") or key in SHARED


def shortened(differ: dict[str, Any]) -> str:
    """Changes as part of a folder's name: "epochs-1-arch-resnet34". Where that does not say all, as
    of a step's parameters, four hex digits follow that do.
    """
    words, whole = [], True
    for key, value in sorted(differ.items()):
        name, text = key.rpartition(".")[2], _text(value)
        if key == "network.image_size":
            name, text = "", f"{value}px"
        elif key == "network.weights":
            name, text = "", text if PLAIN.fullmatch(text) else _file(text)
        elif value is None or isinstance(value, bool):
            name, text = f"{'' if value else 'no-'}{name}", ""
        plain = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-.")
        whole &= plain == text
        words += filter(None, [name, plain])
    short = "-".join(words)
    if whole and len(short) <= LONGEST:
        return short
    digest = hashlib.sha256(json.dumps(differ, sort_keys=True, default=str).encode()).hexdigest()
    return f"{short[:LONGEST].rstrip('-.')}-{digest[:4]}"


def _file(path: str) -> str:
    """A file's name, and of its place four hex digits: "model-3f2a"."""
    place = hashlib.sha256(str(expanded(path).absolute()).encode("utf-8", "surrogateescape"))
    return f"{Path(path).stem}-{place.hexdigest()[:4]}"


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "-".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
