"""The audit's checks on training: step, modes, freezing, rate, seed, and what it may read."""

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from common.audit.context import (
    AuditContext,
    check,
    cross_entropy,
    largest_gap,
    without_dropout,
)
from common.models import Features, StagedNetwork
from common.models.adapt import adapt_batch_norm, pictures_to_adapt
from common.training import Trainer
from common.training.schedules import Schedule, build_schedule


@check("one batch can be overfitted", "gradients that do not reach the weights, a wrong loss")
def overfits_one_batch(context: AuditContext) -> tuple[bool, str, str]:
    plain = {"optimizer": "adam", "schedule": "constant", "weight_decay": 0.0}
    expected, tried = "a loss below 30 % of the start's in 40 steps", []
    for rate in (3e-3, 3e-4, 0.1):  # of some network each; the last for features that are faint
        trainer = context.trainer(lr=rate, head_lr=None, label_smoothing=0.0, **plain)
        without_dropout(trainer.network).train()
        features, targets = next(trainer.train.epoch(0))
        losses = [float(trainer.step(0, features, targets)[0])]
        while len(losses) < 40 and losses[-1] > 0.3 * losses[0]:
            losses.append(float(trainer.step(len(losses), features, targets)[0]))
        tried.append(f"{losses[0]:.2f} to {losses[-1]:.2f} in {len(losses)} steps at {rate}")
        if losses[-1] <= 0.3 * losses[0]:
            return True, expected, tried[-1]
    return False, expected, ", ".join(tried)


@check(
    "one step is the configured step",
    "gradients not zeroed before the next step, a wrong loss, a parameter the optimiser never got",
)
def step_as_configured(context: AuditContext) -> tuple[bool, str, str]:
    trainer = context.trainer()
    own = without_dropout(trainer.network).train()
    start = {name: value.detach().clone() for name, value in own.named_parameters()}
    reference = copy.deepcopy(own)
    optimizer = _reference_optimizer(reference, context)
    moving = {name: p for name, p in reference.named_parameters() if p.requires_grad}
    rate = _schedule(trainer)
    smoothing, clip = trainer.config.train.label_smoothing, trainer.config.train.clip_norm
    felt = {name: torch.ones_like(p, dtype=torch.bool) for name, p in moving.items()}
    for step, (images, targets) in enumerate(trainer.train.batches.epoch(0)):
        if step == 2:
            break
        features = trainer.train.trunk(images)
        exact = _gradients(copy.deepcopy(reference).cpu().double(), features, targets, smoothing)
        trainer.step(step, features, targets)
        gradients = _gradients(reference, features, targets, smoothing)
        norm = torch.stack([g.norm() for g in gradients.values()]).norm()
        scale = min(1.0, clip / (float(norm) + 1e-6)) if clip else 1.0
        for name, parameter in moving.items():
            parameter.grad = gradients[name] * scale
            gap = (gradients[name].cpu() - exact[name]).abs()
            felt[name] &= (gap <= 0.01 * exact[name].abs()).to(parameter.device)
        for depth, group in enumerate(optimizer.param_groups):
            group["lr"] = group["initial_lr"] * rate(step, depth)
        optimizer.step()
        for name, parameter in own.named_parameters():  # from where both are, on to the next step
            if name in moving:
                moving[name].data = torch.where(felt[name], moving[name], parameter.detach())
    worst, where = _furthest(start, own, reference, felt)
    expected = "the weights of torch's own optimiser after 2 steps on the same batches"
    return worst < 0.05, expected, f"{worst:.1%} of the way off" + (f" at {where}" if where else "")


def _gradients(
    network: StagedNetwork, features: Features, targets: Tensor, smoothing: float
) -> dict[str, Tensor]:
    """Of the loss, by the names of the parameters that train, in the network's own precision."""
    moving = {name: p for name, p in network.named_parameters() if p.requires_grad}
    like = next(iter(moving.values()))
    taps = {name: tap.to(like) for name, tap in features.taps.items()}
    logits = network.forward_suffix(Features(features.x.to(like), taps))
    loss = cross_entropy(logits, targets.to(like.device), smoothing)
    return dict(zip(moving, torch.autograd.grad(loss, [*moving.values()]), strict=True))


def _reference_optimizer(network: StagedNetwork, context: AuditContext) -> torch.optim.Optimizer:
    """The configured optimiser over what the config says trains, in its plainest form."""
    parts, wanted = reversed([*network.stages, "head"]), context.config.network.trainable
    starts = _starts([part for part in parts if part in wanted])  # a group each, from the head on
    train, named = context.config.train, dict(network.named_parameters())
    fixed = _batch_norm_keys(network) if train.freeze_batch_norm else ()
    groups = [
        [p for name, p in named.items() if name.startswith(start) and name not in fixed]
        for start in starts
    ]
    for name, parameter in named.items():
        parameter.requires_grad_(name.startswith(starts) and name not in fixed)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    momentum = {"momentum": 0.9, "nesterov": True} if train.optimizer == "sgd" else {}
    rates = [train.head_lr if start == "head." and train.head_lr else train.lr for start in starts]
    parameters = [
        {"params": group, "initial_lr": rate} for group, rate in zip(groups, rates, strict=True)
    ]
    options = {"lr": train.lr, "weight_decay": train.weight_decay, "foreach": False}
    return kind[train.optimizer](parameters, **options, **momentum)


