"""The audit's checks on training: modes, freezing, batch norm, and the epoch that is kept."""

import contextlib
import copy
import dataclasses
from collections.abc import Sequence
from unittest.mock import DEFAULT, patch

import torch
from torch import Tensor, nn

from common.audit.context import BATCH, AuditContext, Seen, check, largest_gap, margin
from common.audit.plan import batch_norm_keys, key_starts, parts_in, rate_at
from common.models import StagedNetwork, adapt
from common.models.adapt import adapt_batch_norm, pictures_to_adapt
from common.models.staged import batch_norms
from common.training import Trainer
from common.training.progress import Progress


class Epoch:
    """The first epoch of the run's trainer, which three checks look at.

    Attributes:
        network: as the epoch left it; before: its tensors at the start; steps: of the epoch.
        trains: parts that train; starts: how the names of their tensors begin; fixed: names of
            batch norm's, where it is not to move.
        modes: whether those parts were in train mode, when "train" and val ("eval") passed them.
        after: whether the network was left in train mode.
        norms: the batch norms that keep statistics, by name; moving: names of those that train.
        momentum, counted: of each at the start, and batches by then; expected: mean and variance
            that each should have now; arrived: steps that reached it.
    """

    def __init__(self, context: AuditContext):
        trainer = context.trainer()
        network = self.network = trainer.network
        self.before, self.steps = copy.deepcopy(network.state_dict()), len(trainer.train)
        self.trains = parts_in(context.config, network, 1)
        self.starts = key_starts(self.trains)
        self.fixed = batch_norm_keys(network) if context.config.train.freeze_batch_norm else set()
        self.modes = {"train": set(), "eval": set()}
        self.norms = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
        }
        self.moving = {
            name
            for name in self.norms
            if name.startswith(self.starts) and f"{name}.running_mean" not in self.fixed
        }
        self.expected = {
            name: (module.running_mean.clone(), module.running_var.clone())
            for name, module in self.norms.items()
        }
        self.momentum = {name: module.momentum for name, module in self.norms.items()}
        self.counted = {n: int(module.num_batches_tracked) for n, module in self.norms.items()}
        self.arrived = dict.fromkeys(self.moving, 0)
        for name, part in network.parts():
            if name in self.trains:
                part.register_forward_pre_hook(lambda part, _: self._note_mode(part))
        for name in self.moving:
            self.norms[name].register_forward_pre_hook(
                lambda _, inputs, name=name: self._note_statistics(name, inputs[0])
            )
        network.eval()
        trainer.epoch(1)
        self.after = network.training

    def _note_mode(self, part: nn.Module) -> None:
        self.modes["train" if torch.is_grad_enabled() else "eval"].add(part.training)

    def _note_statistics(self, name: str, values: Tensor) -> None:
        if torch.is_grad_enabled():
            values = values.detach().transpose(0, 1).flatten(1)
            self.arrived[name] += 1
            share = self.momentum[name]
            if share is None:  # each batch counts alike
                share = 1 / (self.counted[name] + self.arrived[name])
            mean, var = self.expected[name]
            self.expected[name] = (mean.lerp(values.mean(1), share), var.lerp(values.var(1), share))


@check("train and eval mode", "model.train() or model.eval() missing, or the mode not restored")
def modes(context: AuditContext) -> Seen:
    epoch = context.once(Epoch)
    network, seen = epoch.network, epoch.modes
    good = seen["train"] == {True} and seen["eval"] == {False}
    frozen = [n for n, p in network.parts() if p.training and n not in network.trainable]
    text = f"training with train mode {sorted(seen['train'])}, val with {sorted(seen['eval'])}"
    text += f", afterwards {epoch.after}" + (f", frozen in train mode: {frozen}" if frozen else "")
    good = good and epoch.after and not frozen
    return good, "True in training, False in val, True after", text


