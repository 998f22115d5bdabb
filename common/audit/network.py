"""The audit's checks on the network and its head, before anything trains."""

import math

import torch
from torch import Tensor, nn

from common.audit.context import SIZE, AuditContext, check, cross_entropy, plain_logits


@check("shapes fit", "a linear layer's input size that is not what the stage before it puts out")
def shapes_fit(context: AuditContext) -> tuple[bool, str, str]:
    shapes, classes = [], len(context.data.classes)
    for size in (SIZE, 2 * SIZE):
        images = torch.zeros(2, 3, size, size, device=context.runtime.device)
        shapes.append(tuple(plain_logits(context.network(size), images).shape))
    return set(shapes) == {(2, classes)}, f"logits (2, {classes})", f"{shapes}"


@check("loss at start", "a head that is badly initialised, inputs out of scale, or a wrong loss")
def loss_at_start(context: AuditContext) -> tuple[bool, str, str]:
    part, classes = context.data.train, len(context.data.classes)
    logits = plain_logits(context.network(), context.pictures(part))
    loss, chance = float(cross_entropy(logits, part.labels)), math.log(classes)
    # how near depends on the features' scale at this small size; a head out of scale is far off
    expected = f"within half and three times ln({classes}) = {chance:.2f}"
    return chance / 2 < loss < 3 * chance, expected, f"{loss:.2f}"


@check("logits, not probabilities", "a softmax or a ReLU after the last layer")
def logits_not_probabilities(context: AuditContext) -> tuple[bool, str, str]:
    logits = plain_logits(context.network(), context.pictures(context.data.train))
    sums, low, high = logits.sum(1), float(logits.min()), float(logits.max())
    probabilities = low >= 0 and high <= 1 and bool(((sums - 1).abs() < 1e-3).all())
    logged = high <= 1e-6 and bool(((logits.exp().sum(1) - 1).abs() < 1e-3).all())
    seen = f"{low:.2f} to {high:.2f}" + (", rows that sum to 1" if probabilities else "")
    seen += ", log-probabilities" if logged else ""
    return low < 0 < high and not (probabilities or logged), "values below and above 0", seen


@check("no two linear layers in a row", "a nonlinearity left out: two such layers are one")
def nonlinearity_between(context: AuditContext) -> tuple[bool, str, str]:
    network, from_linear, pairs = context.network(), {}, []

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        before = from_linear.get(id(inputs[0]))
        if isinstance(module, nn.Linear):
            if before:
                pairs.append(f"{tuple(before[0].weight.shape)} to {tuple(module.weight.shape)}")
            from_linear[id(output)] = (module, output)  # kept, so that no other gets its id
        elif isinstance(module, nn.Dropout | nn.Identity | nn.Flatten) and before:
            from_linear[id(output)] = (before[0], output)
        else:
            from_linear.pop(id(output), None)  # a ReLU in place gives back what it was given

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(note)
    plain_logits(network, context.pictures(context.data.val))
    return not pairs, "a nonlinearity between any two", ", ".join(pairs) or "none in a row"