def _furthest(
    start: dict[str, Tensor], own: nn.Module, reference: nn.Module, felt: dict[str, Tensor]
) -> tuple[float, str | None]:
    """The parameter whose way from the start differs most from the reference's, as a share.

    Where a gradient is rounding noise in any step (`felt` is False), as a bias's before batch norm,
    Adam makes a whole step of it in any direction: nothing is compared there.
    """
    worst, where = 0.0, None
    others = dict(reference.named_parameters())
    for name, value in own.named_parameters():
        counts = felt.get(name, True)
        way, other = ((x.detach() - start[name]) * counts for x in (value, others[name]))
        size = max(float(other.norm()), float(way.norm()))
        share = float((way - other).norm()) / size if size > 1e-12 else 0.0
        if share > worst:
            worst, where = share, name
    return worst, where


def _batch_norm_keys(network: nn.Module) -> set[str]:
    """Names of the parameters and buffers of the stages' batch norms; a head's own train."""
    return {
        f"{name}.{key}"
        for name, module in network.named_modules()
        if "BatchNorm" in type(module).__name__ and name.startswith("stages.")
        for key in module.state_dict()
    }


def _starts(parts: list[str]) -> tuple[str, ...]:
    """How the names of these stages', or the head's, parameters and buffers begin."""
    return tuple("head." if part == "head" else f"stages.{part}." for part in parts)


def _schedule(trainer: Trainer) -> Schedule:
    """The configured one, apart from the trainer's."""
    config = trainer.config.train
    return build_schedule(config.schedule, config.epochs * len(trainer.train))


@check("train and eval mode", "model.train() or model.eval() missing, or the mode not restored")
def modes(context: AuditContext) -> tuple[bool, str, str]:
    trainer = context.trainer()
    network, seen = trainer.network, {"train": set(), "eval": set()}
    unfrozen = trainer.rate.unfrozen(network.trainable, 1)
    for part in [part for name, part in network.parts() if name in unfrozen]:
        part.register_forward_pre_hook(
            lambda part, _: seen["train" if torch.is_grad_enabled() else "eval"].add(part.training)
        )
    network.eval()
    trainer.epoch(1)
    good = seen["train"] == {True} and seen["eval"] == {False}
    frozen = [n for n, p in network.parts() if p.training and n not in network.trainable]
    after = network.training
    text = f"training with train mode {sorted(seen['train'])}, val with {sorted(seen['eval'])}"
    text += f", afterwards {after}" + (f", frozen in train mode: {frozen}" if frozen else "")
    return good and after and not frozen, "True in training, False in val, True after", text


@check("frozen means frozen", "batch norm of a frozen stage in train mode, or a stray gradient")
def frozen_is_frozen(context: AuditContext) -> tuple[bool, str, str]:
    trainer = context.trainer()
    before = copy.deepcopy(trainer.network.state_dict())
    trainer.epoch(1)
    names = trainer.rate.unfrozen(context.config.network.trainable, 1)
    trains = _starts(names)
    state = trainer.network.state_dict()
    moved = [key for key, value in state.items() if not torch.equal(value, before[key])]
    pulled = [key for key, p in trainer.network.named_parameters() if p.grad is not None]
    fixed = _batch_norm_keys(trainer.network) if context.config.train.freeze_batch_norm else ()
    strays = [key for key in moved + pulled if not key.startswith(trains) or key in fixed]
    learned = set(moved) & dict(trainer.network.named_parameters()).keys()  # no buffers
    still = [name for name in trains if not any(key.startswith(name) for key in learned)]
    seen = f"{len(moved)} moved" + (f", frozen, and touched: {strays[0]}" if strays else "")
    seen += f", nothing in {still[0]}" if still else ""
    return not strays and not still, f"what moves is in {', '.join(names)}, and all of it", seen


