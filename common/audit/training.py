"""The audit's checks on training: modes, freezing, batch norm, and the epoch that is kept."""

import contextlib
import copy
import dataclasses
from unittest.mock import DEFAULT, patch

import torch
from torch import Tensor, nn

from common.audit.context import AuditContext, Seen, check, largest_gap, margin
from common.audit.plan import batch_norm_keys, key_starts, parts_in, rate_at
from common.models import StagedNetwork
from common.models.adapt import adapt_batch_norm, pictures_to_adapt
from common.training import Trainer
from common.training.progress import Progress


@check("train and eval mode", "model.train() or model.eval() missing, or the mode not restored")
def modes(context: AuditContext) -> Seen:
    trainer = context.trainer()
    network, seen = trainer.network, {"train": set(), "eval": set()}
    unfrozen = parts_in(context.config, network, 1)
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
    names = parts_in(context.config, trainer.network, 1)
    trains = key_starts(names)
    state = trainer.network.state_dict()
    moved = [key for key, value in state.items() if not torch.equal(value, before[key])]
    pulled = [key for key, p in trainer.network.named_parameters() if p.grad is not None]
    fixed = batch_norm_keys(trainer.network) if context.config.train.freeze_batch_norm else ()
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
    strays = moved - batch_norm_keys(network) | moved & dict(network.named_parameters()).keys()
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


@check("batch norm learns where it trains", "batch statistics that never reach the running ones")
def batch_norm_moves(context: AuditContext) -> Seen:
    trainer, arrived = context.trainer(), {}
    network, kind = trainer.network, nn.modules.batchnorm._BatchNorm
    norms = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, kind) and module.track_running_stats
    }
    starts = key_starts(parts_in(context.config, network, 1))
    fixed = batch_norm_keys(network) if context.config.train.freeze_batch_norm else ()
    moving = {n for n in norms if n.startswith(starts) and f"{n}.running_mean" not in fixed}
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
    wrong += [name for name in moving if (norms[name].momentum or 0) > 0.5]  # the last batch's
    words = f"{len(moving)} of {len(norms)} move by each step's own batch, the others stay"
    return not wrong, words, f"otherwise in {wrong[0]}" if wrong else "that"


@check(
    "the best epoch on val is kept",
    "the last epoch kept, or another score than val's used, or training that stops too early",
)
def best_epoch_kept(context: AuditContext) -> Seen:
    wrong = []
    for scores, patience, ends, best in (
        ([0.7] + 7 * [0.6], None, 8, None),
        ([0.5, 0.7, 0.7, 0.6, 0.9], 2, 4, 2),  # of equals the first; stopped before the last
    ):
        kept, ended, rates, parts = _scripted(context, scores, patience, keeps=best is not None)
        script = ", ".join(map(str, scores)) + (f", patience {patience}" if patience else "")
        if (kept, ended) != ([best] if best else [], ends):
            wrong.append(f"of {script}: epoch {kept} kept, ended after {ended}")
        wrong += [
            f"{what} of epoch {n}" for n, what in enumerate(_off_plan(rates, parts), 1) if what
        ]
    expected = (
        "the first epoch of the highest val accuracy, and an end when none is better for long"
    )
    return not wrong, expected, ", ".join(wrong) or "that"


def _off_plan(rates: list[tuple[float, float]], parts: list[tuple[list, list]]) -> list[str]:
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
        top = parts_in(trainer.config, trainer.network, 1)[0]
        plan = rate_at(
            train, top, 0, (number - 1) * steps, train.epochs * steps, losses[: number - 1]
        )
        rates.append((train.peak(top) * trainer.rate((number - 1) * steps, 0), plan))
        unfrozen = trainer.rate.unfrozen(trainer.network.trainable, number)
        now = parts_in(trainer.config, trainer.network, number)
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


class Tripwire:
    """Stands for val or test, and cannot be touched."""

    def __getattribute__(self, name: str) -> object:
        raise PermissionError(f"val or test pictures read where train's are ({name})")

    def __len__(self) -> int:
        raise PermissionError("val or test pictures counted where train's are")
