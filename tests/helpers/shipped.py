"""The configs that the project ships."""

from common.config import load_config
from helpers.projects import PROJECT

SHIPPED = sorted(PROJECT.glob("level*/**/*.yaml"))
TRANSFER = [  # of these the bundled weights are the network's
    file
    for file in SHIPPED
    if load_config(file).network.arch == "resnet18" and load_config(file).network.weights != "none"
]
