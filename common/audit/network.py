"""The audit's checks on the network and its head, before anything trains."""

import math
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from common.audit.context import (
    SIZE,
    AuditContext,
    Seen,
    check,
    cross_entropy,
    largest_gap,
    plain_logits,
)
from common.audit.plan import key_starts, parts_in
from common.config import NetworkConfig
from common.config.registry import named_step
from common.models import StagedNetwork, as_map
from common.models.backbones import build_architecture
from common.models.staged import average
from common.models.weights import weights_file


@check("shapes fit", "a linear layer's input size that is not what the stage before it puts out")
def shapes_fit(context: AuditContext) -> Seen:
    shapes, classes = [], len(context.data.classes)
    for size in (SIZE, 2 * SIZE):
        images = torch.zeros(2, 3, size, size, device=context.runtime.device)
        shapes.append(tuple(plain_logits(context.network(size), images).shape))
    return set(shapes) == {(2, classes)}, f"logits (2, {classes})", f"{shapes}"


@check("loss at start", "a head that is badly initialised, inputs out of scale, or a wrong loss")
def loss_at_start(context: AuditContext) -> Seen:
    part, classes = context.data.train, len(context.data.classes)
    logits = plain_logits(context.network(), context.pictures(part))
    loss, chance = float(cross_entropy(logits, part.labels)), math.log(classes)
    # how near depends on the features' scale at this small size; a head out of scale is far off
    expected = f"within half and three times ln({classes}) = {chance:.2f}"
    near = min(2 * loss / chance, 3 * chance / loss)
    return near > 1, expected, f"{loss:.2f}", near


@check("logits, not probabilities", "a softmax or a ReLU after the last layer")
def logits_not_probabilities(context: AuditContext) -> Seen:
    logits = plain_logits(stirred(context.network()), context.pictures(context.data.train))
    sums, low, high = logits.sum(1), float(logits.min()), float(logits.max())
    probabilities = low >= 0 and high <= 1 and bool(((sums - 1).abs() < 1e-3).all())
    logged = high <= 1e-6 and bool(((logits.exp().sum(1) - 1).abs() < 1e-3).all())
    seen = f"{low:.2f} to {high:.2f}" + (", rows that sum to 1" if probabilities else "")
    seen += ", log-probabilities" if logged else ""
    bare = low != 0 and high != 0  # a ReLU leaves zeros
    expected = "values without a bound at 0, nor rows that are shares"
    return bare and not (probabilities or logged), expected, seen


LAST = 4  # linear layers whose ways to each other are looked at: more, in a transformer, take long


@check("no two linear layers in a row", "a nonlinearity left out: two such layers are one")
def nonlinearity_between(context: AuditContext) -> Seen:
    network, made = context.network().cpu().double().eval(), {}
    images = context.pictures(context.data.val)[:4].cpu().double()
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda layer, _, output: made.update({layer: output}))
    plain_logits(network, images)
    pairs = pairwise([*made][-LAST:])
    wrong = [
        f"{tuple(first.weight.shape)} to {tuple(second.weight.shape)}"
        for first, second in pairs
        if _is_linear_between(network, images, made, first, second)
    ]
    return not wrong, "a nonlinearity between any two", ", ".join(wrong) or "none in a row"


def _is_linear_between(
    network: StagedNetwork, images: Tensor, made: dict, first: nn.Linear, second: nn.Linear
) -> bool:
    """Whether what the second layer puts out follows a push of what the first one does, to twice
    the push and to its opposite.
    """
    plain_logits(network, images)
    before, start = made[second], made[first]
    generator = torch.Generator().manual_seed(0)
    push = torch.randn(start.shape, generator=generator).to(start) * 3 * start.abs().mean()
    moved = []
    for times in (1, 2, -1):
        pushed = first.register_forward_hook(lambda _, __, output, t=times: output + t * push)
        plain_logits(network, images)
        pushed.remove()
        moved.append(made[second] - before)
    once, twice, back = moved
    if float(once.abs().max()) <= 1e-9 * float(before.abs().max()):
        return False  # beside each other, not in a row
    return largest_gap(twice, 2 * once) < 1e-6 and largest_gap(back, -once) < 1e-6


@check("the weights are the file's", "a stage left as initialised, or one given another's weights")
def weights_loaded(context: AuditContext) -> Seen:
    file, network = weights_file(context.config.network), context.network(2 * SIZE)
    expected = "every tensor of the stages, in its place, with the file's numbers"
    if file is None:
        return True, expected, "no file"
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        held = load_file(file)
    else:
        held = torch.load(file, map_location="cpu", weights_only=True)
    reference = build_architecture(network_config(context))  # which the file's names are for
    names = reference.network.state_dict()
    fitting = {k: v for k, v in held.items() if k in names and v.shape == names[k].shape}
    reference.network.load_state_dict(fitting, strict=False)
    theirs = {
        f"{name}.{key}": value
        for name, stage, _ in reference.stages
        for key, value in stage.state_dict().items()
        if value.is_floating_point() and not key.endswith("pos_embedding")  # fitted to the size
    }
    own = network.stages.state_dict()
    shared = theirs.keys() & own.keys()
    if not shared:  # an own level may build others, or call them otherwise
        return (
            True,
            expected,
            "not looked at: no stage's tensor has a name of the file's",
            None,
            True,
        )
    off = sorted(name for name in shared if not _same(theirs[name], own[name].cpu()))
    seen = f"{off[0]} and {len(off) - 1} more of {len(theirs)} otherwise" if off else "the same"
    return not off, expected, seen


