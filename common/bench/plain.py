"""The plain pipeline: a level's recipe as a careful person writes it, without this project's ways.

A DataLoader with one persistent worker a core, torchvision's transforms picture by picture, the
whole network in every forward pass, float32 (on CUDA: autocast to float16), contiguous layout,
the optimiser's defaults. What the benchmark compares with; each way of ours can be turned on alone.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from common.config import LevelConfig, named_step
from common.data import Batches, ImageSet, Splits, build_augmentation
from common.evaluation import tta_of, views
from common.models import StagedNetwork, Weights
from common.runtime import Runtime
from common.training.schedules import build_schedule
from common.utils.errors import UserError

Stream = Callable[[int], Iterable[tuple[Tensor, Tensor]]]  # epoch -> (pictures, labels)


@dataclass(frozen=True)
class Ways:
    """Which of our ways a run of the plain loop takes."""

    data_path: bool = False  # batches gathered, augmented and resized at once
    channels_last: bool = False
    precision: bool = False  # the fastest type of the device


class Pictures(Dataset):
    """Decoded pictures, transformed one at a time."""

    def __init__(self, images: ImageSet, transform: Callable[[Image.Image], Tensor]):
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        pixels = self.images.source[self.images.rows[i]]
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        return self.transform(picture), int(self.images.labels[i])


def fit_and_test(
    network: StagedNetwork,
    data: Splits,
    config: LevelConfig,
    runtime: Runtime,
    ways: Ways,
    folder: Path,
) -> tuple[int, int]:
    """Train, keep the epoch that is best on val, score test once; correct and total."""
    device, train = runtime.device, config.train
    layout = torch.channels_last if ways.channels_last else torch.contiguous_format
    network.to(device, memory_format=layout)
    half = torch.float16 if device.type == "cuda" else torch.float32
    dtype = runtime.dtype if ways.precision else half
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    how = data, config, network.weights, replace(runtime, dtype=torch.float32), ways
    loop, val = _stream(data.train, *how, "train"), _stream(data.val, *how, None)

    def forward(images: Tensor) -> Tensor:
        images = images.to(device, memory_format=layout, non_blocking=True)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return network(images)

    @torch.inference_mode()
    def logits(stream: Stream) -> tuple[Tensor, Tensor]:
        network.eval()
        parts = [(forward(images).float().cpu(), labels.cpu()) for images, labels in stream(0)]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    kinds["sgd"] = lambda *a, **k: torch.optim.SGD(*a, momentum=0.9, nesterov=True, **k)
    groups = [
        {"params": [p for p in part.parameters() if p.requires_grad], "peak": train.peak(name)}
        for name, part in network.named_children()
    ]
    optimizer = kinds[train.optimizer](groups, lr=train.lr, weight_decay=train.weight_decay)
    steps = -(-len(data.train) // train.batch_size)
    rate = build_schedule(train.schedule, train.epochs * steps)
    best = -1.0
    for epoch in range(train.epochs):
        network.train()
        for step, (images, labels) in enumerate(loop(epoch + 1), epoch * steps):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate(step)
            output, labels = forward(images).float(), labels.to(device, non_blocking=True)
            loss = F.cross_entropy(output, labels, label_smoothing=train.label_smoothing)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        output, labels = logits(val)
        accuracy = (output.argmax(1) == labels).float().mean().item()
        if accuracy > best:
            best = accuracy
            torch.save(network.state_dict(), folder / "plain.pt")
    network.load_state_dict(torch.load(folder / "plain.pt", map_location=device, weights_only=True))
    passes = []
    for view in views(tta_of(config, data)):
        output, labels = logits(_stream(data.test, *how, view))
        passes.append(output)
    right = torch.stack(passes).mean(0).argmax(1) == labels
    return int(right.sum()), len(labels)


def _stream(
    images: ImageSet,
    data: Splits,
    config: LevelConfig,
    weights: Weights,
    runtime: Runtime,
    ways: Ways,
    view: str | Callable | None,
) -> Stream:
    """Our own data path in float32, or a DataLoader over torchvision's transforms."""
    training = view == "train"
    if ways.data_path:
        transform = build_augmentation(config.augment, data.mirror) if training else view
        seed = config.draws if training else None
        return Batches(images, weights, config.train.batch_size, runtime, transform, seed).epoch
    if training:
        steps = _augmentation(config, data, images)
    elif view:  # which takes a batch
        steps = [
            transforms.PILToTensor(),
            lambda x: view(x[None], None)[0],
            transforms.ToPILImage(),
        ]
    else:
        steps = []
    side = weights.image_size
    steps += [transforms.Resize((side, side))] if images.size != (side, side) else []
    steps += [transforms.ToTensor(), transforms.Normalize(weights.mean, weights.std)]
    loader = DataLoader(
        Pictures(images, transforms.Compose(steps)),
        batch_size=config.train.batch_size,
        shuffle=training,
        num_workers=os.cpu_count() or 1,
        persistent_workers=True,
        pin_memory=runtime.device.type == "cuda",
    )
    return lambda epoch: loader


def _augmentation(config: LevelConfig, data: Splits, images: ImageSet) -> list[Callable]:
    """torchvision's counterparts of the configured steps."""
    steps = []
    for name, parameters in map(named_step, config.augment):
        if name == "flip":
            chance = parameters.get("probability", 0.5) if data.mirror else 0.0
            steps.append(transforms.RandomHorizontalFlip(chance))
        elif name == "crop":
            padding = parameters.get("padding", min(images.size) // 8)
            steps.append(transforms.RandomCrop(images.size, padding, padding_mode="reflect"))
        else:
            raise UserError(f"the plain pipeline has no counterpart of augment step '{name}'")
    return steps
