"""The audit's checks on the optimiser's steps: what they do, by which rates, and their average."""

import copy
from dataclasses import replace

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
    repeatable,
    without_dropout,
)
from common.audit.plan import batch_norm_keys, key_starts, parts_in, rate_at, without_schedule
from common.config import LevelConfig
from common.models import Features, StagedNetwork
from common.training.schedules import build_schedule

LONG = 5000  # steps of a run whose rates are looked at without its steps


@check("one batch can be overfitted", "gradients that do not reach the weights, a wrong loss")
def overfits_one_batch(context: AuditContext) -> Seen:
    plain = {"optimizer": "adam", "schedule": "constant", "weight_decay": 0.0}
    expected, tried = "a loss below 30 % of the start's in 40 steps, or 200 at the last rate", []
    # of some network each; the last for features that are faint, as of many layers drawn at random
    for rate, most in ((3e-3, 40), (3e-4, 40), (0.1, 200)):
        steps = feed.unmixed(context)  # shares of classes leave a loss that is not the network's
        trainer = context.trainer(
            augment=steps, lr=rate, head_lr=None, label_smoothing=0.0, **plain
        )
        without_dropout(trainer.network).train()
        features, targets = next(trainer.train.epoch(0))
        losses = [float(trainer.step(0, features, targets)[0])]
        while len(losses) < most and losses[-1] > 0.3 * losses[0]:
            losses.append(float(trainer.step(len(losses), features, targets)[0]))
        tried.append(f"{losses[0]:.2f} to {losses[-1]:.2f} in {len(losses)} steps at {rate}")
        if losses[-1] <= 0.3 * losses[0]:
            return True, expected, tried[-1], most / len(losses)
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
    coarse = _coarse_loss(context)
    seen += f"; in bfloat16 the loss is {coarse:.0e} off" if coarse > 1e-4 else ""
    return worst < 0.05 and coarse <= 1e-4, expected, seen, margin(worst, 0.05)


def _coarse_loss(context: AuditContext) -> float:
    """How far the loss of a step in bfloat16 is off its logits' cross-entropy in float32, which
    has digits that bfloat16 has not.
    """
    trainer = context.trainer()
    trainer.runtime = replace(trainer.runtime, dtype=torch.bfloat16)
    trainer.network.train()
    features, targets = next(trainer.train.epoch(0))
    loss, logits = trainer.step(0, features, targets)
    own = cross_entropy(logits.float(), targets, trainer.config.train.label_smoothing)
    return abs(float(loss - own)) / max(1.0, float(own))


def _two_steps(context: AuditContext, scaled: bool) -> tuple[float, str | None]:
    """How far two steps lead from the reference's, as a share of the way, and where most; `scaled`
    as float16's are, by a factor that must not show.
    """
    decay = context.config.train.weight_decay
    trainer = context.trainer(weight_decay=max(decay, 5.0) if decay else 0.0)  # so that it shows
    if scaled:
        device = context.runtime.device.type
        trainer.scaler = torch.amp.GradScaler(device, init_scale=2.0**12)
    own = without_dropout(trainer.network).train()
    start = {name: value.detach().clone() for name, value in own.named_parameters()}
    reference = copy.deepcopy(own)
    optimizer = _reference_optimizer(reference, trainer.config)
    in_float64 = copy.deepcopy(reference).cpu().double()
    moving = {name: p for name, p in reference.named_parameters() if p.requires_grad}
    config, steps = trainer.config, trainer.config.train.epochs * len(trainer.train)
    smoothing, clip = trainer.config.train.label_smoothing, trainer.config.train.clip_norm
    felt = {name: torch.ones_like(p, dtype=torch.bool) for name, p in moving.items()}
    for step, (images, targets) in enumerate(trainer.train.batches.epoch(0)):
        if step == 2:
            break
        features = trainer.train.trunk(images)
        in_float64.load_state_dict(reference.state_dict())
        exact = _gradients(in_float64, features, targets, smoothing)
        trainer.step(step, features, targets)
        gradients = _gradients(reference, features, targets, smoothing)
        norm = torch.stack([g.norm() for g in gradients.values()]).norm()
        scale = min(1.0, clip / (float(norm) + 1e-6)) if clip else 1.0
        for name, parameter in moving.items():
            parameter.grad = gradients[name] * scale if name in gradients else None
            if name not in gradients:
                continue
            gap = (gradients[name].cpu() - exact[name]).abs()
            felt[name] &= (gap <= 0.01 * exact[name].abs()).to(parameter.device)
        for depth, group in enumerate(optimizer.param_groups):
            group["lr"] = rate_at(config.train, group["part"], depth, step, steps)
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
    found = torch.autograd.grad(loss, [*moving.values()], allow_unused=True)
    return {n: g for n, g in zip(moving, found, strict=True) if g is not None}


