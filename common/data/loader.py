"""Batches on the device: gather bytes, augment, normalise, resize. No worker processes."""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.augment.steps import Augmentation
from common.data.pictures import ImageSet
from common.runtime import Runtime, counter_seed, free_memory
from common.utils.errors import SharedError

Transform = Callable[[Tensor, torch.Generator], Tensor]  # uint8 (B, 3, H, W) in and out


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches that `count` pictures make; a last one of a single picture joins the one before, as
    batch norm has no variance over one picture.
    """
    batches = -(-count // batch_size)
    alone = batches > 1 and count - (batches - 1) * batch_size == 1
    return batches - alone


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a network takes: pictures of `image_size` pixels a side, RGB in [0, 1] less `mean`, by
    `std`; by default those of ImageNet's pictures.
    """

    image_size: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


def as_pixels(images: Tensor, spec: InputSpec) -> Tensor:
    """Network input, normalised (B, 3, S, S), as the pixels that it shows: uint8 (B, 3, S, S)."""
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (spec.mean, spec.std))
    return (255 * (images.float().cpu() * std + mean)).round().clamp(0, 255).to(torch.uint8)


class Batches:
    """An image set as batches of network input.

    Args:
        images: the pictures.
        spec: the network's input size, and its pixels' normalisation.
        batch_size: pictures a batch; the last may be shorter.
        transform: what is done to the bytes of a batch: an augmentation, or a test-time view.
        seed: shuffles and augments by (seed, epoch, step) alone; None keeps the order.
        views: of each picture, the augmentation's first ones, which epochs take in turn, in an
            order of their own each; None: every epoch has a new one.
    """

    def __init__(
        self,
        images: ImageSet,
        spec: InputSpec,
        batch_size: int,
        runtime: Runtime,
        transform: Transform | None = None,
        seed: int | str | None = None,
        views: int | None = None,
    ):
        self.images, self.spec, self.batch_size = images, spec, batch_size
        self.runtime, self.transform, self.seed = runtime, transform, seed
        self.views = views if transform else None
        coins = torch.Generator().manual_seed(counter_seed(seed or 0, "mirror"))
        self.coins = torch.rand(len(images), generator=coins) < 0.5  # which begin mirrored
        self._drawn: tuple[int, Tensor, Tensor] | None = None  # a view of all, and its labels
        self.source, self.rows = _to_device(images, runtime.device)
        self.labels = images.labels.to(runtime.device)
        self.mean = torch.tensor(spec.mean, device=runtime.device).view(3, 1, 1)
        self.std = torch.tensor(spec.std, device=runtime.device).view(3, 1, 1)

    def __len__(self) -> int:
        """Batches an epoch."""
        return steps_per_epoch(len(self.images), self.batch_size)

    def order(self, epoch: int) -> list[Tensor]:
        """The epoch's batches as positions in the image set: int64 (B,) each.

        Of several processes each has all batches of a shuffled set, of which `batch` gives it its
        rows, but only its own part of a set in order.
        """
        count = len(self.images)
        if self.seed is None:
            part = self.runtime.processes.shard(count)
            return self.split(torch.arange(part.start, part.stop))
        generator = torch.Generator().manual_seed(counter_seed(self.seed, "order", epoch))
        return self.split(torch.randperm(count, generator=generator))

    def view(self, epoch: int) -> int:
        """The epoch (from 1) whose augmentation this one has: an earlier one's, or its own."""
        return (epoch - 1) % self.views + 1 if self.views and epoch else epoch

    def epoch(self, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (pictures (B, 3, S, S), labels int64 (B,)) on the device."""
        view = self.view(epoch)
        for step, positions in enumerate(self.order(epoch)):
            if view == epoch:
                yield self.batch(positions, epoch, step)
            else:
                at = positions.to(self.runtime.device)
                pixels, labels = (whole[at] for whole in self._view(view))
                own = self._own(len(positions))
                yield self.network_input(pixels[own]), labels[own]

    def batch(self, positions: Tensor, epoch: int = 0, step: int = 0) -> tuple[Tensor, Tensor]:
        """The pictures at these positions, as network input, and their labels.

        Where the transform mixes pictures, labels are shares of the classes, float32 (B, C).
        """
        own = self._own(len(positions))
        if self.transform is None:
            positions, own = positions[own], slice(None)
        pixels, labels = self._pixels(positions, epoch, step)
        return self.network_input(pixels[own]), labels[own]

    def _own(self, count: int) -> list[int] | slice:
        """The rows of a batch of a shuffled set that this process computes."""
        if self.seed is None:
            return slice(None)
        least = 1 if self.runtime.device.type == "cuda" else 2  # a batch norm of its own needs two
        return self.runtime.processes.rows(count, least)

    def _view(self, view: int) -> tuple[Tensor, Tensor]:
        """All pictures and labels as the augmentation of an earlier epoch made them, by position.

        They are drawn again: kept for this epoch, not for all.
        """
        if self._drawn is None or self._drawn[0] != view:
            self._drawn, wholes = None, None
            for step, positions in enumerate(self.order(view)):
                parts = self._pixels(positions, view, step)
                if wholes is None:
                    wholes = [part.new_empty(len(self.images), *part.shape[1:]) for part in parts]
                for whole, part in zip(wholes, parts, strict=True):
                    whole[positions.to(whole.device)] = part
            self._drawn = view, *wholes
        return self._drawn[1:]

    def check_room(self) -> None:
        """Raise UserError where epochs take views in turn, and one of all pictures takes most of
        the memory.
        """
        need = self.source[:1].nbytes * len(self.images)
        if self.views and need > free_memory(self.runtime.device) / 2:
            raise SharedError(
                f"train.views: an epoch's augmented pictures take {need / 2**30:.1f} GiB, over "
                "half of what is free; go without (--train.views null), or choose smaller "
                "pictures (data.stored_size)"
            )

    def _pixels(self, positions: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """These pictures' bytes, transformed as at this step, and their labels."""
        device = self.runtime.device
        rows = self.rows[positions.to(self.rows.device)]
        pixels = self.source[rows].to(device, non_blocking=True)
        labels = self.labels[positions.to(device)]
        if self.transform is not None:  # drawn for the whole batch, whoever computes its rows
            generator = torch.Generator(device)
            generator.manual_seed(counter_seed(self.seed or 0, "transform", epoch, step))
            ours = isinstance(self.transform, Augmentation)
            if ours and self.transform.alternates:
                mirrored = self.coins[positions].to(device) ^ bool(epoch % 2)
                pixels = torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(3), pixels)
            pixels = self.transform(pixels, generator)
            if ours and self.transform.mixes:
                classes = len(self.images.classes)
                pixels, labels = self.transform.mix(pixels, labels, classes, generator)
        return pixels, labels

    def network_input(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) of 0 to 255 -> normalised (B, 3, S, S), channels last, in the run's type."""
        # normalised at stored size: the same after resizing, whose weights sum to one, but cheaper
        x = (pixels.float() / 255 - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        size, stored = self.spec.image_size, tuple(x.shape[2:])
        if stored != (size, size):
            smaller = min(stored) > size
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=smaller)
        return x.to(self.runtime.dtype, memory_format=torch.channels_last)

    def split(self, order: Tensor) -> list[Tensor]:
        """Positions in this order as batches."""
        steps = steps_per_epoch(len(order), self.batch_size)
        starts = [step * self.batch_size for step in range(1, steps)]
        return list(order.tensor_split(starts)) if len(order) else []


def _to_device(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """The bytes and the rows in them, on the GPU where they fit in a quarter of what is free."""
    if device.type == "cuda" and images.source.nbytes < torch.cuda.mem_get_info(device)[0] / 4:
        return _uploaded(images.source, device), images.rows.to(device)
    return images.source, images.rows


_UPLOADS: dict[torch.device, tuple[weakref.ref[Tensor], Tensor]] = {}  # the last of each device


def _uploaded(source: Tensor, device: torch.device) -> Tensor:
    """One copy for train, val and test, which are rows of the same array.

    It is known by the array itself: another one may come to lie where the first one lay.
    """
    of, copy = _UPLOADS.get(device, (lambda: None, None))
    if of() is not source:
        _UPLOADS.pop(device, None)  # makes room first
        copy = source.to(device)
        _UPLOADS[device] = weakref.ref(source), copy
    return copy