def network_config(context: AuditContext) -> NetworkConfig:
    """The config of the network that `weights_loaded` looks at."""
    return replace(context.config.network, image_size=2 * SIZE)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.to(b.dtype), b)


@check("the head reads each tap", "a tap of another stage, one left out, or one pooled otherwise")
def taps_are_read(context: AuditContext) -> Seen:
    size = 2 * SIZE  # at which no map is a single pixel
    images = context.prepare(context.data.val.images[:12], size)
    network = stirred(context.network(size)).eval()
    made, given, chance = {}, [], torch.Generator().manual_seed(0)
    for name, stage in network.stages.items():
        stage.register_forward_hook(lambda _, __, output, name=name: made.update({name: output}))
    network.head.register_forward_pre_hook(lambda _, inputs: given.append(inputs))
    with torch.no_grad():
        logits = network(images)
        inputs, order, wrong = given[0], list(network.taps), []
        if len(inputs) != len(order):
            wrong.append(f"{len(inputs)} for {len(order)} taps")
        if context.config.network.taps and set(order) != set(context.config.network.taps):
            wrong.append(f"{', '.join(order)} instead of the configured ones")
        known = network.pool in (average, as_map)
        for name, tap in zip(order, inputs, strict=False):
            output = made[name]
            forms = [output]
            if output.ndim == 4:
                forms.append(output.mean((2, 3)))
            if output.ndim == 3:  # tokens: the class token, or the others as a map
                forms += [output[:, 0], output[:, 1:].transpose(1, 2)]
            forms = [form for form in forms if form.numel() == tap.numel()]
            if known and not any(
                largest_gap(tap.reshape(form.shape), form) < 1e-4 for form in forms
            ):
                wrong.append(f"not {name}'s output or its mean")
        for place, name in enumerate(order[: len(inputs)]):
            others = list(inputs)
            noise = torch.randn(inputs[place].shape, generator=chance).to(inputs[place])
            others[place] = inputs[place] + noise * inputs[place].std()
            alive = inputs[place].std() > 1e-3  # a deep network of random weights may put out none
            if alive and largest_gap(network.head(*others), logits) < 1e-3:
                wrong.append(f"{name} does not move the logits")
    return not wrong, f"what {', '.join(order)} put out, all of it used", ", ".join(wrong) or "that"


def stirred(network: StagedNetwork) -> StagedNetwork:
    """With no parameter of the head at zero, where some begin."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.head.parameters():
        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
        parameter.data.add_(0.02 * noise)
    return network


@check(
    "dropout as configured", "dropout never on, on in frozen stages, or drawn once for all steps"
)
def dropout_as_configured(context: AuditContext) -> Seen:
    trainer, masks = context.trainer(), {}
    network = trainer.network

    def note(name: str, inputs: tuple[Tensor], output: Tensor) -> None:
        if torch.is_grad_enabled():
            masks.setdefault(name, []).append((inputs[0].detach() != 0, output.detach() == 0))

    layers = {
        name: module
        for name, module in network.named_modules()
        if type(module) is nn.Dropout and module.p > 0
    }
    expected = "its share left out at each step, other numbers each time; nothing where frozen"
    options = named_step(context.config.network.arch)[1]
    stated, wrong = options.get("dropout"), []
    if stated and stated not in {module.p for module in layers.values()}:
        wrong.append(f"no dropout of {stated}")
    for name, module in layers.items():
        module.inplace = False
        module.register_forward_hook(lambda _, i, o, name=name: note(name, i, o))
    if layers:
        trainer.epoch(1)
    starts = key_starts(parts_in(context.config, network, 1))
    for name, found in masks.items():
        left_out = torch.cat([out[there] for there, out in found]).cpu().double()
        count = len(left_out)
        if not count:
            continue
        share = float(left_out.mean())
        p = layers[name].p if f"{name}.".startswith(starts) else 0.0
        if abs(share - p) > 0.02 + 5 * (p * (1 - p) / count) ** 0.5:
            wrong.append(f"{name} leaves out {share:.0%}, not {p:.0%}")
        pairs = [(a, b) for a, b in pairwise(found) if a[0].shape == b[0].shape]
        both = [[out[a[0] & b[0]] for _, out in (a, b)] for a, b in pairs]
        if p and any(one.any() and torch.equal(one, other) for one, other in both):
            wrong.append(f"{name} leaves out the same at every step")
    return not wrong, expected, ", ".join(wrong) or f"{len(layers)} layers, as it says"