def _reference_optimizer(network: StagedNetwork, config: LevelConfig) -> torch.optim.Optimizer:
    """The configured optimiser over what the config says trains, in its plainest form."""
    parts, train = parts_in(without_schedule(config), network, 1), config.train
    named, starts = dict(network.named_parameters()), key_starts(parts)
    fixed = batch_norm_keys(network) if train.freeze_batch_norm else ()
    for name, parameter in named.items():
        parameter.requires_grad_(name.startswith(starts) and name not in fixed)
    groups = [  # one each, from the head on
        {
            "part": part,
            "params": [p for n, p in named.items() if n.startswith(start) and n not in fixed],
        }
        for part, start in zip(parts, starts, strict=True)
    ]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    momentum = {"momentum": 0.9, "nesterov": True} if train.optimizer == "sgd" else {}
    options = {"lr": train.lr, "weight_decay": train.weight_decay, "foreach": False}
    return kind[train.optimizer](groups, **options, **momentum)


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
    parts = parts_in(without_schedule(trainer.config), trainer.network, 1)
    features, targets = next(trainer.train.epoch(1))
    for number in (0, 1, 3 * count - 1):
        spy(number, features, targets)
    expected = [
        [rate_at(train, part, d, n, 3 * count) for d, part in enumerate(parts)]
        for n in [*range(first, 2 * count), 0, 1, 3 * count - 1]
    ]
    long = build_schedule(train.schedule, LONG)
    for n in (0, 100, LONG // 3, LONG - 1):
        rates.append([train.peak(part) * long(n, d) for d, part in enumerate(parts)])
        expected.append([rate_at(train, part, d, n, LONG) for d, part in enumerate(parts)])
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


@check("averaged weights are the average", "an average that lags, skips steps, or is not scored")
def average_as_configured(context: AuditContext) -> Seen:
    trainer, decay = context.trainer(), context.config.train.ema
    network, step, mean, last, taken = trainer.network, trainer.step, {}, {}, 0
    expected = "what val scores is the average by the configured share" if decay else "no average"
    starts = key_starts(parts_in(without_schedule(context.config), network, 1))

    def trained() -> dict[str, Tensor]:
        """And batch norm's running statistics."""
        state = {n: x for n, x in network.state_dict().items() if n.startswith(starts)}
        return {n: x.clone() for n, x in state.items() if x.is_floating_point()}

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


@check("same seed, same result", "a generator that is not seeded, or state left from before")
def same_seed_same_result(context: AuditContext) -> Seen:
    """Two epochs again, but by their steps alone: nothing else may hang on what was before."""
    torch.rand(7)  # the second run finds the global generator elsewhere
    first = context.once(feed.augmented).parameters
    trainer = context.trainer(context.once(feed.numbered), feed.unmixed(context), keeps=False)
    network = trainer.network
    with repeatable(context.runtime.device):
        for epoch in (1, 2):
            network.unfreeze(parts_in(context.config, network, epoch))
            network.train()
            batches = trainer.train.epoch(epoch)
            for step, (features, targets) in enumerate(batches, (epoch - 1) * len(trainer.train)):
                trainer.step(step, features, targets)
    gap = max(
        float((p.detach() - first[name]).abs().max()) for name, p in network.named_parameters()
    )
    return gap == 0, "two epochs and their steps alone: the same bits", f"{gap:.1e} apart"
