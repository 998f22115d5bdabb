"""The configs that the project ships, and the options that they may name."""

import dataclasses

from common.config import LevelConfig, load_config
from helpers.projects import PROJECT

SHIPPED = sorted(PROJECT.glob("level*/**/*.yaml"))
TRANSFER = [  # of these the bundled weights are the network's
    file
    for file in SHIPPED
    if load_config(file).network.arch == "resnet18" and load_config(file).network.weights != "none"
]


def options_of(cls=LevelConfig, prefix="--"):
    """Every option of a level as it stands on a command line."""
    for f in dataclasses.fields(cls):
        if f.init and dataclasses.is_dataclass(f.default_factory):
            yield from options_of(f.default_factory, f"{prefix}{f.name}.")
        elif f.init:
            yield prefix + f.name