@check("frozen means frozen", "batch norm of a frozen stage in train mode, or a stray gradient")
def frozen_is_frozen(context: AuditContext) -> Seen:
    epoch = context.once(Epoch)
    state, named = epoch.network.state_dict(), dict(epoch.network.named_parameters())
    moved = [key for key, value in state.items() if not torch.equal(value, epoch.before[key])]
    pulled = [key for key, parameter in named.items() if parameter.grad is not None]
    strays = [k for k in moved + pulled if not k.startswith(epoch.starts) or k in epoch.fixed]
    learned = set(moved) & named.keys()  # no buffers
    train, steps = context.config.train, context.config.train.epochs * epoch.steps
    still = [
        start
        for depth, (part, start) in enumerate(zip(epoch.trains, epoch.starts, strict=True))
        if not any(key.startswith(start) for key in learned)
        and any(rate_at(train, part, depth, step, steps) > 1e-8 for step in range(epoch.steps))
    ]
    seen = f"{len(moved)} moved" + (f", frozen, and touched: {strays[0]}" if strays else "")
    seen += f", nothing in {still[0]}" if still else ""
    expected = f"what moves is in {', '.join(epoch.trains)}, and all of it"
    return not strays and not still, expected, seen


@check("batch norm is adapted as it says", "a moving average, or other pictures than train's")
def adapted(context: AuditContext) -> Seen:
    network, data = context.network(), context.data
    norms = [norm for norm in batch_norms(network.stages) if norm.track_running_stats]
    expected = "the mean and variance of what reaches each batch norm; nothing else moves"
    if not norms or not pictures_to_adapt(context.config.network, context.whole):
        return True, expected, "not adapted"
    before = copy.deepcopy(network.state_dict())
    elsewhere = dataclasses.replace(data, val=Tripwire(), test=Tripwire())
    with patch.object(adapt, "BATCH", BATCH):  # so that there are several
        adapt_batch_norm(network, elsewhere, len(data.train), context.runtime)
    state = copy.deepcopy(network.state_dict())
    moved = {key for key, value in state.items() if not torch.equal(value, before[key])}
    strays = moved - batch_norm_keys(network) | moved & dict(network.named_parameters()).keys()
    gaps = _gaps_to_what_arrives(network, norms, context.pictures(data.train).split(BATCH))
    text = f"at most {max(gaps):.0e} off" + (f", and moved: {min(strays)}" if strays else "")
    return max(gaps) < 1e-2 and not strays, expected, text, margin(max(gaps), 1e-2)


@torch.no_grad()
def _gaps_to_what_arrives(
    network: StagedNetwork, norms: list[nn.Module], batches: Sequence[Tensor]
) -> list[float]:
    """How far each batch norm's statistics are off the mean of those of what reaches it, of all
    batches, each of which is normalised by its own at each batch norm before.
    """
    total = sum(map(len, batches))
    arrived = {norm: 0.0 for norm in norms}

    def add(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        seen = inputs[0].transpose(0, 1).flatten(1).float()
        arrived[norm] += torch.stack([seen.mean(1), seen.var(1)]) * (len(inputs[0]) / total)

    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 0.0  # its statistics stay
        norm.register_forward_pre_hook(add)
    for images in batches:
        network(images)
    own = {norm: torch.stack([norm.running_mean, norm.running_var]) for norm in norms}
    return [largest_gap(own[norm], arrived[norm]) for norm in norms]


@check("batch norm learns where it trains", "batch statistics that never reach the running ones")
def batch_norm_moves(context: AuditContext) -> Seen:
    epoch = context.once(Epoch)
    norms, moving = epoch.norms, epoch.moving
    wrong = [
        name
        for name, (mean, var) in epoch.expected.items()
        if largest_gap(norms[name].running_mean, mean) > 1e-3
        or largest_gap(norms[name].running_var, var) > 1e-3
    ]
    wrong += [name for name in moving if epoch.arrived[name] != epoch.steps]
    momenta = {name: norms[name].momentum for name in moving if norms[name].momentum is not None}
    wrong += [
        name for name, value in momenta.items() if not 0 < value <= 0.5
    ]  # 1: the last batch's
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
