"""`fit`: one loop, one precision path, for every level.

Read `fit` first, which goes from epoch to epoch, then `Trainer.epoch` and `Trainer.step`.
"""

import logging
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from common.config import LevelConfig, TrainConfig
from common.data import Batches, Splits, build_augmentation
from common.evaluation import predict
from common.models import FeatureBatches, Features, StagedNetwork, Trunk
from common.models.staged import batch_norms
from common.runtime import counter_seed
from common.training import guards
from common.training.ema import EMA
from common.training.logging import TensorBoardLog
from common.training.progress import Progress, finished, log_epoch
from common.training.schedules import build_schedule
from common.utils.errors import SharedError

log = logging.getLogger("rungs")

LOOK = 50  # steps between two looks at loss and accuracy, for which a GPU is waited for


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
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(network, data, config, trunk, folder)
    live = TensorBoardLog(config.log if trainer.processes.first else "none", folder)
    history = trainer.progress.resume(folder / "last.pt") if config.resume else []

    while not finished(history, config.train):
        epoch = len(history) + 1
        trainer.rate.see(history)
        with guards.explained(config.train.batch_size):
            entry = trainer.epoch(epoch)
        history.append(entry)
        live.epoch(entry)
        trainer.progress.save(history, folder)
        log_epoch(entry, config.train.epochs)  # now that it cannot be lost
        trainer.processes.barrier()

    if len(history) < config.train.epochs:
        log.info("stopped early: val accuracy no better for %d epochs", config.train.early_stopping)
    live.close()
    trainer.progress.load_best(folder / "best.pt", history)
    return history


class Trainer:
    """A network, what trains it, and the steps."""

    def __init__(
        self,
        network: StagedNetwork,
        data: Splits,
        config: LevelConfig,
        trunk: Trunk,
        folder: Path | None = None,
    ):
        self.network, self.data, self.config = network, data, config
        self.trunk, self.runtime = trunk, trunk.runtime
        runtime = trunk.runtime
        self.processes = processes = runtime.processes
        if config.train.freeze_batch_norm:
            network.freeze_batch_norm()
        augmentation = build_augmentation(config.augment, data.mirror)
        options = network.weights, config.train.batch_size, runtime
        views = config.train.views
        if views and views >= config.train.epochs:
            views = None  # each epoch has its own
        train = Batches(data.train, *options, augmentation, config.draws, views)
        self.train = FeatureBatches(train, trunk, folder, config.train.epochs)
        self.val = FeatureBatches(Batches(data.val, *options), trunk, folder)
        self.sizes = [len(positions) for positions in train.order(0)]  # pictures in each batch
        self._prepare_batch_norm(config.train.batch_size)
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        parts, depths = dict(network.parts()), enumerate(reversed(network.trainable))
        groups = [  # a rate for each stage
            {"params": list(parts[name].parameters()), "depth": depth, "part": name}
            for depth, name in depths
        ]
        self.optimizer = build_optimizer(groups, config.train)
        self.rate = build_schedule(config.train.schedule, config.train.epochs * len(train))
        self.scaler = runtime.scaler()
        self.finite = guards.FiniteSteps(self.optimizer, runtime.device, len(train))
        self.ema = EMA(network, config.train.ema)
        self.forward = runtime.compiled(processes.parallel(network, network.forward_suffix))
        self.progress = Progress(
            network, data, config, self.optimizer, self.scaler, self.ema, runtime
        )

    def _prepare_batch_norm(self, size: int) -> None:
        """Make batch norm that trains fit for batches of this size, or raise SharedError."""
        network, world = self.network, self.processes.world
        network.train()
        normed = any(norm.training for norm in batch_norms(network))
        if size < 2 * world and (normed or world > 1):
            whose = f"each of {world} processes" if world > 1 else "batch norm that trains"
            raise SharedError(f"train.batch_size: {whose} needs at least 2 pictures a step")
        if normed and world > 1 and self.runtime.device.type == "cuda":
            network.synchronise_batch_norm()
        elif normed and world > 1:
            log.info(
                "on a CPU each process's batch norm goes by its own share of a batch; "
                "the first one's running statistics are kept"
            )

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train on every picture once, then score val; accuracies are correct over seen."""
        started = time.perf_counter()
        # summed on the device: to read a figure at each step would be to wait for it each time
        loss_sum = torch.zeros((), device=self.runtime.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.runtime.device)
        seen, first = 0, (epoch - 1) * len(self.train)
        self.network.unfreeze(self.rate.unfrozen(self.network.trainable, epoch))
        self.network.train()
        with self._bar(epoch) as bar:
            for step, (features, targets) in enumerate(self.train.epoch(epoch)):
                loss, logits = self.step(first + step, features, targets)
                own = len(self.processes.shard(self.sizes[step]))
                loss_sum += loss * own
                correct += (logits.argmax(1) == _hard(targets))[:own].sum()
                seen += own
                bar.update(self.sizes[step])
                if (step + 1) % LOOK == 0 or step + 1 == len(self.train):
                    self.finite.look()
                    mean = f"loss {loss_sum / seen:.3f}, accuracy {correct / seen:.1%}"
                    bar.set_postfix_str(mean)
        loss_sum, correct = map(self.processes.all_reduce, (loss_sum, correct))
        seen = int(self.processes.all_reduce(torch.tensor(seen)))
        seconds = time.perf_counter() - started
        # on several CPUs each has its own batch statistics: all go on with the first one's
        self.processes.broadcast_([*self.network.state_dict().values(), *self.ema.mean.values()])
        with self.ema.in_place():
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
        """One optimiser step, `step` counted from the run's start: loss () and logits (B, C).

        Of several processes each has its rows of the batch; the mean of their gradients, weighted
        by their share of the pictures, is the batch's.
        """
        config, rank = self.config.train, self.processes.rank
        torch.manual_seed(counter_seed(self.config.draws, "step", step))  # for dropout
        if rank:
            torch.manual_seed(counter_seed(self.config.draws, "step", step, rank))
        size = self.sizes[step % len(self.sizes)]
        weight = self.processes.world * len(self.processes.shard(size)) / size
        for group in self.optimizer.param_groups:
            group["lr"] = config.peak(group["part"]) * self.rate(step, group["depth"])
        with self.runtime.arithmetic():
            logits = self.forward(features)
        # in float32: a sum of exponentials is too coarse in less
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)  # backward adds to what is there
        self.scaler.scale(loss * weight).backward()
        self.scaler.unscale_(self.optimizer)  # before norm and clipping, which are the gradient's
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        loss = loss.detach()
        # a scaler leaves out by itself the steps whose gradients are too large for float16
        self.finite.check(loss if self.scaler.is_enabled() else loss + norm, step)
        if config.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, config.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.update()
        return loss, logits.detach()

    def _bar(self, epoch: int) -> tqdm:
        """Progress over an epoch's pictures, where the run speaks, and to a terminal."""
        return tqdm(
            desc=f"epoch {epoch}",
            total=len(self.data.train),
            unit=" pictures",
            leave=False,
            disable=None if log.isEnabledFor(logging.INFO) else True,  # None: without a terminal
        )


def _hard(targets: Tensor) -> Tensor:
    """Labels (B,); of shares of classes (B, C) the largest."""
    return targets.argmax(1) if targets.ndim == 2 else targets
