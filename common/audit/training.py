"""The audit's checks on training: step, modes, freezing, rate, seed, and what it may read."""

import contextlib
import copy
import dataclasses
import math
import warnings
from collections.abc import Iterator
from unittest.mock import DEFAULT, patch

import torch
from torch import Tensor, nn

from common.audit import feed
from common.audit.context import (
    AuditContext,
    Seen,
    check,
    cross_entropy,
    largest_gap,
    margin,
    without_dropout,
)
from common.config import LevelConfig, TrainConfig
from common.config.registry import named_step
from common.models import Features, StagedNetwork
from common.models.adapt import adapt_batch_norm, pictures_to_adapt
from common.training import Trainer
from common.training.progress import Progress


@check("one batch can be overfitted", "gradients that do not reach the weights, a wrong loss")
def overfits_one_batch(context: AuditContext) -> Seen:
    plain = {"optimizer": "adam", "schedule": "constant", "weight_decay": 0.0}
    expected, tried = "a loss below 30 % of the start's in 40 steps", []
    for rate in (3e-3, 3e-4, 0.1):  # of some network each; the last for features that are faint
        steps = feed.unmixed(context)  # shares of classes leave a loss that is not the network's
        trainer = context.trainer(
            augment=steps, lr=rate, head_lr=None, label_smoothing=0.0, **plain
        )
        without_dropout(trainer.network).train()
        features, targets = next(trainer.train.epoch(0))
        losses = [float(trainer.step(0, features, targets)[0])]
        while len(losses) < 40 and losses[-1] > 0.3 * losses[0]:
            losses.append(float(trainer.step(len(losses), features, targets)[0]))
        tried.append(f"{losses[0]:.2f} to {losses[-1]:.2f} in {len(losses)} steps at {rate}")
        if losses[-1] <= 0.3 * losses[0]:
            return True, expected, tried[-1], 40 / len(losses)
    return False, expected, ", ".join(tried)


@check(
    "one step is the configured step",
    "gradients not zeroed before the next step, a wrong loss, a parameter the optimiser never got",
)
def step_as_configured(context: AuditContext) -> Seen:
    worst, where, train = 0.0, None, context.config.train
    scales = train.clip_norm is not None or train.precision == "float16"
    for scaled in (False, True) if scales else (False,):
        worst, where = max((worst, where), _two_steps(context, scaled), key=lambda pair: pair[0])
    expected = "the weights of torch's own optimiser after 2 steps on the same batches"
    seen = f"{worst:.1%} of the way off" + (f" at {where}" if where else "")
    return worst < 0.05, expected, seen, margin(worst, 0.05)


def _two_steps(context: AuditContext, scaled: bool) -> tuple[float, str | None]:
    """How far two steps lead from the reference's, as a share of the way, and where most; `scaled`
    as float16's are, by a factor that must not show.
    """
    trainer = context.trainer()
    if scaled:
        device = context.runtime.device.type
        trainer.scaler = torch.amp.GradScaler(device, init_scale=2.0**12)
    own = without_dropout(trainer.network).train()
    start = {name: value.detach().clone() for name, value in own.named_parameters()}
    reference = copy.deepcopy(own)
    optimizer = _reference_optimizer(reference, context)
    moving = {name: p for name, p in reference.named_parameters() if p.requires_grad}
    config, steps = trainer.config, trainer.config.train.epochs * len(trainer.train)
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
            group["lr"] = planned_rate(config.train, group["part"], depth, step, steps)
        optimizer.step()
        for name, parameter in own.named_parameters():  # from where both are, on to the next step
            if name in moving:
                moving[name].data = torch.where(felt[name], moving[name], parameter.detach())
    return _furthest(start, own, reference, felt)


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
    names = [part for part in reversed([*network.stages, "head"]) if part in wanted]
    parameters = [{"params": g, "part": name} for g, name in zip(groups, names, strict=True)]
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


def planned_rate(
    config: TrainConfig, part: str, depth: int, step: int, steps: int, losses: list[float] = ()
) -> float:
    """The rate of the head or a stage at a step of the run, from the schedule's own formula.

    Args:
        depth: parts that train above this one.
        losses: val's, of the epochs so far.
    """
    name, given = named_step(config.schedule)
    factor, progress = 1.0, step / steps
    if name == "cosine":
        warm = given.get("warmup", 0.0) * steps
        low = given.get("final", 0.0)
        falling = (step - warm) / max(steps - warm, 1)
        factor = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * falling))
        factor = (step + 1) / (warm + 1) if step < warm else factor
    elif name == "one_cycle":
        top, low = given.get("warmup", 0.3) * steps, given.get("start", 0.04)
        rise = low + (1 - low) * math.sin(math.pi * step / top / 2) ** 2 if top else 1.0
        fall = math.cos(math.pi * (step - top) / max(steps - top, 1) / 2) ** 2
        factor = rise if progress < top / steps else fall
    elif name == "plateau":
        best, waited = math.inf, 0
        for loss in losses:
            best, waited = (loss, 0) if loss < best else (best, waited + 1)
            if waited > given.get("patience", 2):
                factor, waited = factor * given.get("factor", 0.1), 0
    peak = config.head_lr if part == "head" and config.head_lr else config.lr
    return peak * factor * given.get("layer_decay", 1.0) ** depth


