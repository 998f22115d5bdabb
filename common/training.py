"""`fit`: one loop, one precision path, for every level."""

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from common import augment, checkpoint, faults, schedules
from common.averaging import Average
from common.batches import Batches
from common.config import LevelConfig, TrainConfig, UserError, differences
from common.data import Splits
from common.evaluation import predict, tta_of
from common.live import Live
from common.network import Features, StagedNetwork
from common.runtime import counter_seed
from common.trunk import FeatureBatches, Trunk

log = logging.getLogger("rungs")

LOOK = 50  # steps between two looks at loss and accuracy for the bar


def build_optimizer(
    parameters: list[nn.Parameter] | list[dict], config: TrainConfig
) -> torch.optim.Optimizer:
    """The configured optimiser over parameters or groups, a step of each one fused operation."""
    kinds = {
        "adam": (torch.optim.Adam, {}),
        "adamw": (torch.optim.AdamW, {}),
        "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    }
    kind, options = kinds[config.optimizer]
    return kind(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True, **options)


def fit(
    network: StagedNetwork, data: Splits, config: LevelConfig, trunk: Trunk, folder: Path
) -> list[dict]:
    """Train, and leave the network with the weights of the epoch that was best on val.

    The best epoch has the highest val accuracy, the earliest where several have. After every epoch
    `folder` holds `best.pt`, `history.json`, and `last.pt`, from which `config.resume` goes on.

    Returns:
        The history: a dict an epoch.
    Raises:
        UserError: a loss that is not finite, or an unfinished run of another config.
    """
    trainer = Trainer(network, data, config, trunk)
    live = Live(config.log, folder)
    history = trainer.resume(folder / "last.pt") if config.resume else []
    best = best_epoch(history)

    while not finished(history, config.train):
        epoch = len(history) + 1
        trainer.rate.see(history)
        with faults.memory(config.train.batch_size):
            entry = trainer.epoch(epoch)
        history.append(entry)
        live.epoch(entry)
        _log_epoch(entry, config.train.epochs)
        if best is None or entry["val_accuracy"] > best["val_accuracy"]:
            best = entry
            with trainer.average.in_place():
                checkpoint.save(folder / "best.pt", trainer.state(epoch=epoch))
        state = trainer.state(history=history, **trainer.progress())
        checkpoint.save(folder / "last.pt", state, keep=True)
        (folder / "history.json").write_text(json.dumps(history, indent=2), encoding="utf-8")

    if len(history) < config.train.epochs:
        log.info("stopped early: val accuracy no better for %d epochs", config.train.early_stopping)
    live.close()
    path = folder / "best.pt"
    checkpoint.load_network(network, checkpoint.load(path), path)
    return history


def best_epoch(history: list[dict]) -> dict | None:
    """The epoch with the highest val accuracy, the earliest of several; None of none."""
    return max(history, key=lambda entry: (entry["val_accuracy"], -entry["epoch"]), default=None)


def finished(history: list[dict], config: TrainConfig) -> bool:
    """Whether a run has all its epochs, or stopped early after these."""
    best, patience = best_epoch(history), config.early_stopping
    waited = best and patience and len(history) - best["epoch"] >= patience
    return len(history) >= config.epochs or bool(waited)


class Trainer:
    """A network, what trains it, and the steps."""

    def __init__(self, network: StagedNetwork, data: Splits, config: LevelConfig, trunk: Trunk):
        self.network, self.data, self.config = network, data, config
        self.runtime = runtime = trunk.runtime
        options = network.weights, config.train.batch_size, runtime
        augmentation = augment.build(config.augment, data.mirror)
        train = Batches(data.train, *options, transform=augmentation, seed=config.seed)
        self.train = FeatureBatches(train, trunk, repeats=True)
        self.val = FeatureBatches(Batches(data.val, *options), trunk, repeats=True)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        normed = any(map(_trains_batch_norm, network.modules()))
        if config.train.batch_size == 1 and normed:
            raise UserError("train.batch_size: batch norm that trains needs at least 2 pictures")
        parts, depths = dict(network.parts()), enumerate(reversed(network.trainable))
        groups = [{"params": list(parts[name].parameters()), "depth": d} for d, name in depths]
        self.optimizer = build_optimizer(groups, config.train)
        self.average = Average(network, config.train.ema)
        self.scaler = runtime.scaler()
        self.forward = runtime.compiled(network.forward_suffix)
        self.rate = schedules.build(config.train.schedule, config.train.epochs * len(train))

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train on every picture once, then score val; accuracies are correct over seen."""
        started = time.perf_counter()
        loss_sum = torch.zeros((), device=self.runtime.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.runtime.device)
        seen, first = 0, (epoch - 1) * len(self.train)
        self.network.thaw(self.rate.thawed(self.network.trainable, epoch))
        self.network.train()
        quiet = None if log.isEnabledFor(logging.INFO) else True  # None: quiet if no terminal
        count = len(self.data.train)
        with tqdm(None, f"epoch {epoch}", count, False, unit=" pictures", disable=quiet) as bar:
            for step, (features, targets) in enumerate(self.train.epoch(epoch)):
                loss, logits = self.step(first + step, features, targets)
                loss_sum += loss * len(targets)
                correct += (logits.argmax(1) == _hard(targets)).sum()
                seen += len(targets)
                bar.update(len(targets))
                if (step + 1) % LOOK == 0 or step + 1 == len(self.train):
                    bar.set_postfix_str(
                        f"loss {loss_sum / seen:.3f}, accuracy {correct / seen:.1%}"
                    )
        seconds = time.perf_counter() - started
        with self.average.in_place():
            val = predict(self.network, self.val).score()
        return {
            "epoch": epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": float(loss_sum) / seen,
            "train_accuracy": float(correct) / seen,
            "val_loss": val["loss"],
            "val_accuracy": val["accuracy"],
            "seconds": time.perf_counter() - started,
            "pictures_per_second": seen / seconds,
        }

    def step(self, step: int, features: Features, targets: Tensor) -> tuple[Tensor, Tensor]:
        """One optimiser step, `step` counted from the run's start: loss () and logits (B, C)."""
        config = self.config.train
        torch.manual_seed(counter_seed(self.config.seed, "step", step))  # for dropout
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * self.rate(step, group["depth"])
        with self.runtime.arithmetic():
            logits = self.forward(features)
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        self._check_finite(loss.detach(), norm, step)
        if config.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, config.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update()
        return loss.detach(), logits.detach()

    def _check_finite(self, loss: Tensor, norm: Tensor, step: int) -> None:
        """Raise before a step is taken with a loss or gradient that is no number.

        Where a scaler is at work, it leaves out steps whose gradients are too large for float16.
        """
        seen = loss if self.scaler.is_enabled() else loss + norm
        if not math.isfinite(seen):
            epoch, step = divmod(step, len(self.train))
            raise UserError(
                f"loss or gradient not finite at epoch {epoch + 1}, step {step + 1}: "
                "lower train.lr or set train.clip_norm"
            )

    def state(self, **more: Any) -> dict[str, Any]:
        """A checkpoint: the network, and the facts that a later user of it must check."""
        facts = {
            "fingerprint": self.data.fingerprint,
            "split": self.data.split,
            "weights": self.network.weights.sha256,
            "seed": self.config.seed,
            "settings": self.config.settings(),
            "classes": list(self.data.classes),
            "stored_size": self.data.train.source.shape[-1],
            "tta": tta_of(self.config, self.data),
        }
        return {"network": self.network.state_dict(), **facts, **more}

    def progress(self) -> dict[str, Any]:
        """What else the next epoch needs: the randomness comes from counters."""
        parts = {"optimizer": self.optimizer, "scaler": self.scaler}
        return {name: part.state_dict() for name, part in parts.items()} | {
            "average": self.average.state()
        }

    def resume(self, path: Path) -> list[dict]:
        """Go on from a checkpoint of the same settings; its history, empty where there is none."""
        if not path.exists():
            log.info("nothing to resume at %s: starting anew", path)
            return []
        content = checkpoint.load(path)
        own = self.state()
        differing = differences(content["settings"], own["settings"])
        for fact, what in (("fingerprint", "pictures"), ("split", "split"), ("weights", "weights")):
            differing += [what] if content[fact] != own[fact] and not differing else []
        if differing:
            raise UserError(
                f"{path}: made with other {', '.join(differing)}; change back what differs, "
                "or run without --resume to start anew"
            )
        checkpoint.load_network(self.network, content, path)
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.average.load(content["average"])
        log.info("resumed after epoch %d", len(content["history"]))
        return content["history"]


def _trains_batch_norm(module: nn.Module) -> bool:
    kind = nn.modules.batchnorm._BatchNorm
    return isinstance(module, kind) and any(p.requires_grad for p in module.parameters())


def _hard(targets: Tensor) -> Tensor:
    """Labels (B,); of shares of classes (B, C) the largest."""
    return targets.argmax(1) if targets.ndim == 2 else targets


def _log_epoch(entry: dict, epochs: int) -> None:
    line = "epoch {epoch}/{epochs}: train loss {train_loss:.3f}, accuracy {train_accuracy:.1%};"
    line += " val loss {val_loss:.3f}, accuracy {val_accuracy:.1%}; {seconds:.0f} s"
    log.info(line.format(epochs=epochs, **entry))