@check("batch norm is adapted as it says", "a moving average, or other pictures than train's")
def adapted(context: AuditContext) -> tuple[bool, str, str]:
    network, data = context.network(), context.data
    norms = [m for m in network.stages.modules() if isinstance(m, nn.BatchNorm2d)]
    expected = "the mean and variance of what reaches each batch norm; nothing else moves"
    if not norms or not pictures_to_adapt(context.config.network, context.whole):
        return True, expected, "not adapted"
    before = copy.deepcopy(network.state_dict())
    elsewhere = dataclasses.replace(data, val=Tripwire(), test=Tripwire())
    adapt_batch_norm(network, elsewhere, len(data.train), context.runtime)
    state = copy.deepcopy(network.state_dict())
    moved = {key for key, value in state.items() if not torch.equal(value, before[key])}
    strays = moved - _batch_norm_keys(network) | moved & dict(network.named_parameters()).keys()
    gaps = _gaps_to_what_arrives(network, norms, context.pictures(data.train))
    text = f"at most {max(gaps):.0e} off" + (f", and moved: {min(strays)}" if strays else "")
    return max(gaps) < 1e-2 and not strays, expected, text


@torch.no_grad()
def _gaps_to_what_arrives(
    network: StagedNetwork, norms: list[nn.BatchNorm2d], images: Tensor
) -> list[float]:
    """How far each batch norm's statistics are off those of what reaches it, in one batch whose
    own statistics normalise it at each batch norm before.
    """
    gaps = []

    def compare(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        seen = inputs[0].transpose(0, 1).flatten(1).float()
        own = torch.stack([seen.mean(1), seen.var(1)])
        gaps.append(largest_gap(torch.stack([norm.running_mean, norm.running_var]), own))

    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 0.0  # its statistics stay
        norm.register_forward_pre_hook(compare)
    network(images)
    return gaps


@check("the rate moves as configured", "the schedule stepped once an epoch instead of a step")
def rate_as_configured(context: AuditContext) -> tuple[bool, str, str]:
    trainer, rates = context.trainer(), []
    step = trainer.step

    def spy(*arguments: object) -> tuple[Tensor, Tensor]:
        result = step(*arguments)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        return result

    trainer.step = spy
    trainer.epoch(1)
    factor = _schedule(trainer)
    train, head = trainer.config.train, "head" in trainer.config.network.trainable
    peak = train.head_lr if head and train.head_lr else train.lr
    expected = [peak * factor(step) for step in range(len(trainer.train))]
    good = len(rates) == len(expected)
    good = good and largest_gap(torch.tensor(rates), torch.tensor(expected)) < 1e-6
    seen = f"{rates[0]:.1e} to {rates[-1]:.1e}"
    return good, f"{expected[0]:.1e} to {expected[-1]:.1e} over an epoch", seen


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """A GPU adds up in the same order each time for the block, as far as it can."""
    if device.type != "cuda":
        yield
        return
    was = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it cannot
            yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warns)


@check("same seed, same result", "a generator that is not seeded, or state left from before")
def same_seed_same_result(context: AuditContext) -> tuple[bool, str, str]:
    weights = []
    for _ in range(2):
        trainer = context.trainer()
        with repeatable(context.runtime.device):
            trainer.epoch(1)
        weights.append(torch.cat([p.detach().flatten() for p in trainer.parameters]))
        torch.rand(7)  # the second run finds the global generator elsewhere
    gap = float((weights[0] - weights[1]).abs().max())
    return gap == 0, "the same weights, bit for bit", f"{gap:.1e} apart"


class Tripwire:
    """Stands for the test set, and cannot be touched."""

    def __getattribute__(self, name: str) -> object:
        raise PermissionError(f"test pictures read while training ({name})")

    def __len__(self) -> int:
        raise PermissionError("test pictures counted while training")


@check("test is never read in training", "the epoch, or anything else, chosen on the test set")
def test_untouched(context: AuditContext) -> tuple[bool, str, str]:
    context.fitted(dataclasses.replace(context.data, test=Tripwire()), epochs=1)
    return True, "fit to end without it", "it did"


@check("the best epoch on val is kept", "the last epoch kept, or another score than val's used")
def best_epoch_kept(context: AuditContext) -> tuple[bool, str, str]:
    scores, states = [0.5, 0.7, 0.6], []
    original = Trainer.epoch

    def scripted(trainer: Trainer, number: int) -> dict:
        with torch.no_grad():
            for parameter in trainer.parameters:
                parameter.add_(1e-3)
        trainer.ema.update()
        with trainer.ema.in_place():  # what val scores, and is kept
            states.append(trainer.parameters[0].detach().clone())
        figures = dict.fromkeys(("lr", "train_loss", "val_loss", "seconds"), 0.0)
        # train accuracy peaks elsewhere, so that choosing by it shows
        chosen = {"val_accuracy": scores[number - 1], "train_accuracy": 0.3 * number}
        return {"epoch": number, **figures, **chosen, "pictures_per_second": 0.0}

    Trainer.epoch = scripted
    try:
        network = context.fitted(context.data, epochs=3)
    finally:
        Trainer.epoch = original
    own = next(p for p in network.parameters() if p.requires_grad)
    kept = [number + 1 for number, state in enumerate(states) if torch.equal(state, own)]
    return kept == [2], "epoch 2 of val accuracies 0.5, 0.7, 0.6", f"epoch {kept}"