def planned_parts(config: LevelConfig, network: StagedNetwork, epoch: int) -> list[str]:
    """What trains in an epoch, from the head down."""
    parts = [p for p in reversed([*network.stages, "head"]) if p in config.network.trainable]
    name, given = named_step(config.train.schedule)
    return parts[: 1 + (epoch - 1) // given.get("epochs", 1)] if name == "gradual" else parts


@check("train and eval mode", "model.train() or model.eval() missing, or the mode not restored")
def modes(context: AuditContext) -> Seen:
    trainer = context.trainer()
    network, seen = trainer.network, {"train": set(), "eval": set()}
    unfrozen = planned_parts(context.config, network, 1)
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
def frozen_is_frozen(context: AuditContext) -> Seen:
    trainer = context.trainer()
    before = copy.deepcopy(trainer.network.state_dict())
    trainer.epoch(1)
    names = planned_parts(context.config, trainer.network, 1)
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
def adapted(context: AuditContext) -> Seen:
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
    return max(gaps) < 1e-2 and not strays, expected, text, margin(max(gaps), 1e-2)


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
def rate_as_configured(context: AuditContext) -> Seen:
    trainer, rates, numbers = context.trainer(epochs=3), [], []
    train, step = trainer.config.train, trainer.step

    def spy(number: int, *arguments: object) -> tuple[Tensor, Tensor]:
        result = step(number, *arguments)
        numbers.append(number)
        rates.append([group["lr"] for group in trainer.optimizer.param_groups])
        return result

    trainer.step = spy
    trainer.epoch(2)  # begins in the middle of the schedule, and numbers its steps on
    first, count = len(trainer.train), len(trainer.train)
    parts = planned_parts(replaced_schedule(trainer.config), trainer.network, 1)
    features, targets = next(trainer.train.epoch(1))
    for number in (0, 1, 3 * count - 1):
        spy(number, features, targets)
    expected = [
        [planned_rate(train, part, d, n, 3 * count) for d, part in enumerate(parts)]
        for n in [*range(first, 2 * count), 0, 1, 3 * count - 1]
    ]
    wrong = [] if numbers[:count] == [*range(first, 2 * count)] else ["steps are not numbered on"]
    if [len(row) for row in rates] != [len(parts)] * len(rates):
        wrong.append(f"{len(rates[0])} rates for {len(parts)} parts that train")
    elif len(rates) != len(expected):
        wrong.append(f"{len(rates)} steps, not {len(expected)}")
    else:
        gap = largest_gap(torch.tensor(rates), torch.tensor(expected))
        wrong += [f"{gap:.0%} of the largest rate off"] if gap > 1e-5 else []
    words = f"{expected[0][0]:.1e} to {expected[count - 1][0]:.1e} in the second epoch of 3"
    return not wrong, words, ", ".join(wrong) or "that"


def replaced_schedule(config: LevelConfig) -> LevelConfig:
    """With all parts training from the start."""
    config = copy.deepcopy(config)
    config.train.schedule = "constant"
    return config


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
def same_seed_same_result(context: AuditContext) -> Seen:
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


@check(
    "the best epoch on val is kept",
    "the last epoch kept, or another score than val's used, or training that stops too early",
)
def best_epoch_kept(context: AuditContext) -> Seen:
    wrong = []
    for scores, patience, ends, best in (
        ([0.7, 0.6, 0.5], None, 3, None),
        ([0.5, 0.7, 0.7, 0.6, 0.9], 2, 4, 2),  # of equals the first; stopped before the last
    ):
        kept, ended, rates, parts = _scripted(context, scores, patience, keeps=best is not None)
        script = ", ".join(map(str, scores)) + (f", patience {patience}" if patience else "")
        if (kept, ended) != ([best] if best else [], ends):
            wrong.append(f"of {script}: epoch {kept} kept, ended after {ended}")
        wrong += [f"{what} of epoch {n}" for n, what in enumerate(zip_off(rates, parts), 1) if what]
    expected = (
        "the first epoch of the highest val accuracy, and an end when none is better for long"
    )
    return not wrong, expected, ", ".join(wrong) or "that"


def zip_off(rates: list[tuple[float, float]], parts: list[tuple[list, list]]) -> list[str]:
    """What differs from plan, by epoch."""
    return [
        "rate" if abs(a - b) > 1e-6 * b else "what trains" if c != d else ""
        for (a, b), (c, d) in zip(rates, parts, strict=True)
    ]


def _scripted(
    context: AuditContext, scores: list[float], patience: int | None, keeps: bool
) -> tuple[list[int], int, list[tuple[float, float]], list[tuple[list, list]]]:
    """`fit` with epochs whose val accuracies are given; `keeps` false for one without checkpoints.

    Returns:
        The epochs whose weights were kept, how many there were, and of each the head's rate at its
        start and what trains, as they are and as planned.
    """
    states, rates, parts, losses = [], [], [], []

    def scripted(trainer: Trainer, number: int) -> dict:
        train, steps = trainer.config.train, len(trainer.train)
        top = planned_parts(trainer.config, trainer.network, 1)[0]
        plan = planned_rate(
            train, top, 0, (number - 1) * steps, train.epochs * steps, losses[: number - 1]
        )
        rates.append((train.peak(top) * trainer.rate((number - 1) * steps, 0), plan))
        unfrozen = trainer.rate.unfrozen(trainer.network.trainable, number)
        now = planned_parts(trainer.config, trainer.network, number)
        parts.append((sorted(unfrozen), sorted(now)))
        with torch.no_grad():
            for parameter in trainer.parameters:
                parameter.add_(1e-3)
        trainer.ema.update()
        with trainer.ema.in_place():  # what val scores, and is kept
            states.append(trainer.parameters[0].detach().clone())
        figures = dict.fromkeys(("lr", "train_loss", "seconds"), 0.0)
        # train accuracy peaks elsewhere, so that choosing by it shows; val loss does not fall
        chosen = {"val_accuracy": scores[number - 1], "train_accuracy": 0.3 * number}
        losses.append(1.0 + 0.1 * number)
        figures |= {"val_loss": losses[-1], "pictures_per_second": 0.0}
        return {"epoch": number, **figures, **chosen}

    silent = {} if keeps else {"save": DEFAULT, "load_best": DEFAULT}
    with (
        patch.object(Trainer, "epoch", scripted),
        patch.multiple(Progress, **silent) if silent else contextlib.nullcontext(),
    ):
        network = context.fitted(context.data, len(scores), patience)
    own = next(p for p in network.parameters() if p.requires_grad)
    kept = [n for n, state in enumerate(states, 1) if keeps and torch.equal(state, own)]
    return kept, len(states), rates, parts


@check("averaged weights are the average", "an average that lags, skips steps, or is not scored")
def average_as_configured(context: AuditContext) -> Seen:
    trainer, decay = context.trainer(), context.config.train.ema
    network, step, mean, last, taken = trainer.network, trainer.step, {}, {}, 0
    expected = "what val scores is the average by the configured share" if decay else "no average"

    def trained() -> dict[str, Tensor]:
        return {n: p.detach().clone() for n, p in network.named_parameters() if p.requires_grad}

    def spy(*arguments: object) -> tuple[Tensor, Tensor]:
        nonlocal taken
        mean.update({} if mean else trained())
        result, taken = step(*arguments), taken + 1
        share = min(decay, (1 + taken) / (10 + taken)) if decay else 0.0
        last.update(trained())
        mean.update({n: share * mean[n] + (1 - share) * p for n, p in last.items()})
        return result

    trainer.step = spy
    trainer.epoch(1)
    with trainer.ema.in_place():
        scored = trained()
    gaps = [float((scored[n] - mean[n]).norm() / mean[n].norm().clamp_min(1e-6)) for n in mean]
    back = all(torch.equal(value, last[name]) for name, value in trained().items())
    seen = f"{max(gaps):.0e} off" + ("" if back else ", and left in place")
    return max(gaps) < 1e-4 and back, expected, seen, margin(max(gaps), 1e-4)


@check("batch norm learns where it trains", "batch statistics that never reach the running ones")
def batch_norm_moves(context: AuditContext) -> Seen:
    trainer, arrived = context.trainer(), {}
    network, kind = trainer.network, nn.modules.batchnorm._BatchNorm
    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, kind) and module.track_running_stats
    }
    parts = planned_parts(context.config, network, 1)
    starts = _starts(["head"] if context.config.train.freeze_batch_norm else parts)
    moving = {n for n in norms if n.startswith(starts) and n.startswith(_starts(parts))}
    expected_state = {
        name: [module.running_mean.clone(), module.running_var.clone(), module.momentum]
        for name, module in norms.items()
    }

    def note(name: str, values: Tensor) -> None:
        if torch.is_grad_enabled() and name in moving:
            values = values.detach().transpose(0, 1).flatten(1)
            mean, var, share = expected_state[name]
            expected_state[name][:2] = (
                mean.lerp(values.mean(1), share),
                var.lerp(values.var(1), share),
            )
            arrived[name] = arrived.get(name, 0) + 1

    for name, module in norms.items():
        module.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
    trainer.epoch(1)
    wrong = [
        name
        for name, (mean, var, _) in expected_state.items()
        if largest_gap(norms[name].running_mean, mean) > 1e-3
        or largest_gap(norms[name].running_var, var) > 1e-3
    ]
    wrong += [name for name in moving if arrived.get(name) != len(trainer.train)]
    words = f"{len(moving)} of {len(norms)} move by each step's own batch, the others stay"
    return not wrong, words, f"otherwise in {wrong[0]}" if wrong else "that"
