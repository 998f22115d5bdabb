"""What a policy's operations do, compared with torchvision's, and how it draws them."""

import math
import re
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, autoaugment

from common.audit.context import SIZE
from common.audit.measures import COPIES, RARE, Problem, outside, rare, where
from common.data.augment import policies
from common.data.augment.geometry import resample

GEOMETRIC = "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"  # torchvision's names
ROUNDED = "Color", "Contrast", "Sharpness"  # twice: torchvision's greys are whole numbers


def policy(step: policies.Policy, see: Callable) -> list[Problem]:
    """Each operation as torchvision has it, at several strengths; how many pictures stay as they
    are; and what is drawn.
    """
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(8, 3, 4, 4, generator=generator)
    pictures = F.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    pictures = (255 * pictures).to(torch.uint8)
    if isinstance(step, policies.TrivialAugment):
        space = autoaugment.TrivialAugmentWide()._augmentation_space(policies.BINS)
    else:
        space = autoaugment.RandAugment()._augmentation_space(policies.BINS, (SIZE, SIZE))
    problems, same = [], 0.0
    reached = range(policies.BINS) if step.magnitude is None else [step.magnitude]
    for theirs, (strengths, signed) in space.items():
        name = re.sub("(?<=[a-z])([XY])", r"_\1", theirs).lower().replace("color", "saturation")
        kept, rounds = [], theirs in ROUNDED
        if theirs == "Identity":
            same += 1 / len(space)
            continue
        for level in {1, 9, policies.BINS - 1, *reached}:
            for sign in (-1, 1):
                strength = round(float(strengths[level]), 4) if strengths.ndim else 0.0
                strength *= sign if signed else 1
                if level in reached:
                    probe = _by_torchvision(where()[None], theirs, strength)
                    kept.append(float((probe - where()).abs().max() <= rounds))
                if level not in (1, 9, policies.BINS - 1):
                    continue
                made = _by_torchvision(pictures, theirs, strength)
                inside = _by_torchvision(torch.full_like(pictures, 255), theirs, strength) > 254
                inside |= torch.tensor(theirs not in GEOMETRIC)
                share = torch.full((len(pictures),), level / (policies.BINS - 1))
                signs = torch.full_like(share, sign)
                own, matrix = step.apply(name, pictures.float(), share, signs)
                own = resample(own, matrix, False)
                off = (own - made).abs()[inside]
                if len(off) and off.max() > (2.2 if rounds else 1.05):
                    problems.append(f"{name} of {strength:.3g} is not torchvision's")
        same += sum(kept) / len(kept) / len(space)
    drawn, apply = [], policies.Policy.apply

    def noted(step: policies.Policy, name: str, images: Tensor, *given: Tensor) -> object:
        share, sign = (values.tolist() for values in given)
        drawn.extend(zip([name] * len(images), share, sign, strict=True))
        return apply(step, name, images, *given)

    with patch.object(policies.Policy, "apply", noted):
        images = see(1)[0]
    unchanged = int(((images - where().float()).abs().amax((1, 2, 3)) < 0.5).sum())
    undone = math.comb(step.count, 2) * 4 / len(space) ** 2  # at most: two that undo each other
    problems.append(
        rare(unchanged, COPIES, same**step.count, "as it was", same**step.count + undone)
    )
    return [*problems, *_drawn(step, drawn)][:3]


def _drawn(step: policies.Policy, drawn: list[tuple[str, float, float]]) -> list[Problem]:
    """Operations all alike often, both signs too, and strengths as stated."""
    total, names = step.count * COPIES, [name for name, _, _ in drawn]
    counts = [names.count(name) for name in policies.NAMES if name != "identity"]
    often = stats.chisquare([*counts, max(total - len(drawn), 0)]).pvalue
    problems = ["operations not all alike often"] if often < RARE or len(drawn) > total else []
    if not drawn:
        return problems
    _, shares, signs = map(np.array, zip(*drawn, strict=True))
    problems.append(rare(int((signs > 0).sum()), len(signs), 0.5, "to one side"))
    bins = (shares * (policies.BINS - 1)).round().astype(int)
    if step.magnitude is not None:
        return [*problems, outside(bins, step.magnitude, step.magnitude, 0, "strengths")]
    even = stats.chisquare(np.bincount(bins, minlength=policies.BINS)).pvalue
    return [*problems, "strengths not all alike often" if even < RARE else None]


def _by_torchvision(pictures: Tensor, operation: str, strength: float) -> Tensor:
    bilinear = InterpolationMode.BILINEAR
    return autoaugment._apply_op(pictures, operation, strength, bilinear, None).float()
