"""What a network sees in a picture: where it looks, what its stages and its last layer give.

All in eval mode; the network is left as it was.
"""

import contextlib
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.evaluation.predictions import evaluating
from common.models import Features, StagedNetwork, as_map


def activation_maps(
    network: StagedNetwork, images: Tensor, classes: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """How much each place of a picture speaks for a class, and the logits.

    Grad-CAM (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391) on the stages that the head
    reads: each channel is weighed by the mean gradient of the class's logit. Several taps' maps are
    in the logit's unit, and are added. Where the head reads no map (a dense layer, a class token),
    the deepest stage below that still has places is taken.

    Args:
        images: normalised, float32 (B, 3, S, S).
        classes: int64 (B,); the predicted ones if None.

    Returns:
        Maps float32 (B, h, w), 1 at each picture's largest place, 0 where nothing speaks for the
        class, None where no stage has places; logits float32 (B, C).
    """
    with evaluating(network):
        with torch.no_grad():
            outputs = _outputs(network, images)
        looked_at = _stages_with_places(network, outputs)
        if not looked_at:
            return None, network.head(
                *(network.pool(outputs[tap]) for tap in network.taps)
            ).detach()
        with torch.enable_grad():
            leaves = {name: outputs[name].requires_grad_() for name in looked_at}
            logits = network.head(*_taps(network, leaves))
            chosen = logits.argmax(1) if classes is None else classes
            score = logits.gather(1, chosen[:, None]).sum()
            gradients = torch.autograd.grad(score, list(leaves.values()))
    maps = [
        (as_map(leaf.detach()) * as_map(gradient).mean((2, 3), keepdim=True)).sum(1).relu()
        for leaf, gradient in zip(leaves.values(), gradients, strict=True)
    ]
    side = max((m.shape[1:] for m in maps), key=math.prod)
    total = sum(F.interpolate(m[:, None], side, mode="bilinear")[:, 0] for m in maps)
    return total / total.amax((1, 2), keepdim=True).clamp_min(1e-12), logits.detach()


def _stages_with_places(network: StagedNetwork, outputs: dict[str, Tensor]) -> list[str]:
    """The taps, where all are maps; else the deepest stage below them that has places."""
    placed = [name for name, output in outputs.items() if _count(output) > 1]
    if all(outputs[tap].ndim == 4 for tap in network.taps) and {*placed} & {*network.taps}:
        return list(network.taps)
    names = list(network.stages)
    first = min(names.index(tap) for tap in network.taps)
    return [name for name in placed if names.index(name) < first][-1:]


def _taps(network: StagedNetwork, leaves: dict[str, Tensor]) -> list[Tensor]:
    """What the head reads, from the leaves alone."""
    if set(leaves) == set(network.taps):
        return [network.pool(leaves[tap]) for tap in network.taps]
    ((name, leaf),) = leaves.items()
    names = list(network.stages)
    taps = network.run(Features(leaf, {}), names[names.index(name) + 1 :]).taps
    return [taps[tap] for tap in network.taps]


def _count(x: Tensor) -> int:
    """How many places a stage's output has."""
    if x.ndim == 4:
        return x.shape[2] * x.shape[3]
    return x.shape[1] - 1 if x.ndim == 3 else 0


@torch.no_grad()
def stage_maps(network: StagedNetwork, image: Tensor, count: int = 6) -> dict[str, Tensor]:
    """The `count` most active channels of each stage that has places: name -> (count, h, w).

    Args:
        image: normalised, float32 (3, S, S).
    """
    with evaluating(network):
        outputs = _outputs(network, image[None])
    found = {}
    for name, output in outputs.items():
        if _count(output) > 1:
            maps = as_map(output)
            strongest = maps[0].mean((1, 2)).topk(min(count, maps.shape[1])).indices
            found[name] = maps[0][strongest]
    return found


def first_filters(network: StagedNetwork) -> Tensor | None:
    """The first layer's filters, float32 (C, 3, k, k); None where it is no convolution."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            return module.weight.detach().float()
    return None


def penultimate(network: StagedNetwork, images: Tensor) -> Tensor | None:
    """The input of the head's last linear layer, float32 (B, D), for normalised pictures.

    None where the head has no such layer, or does not call it.
    """
    return logits_and_penultimate(network, images)[1]


@torch.no_grad()
def logits_and_penultimate(network: StagedNetwork, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """The logits, float32 (B, C), and what `penultimate` gives, in one pass."""
    linear = [module for module in network.head.modules() if isinstance(module, nn.Linear)]
    seen = []
    hook = contextlib.nullcontext()
    if linear:
        hook = linear[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with hook, evaluating(network):
        logits = network(images)
    return logits.float(), seen[0].float() if seen else None


def _outputs(network: StagedNetwork, images: Tensor) -> dict[str, Tensor]:
    outputs, x = {}, images
    for name, stage in network.stages.items():
        x = outputs[name] = stage(x)
    return outputs
