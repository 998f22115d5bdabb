"""The audit's checks on augmentation: each step as configured, all in their order, one by one."""

import torch
from torch import Tensor

from common.audit import feed, measures
from common.audit.context import SIZE, AuditContext, Seen, check
from common.audit.measures import COPIES, STRIDE, Problem, fed, where
from common.audit.policy import policy
from common.config.registry import named_step
from common.data import build_augmentation
from common.data.augment import policies, steps
from common.data.augment.geometry import resample

MEASURED = {
    steps.Flip: measures.flip,
    steps.Crop: measures.crop,
    steps.ResizedCrop: measures.resized_crop,
    steps.Rotate: measures.rotate,
    steps.Jitter: measures.jitter,
    steps.Erase: measures.erase,
    policies.TrivialAugment: policy,
    policies.RandAugment: policy,
}


@check(
    "each augmentation step as configured",
    "a share, a range or a draw that is not the step's own, or one that never varies",
)
def steps_as_configured(context: AuditContext) -> Seen:
    problems = []
    for configured in context.config.augment:
        name, parameters = named_step(configured)
        (step,) = build_augmentation([configured], context.data.mirror).steps
        for problem in _problems(context, name, parameters, step):
            if problem:
                problems.append(f"{name}: {problem}")
    expected = f"draws of {COPIES} pictures that follow each step's definition"
    return not problems, expected, ", ".join(problems) or "the same"


def _problems(context: AuditContext, name: str, parameters: dict, step: object) -> list[Problem]:
    """What is wrong with a configured step; of one of the reader's own nothing is known here."""
    if type(step) in (steps.MixUp, steps.CutMix):
        return measures.mixed(name, step, context)
    if type(step) not in MEASURED:
        return []
    picture = where()
    if isinstance(step, steps.Jitter):  # two halves of two colours
        colours = torch.tensor([[120, 90, 150], [60, 100, 80]], dtype=torch.uint8)
        picture = colours.T.repeat_interleave(SIZE // 2, 1)[:, None].expand(3, SIZE, SIZE)
    data = feed.copies(context, picture.contiguous(), COPIES)

    def see(epoch: int, *alone: str) -> tuple[Tensor, Tensor]:
        chosen = parameters
        if alone:
            amounts = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
            chosen = amounts | {name: getattr(step, name) for name in alone}
        return fed(context, {name: chosen}, data, epoch)

    return MEASURED[type(step)](step, see)


@check("the augmentation's steps in their order", "a step left out, or one that comes too early")
def steps_in_order(context: AuditContext) -> Seen:
    augmentation = build_augmentation(feed.unmixed(context), context.data.mirror)
    expected = "each step on what the last one made, its geometry resampled with others' at once"
    if augmentation is None:
        return True, expected, "no step"
    pictures = where().repeat(COPIES, 1, 1, 1)
    one_by_one, moves = pictures.clone(), []
    draws = torch.Generator().manual_seed(0)

    def moved(images: Tensor) -> Tensor:
        for matrix, whole in moves:
            images = resample(images, matrix, whole)
        moves.clear()
        return images

    for step in augmentation.steps:
        one_by_one = moved(one_by_one) if step.after_geometry else one_by_one
        one_by_one, matrix = step.both(one_by_one, draws)
        moves += [] if matrix is None else [(matrix, step.exact)]
    one_by_one = moved(one_by_one)
    together = augmentation(pictures.clone(), torch.Generator().manual_seed(0))
    inside = slice(SIZE // 4, -SIZE // 4)  # one resampling of all reflects otherwise than several
    off = (together.float() - one_by_one.float()).abs()[:, :, inside, inside].mean((1, 2, 3))
    same = float((off < STRIDE / 4).float().mean())  # less than a pixel's way
    return same > 0.6, expected, f"{same:.0%} of {COPIES} pictures alike", same / 0.6


@check("pictures are changed one by one", "a mean, a draw or an index over the batch instead")
def changed_one_by_one(context: AuditContext) -> Seen:
    augmentation = build_augmentation(feed.unmixed(context), context.data.mirror)
    expected = "the same change of a picture, whatever others are in its batch"
    if augmentation is None:
        return True, expected, "no step"
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (32, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    others = pictures.clone()
    others[16:] = where()
    first, second = (
        augmentation(batch.clone(), torch.Generator().manual_seed(0)).float()
        for batch in (pictures, others)
    )
    off = float((first - second)[:16].abs().max())
    return off < 0.5, expected, f"{off:.1f} of 255 off"
