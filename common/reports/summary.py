"""A network stage by stage: what each part gives, what it holds, what it costs, what trains.

Shapes, parameters and layout are torchinfo's. Multiply-adds are counted by torch from the
operations themselves: torchinfo goes by parameters, and misses attention and all tokens but one.
"""

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from common import levels
from common.config import LevelConfig
from common.evaluation.gradcam import evaluating
from common.models import StagedNetwork, input_size

if TYPE_CHECKING:
    from torchinfo import ModelStatistics

DEPTH = 2  # of the rows: the stages, and the head's layers
COLUMNS = ("output_size", "num_params", "mult_adds", "trainable")


def bare_network(level: Path, config: LevelConfig, classes: int) -> StagedNetwork:
    """The network that a level builds for a config, without weights: no file is read."""
    size = input_size(config.network)
    network = dataclasses.replace(config.network, weights="none", image_size=size)
    config = dataclasses.replace(config, network=network)
    return levels.load_module(level).build_network(config, classes)


def network_rows(network: StagedNetwork, image_size: int) -> list[dict]:
    """A dict a stage, from the picture up, and one for the head, as metrics.json has them.

    Returns:
        `name`; `output`, the shape for one picture without the batch; `parameters`, of which
        `trained_parameters` train; `multiply_adds` a picture; `trains`, False where it is frozen.
    """
    layers = {id(layer.module): layer for layer in _statistics(network, image_size).summary_list}
    rows = []
    for name, part in network.parts():
        layer = layers[id(part)]
        row = {"name": name, "output": list(layer.output_size[1:])}
        row |= {"parameters": layer.num_params, "trained_parameters": layer.trainable_params}
        row |= {"multiply_adds": layer.macs, "trains": name in network.trainable}
        rows.append(row)
    return rows


def network_summary(network: StagedNetwork, image_size: int) -> str:
    """torchinfo's summary of a network as text of some 100 columns: its stages and its head."""
    text = re.sub(r"\(Units\.(\w)\w*\)", r"(\1)", str(_statistics(network, image_size)))
    return f"{text}\nParameters in brackets are frozen. Multiply-adds are those of one picture."


def _statistics(network: StagedNetwork, image_size: int) -> "ModelStatistics":
    """What torchinfo finds for one picture; network and random generators are left as they were."""
    import torchinfo

    device = next(network.parameters()).device
    picture = torch.zeros(1, 3, image_size, image_size, device=device)
    # the fused attention is one operation, of which the counter knows nothing
    counter, fused = FlopCounterMode(display=False), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with evaluating(network), torch.random.fork_rng([device] if device.type == "cuda" else []):
            with counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
                network(picture)
            found = torchinfo.summary(
                network,
                input_data=picture,
                depth=DEPTH,
                col_names=COLUMNS,
                col_width=16,
                row_settings=("var_names",),
                cache_forward_pass=False,
                verbose=0,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    _count(found, network, counter)
    return found


def _count(found: "ModelStatistics", network: StagedNetwork, counter: FlopCounterMode) -> None:
    """Put counted multiply-adds in the place of torchinfo's; columns as wide as what is shown."""
    root = type(network).__name__
    names = {id(module): f"{root}.{name}" for name, module in network.named_modules()}
    counts, shown = counter.get_flop_counts(), found.formatting
    shown.layer_name_width = 34  # torchinfo's 40, or more for the layers that are not shown
    shown.set_layer_name_width([x for x in found.summary_list if x.depth <= DEPTH])
    for layer in found.summary_list:
        layer.macs = sum(counts.get(names[id(layer.module)], {}).values()) // 2
        layer.is_leaf_layer |= layer.depth == DEPTH  # whose count is shown as it stands here
    found.total_mult_adds = counter.get_total_flops() // 2
