"""What each augmentation step draws, read from what came out and compared with its definition.

A step changes copies of a picture that says of itself where each pixel was: red grows with x, green
with y. What was drawn for each is compared with the step's own definition, which is simulated here
by numpy, apart from the code that trains. A function gives the problems that it finds.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from common.audit import feed
from common.audit.context import BATCH, IMAGENET_MEAN, IMAGENET_STD, SIZE, AuditContext
from common.config import Step
from common.data import Splits
from common.data.augment import steps

COPIES = 240
RARE = 1e-6  # how improbable draws must be under the definition to be called others
STRIDE = 7  # of the values, from pixel to pixel
LIGHT = torch.tensor([0.2989, 0.587, 0.114])  # of red, green and blue in brightness
Problem = str | None


def where() -> Tensor:
    """The picture, uint8 (3, SIZE, SIZE): red is 7 x + 4, green 7 y + 4, blue 100."""
    ramp = STRIDE * torch.arange(SIZE) + 4
    red, green = ramp.expand(SIZE, SIZE), ramp[:, None].expand(SIZE, SIZE)
    return torch.stack([red, green, torch.full_like(red, 100)]).to(torch.uint8)


def fed(context: AuditContext, step: Step, data: Splits, epoch: int = 1) -> tuple[Tensor, Tensor]:
    """What a trainer with this step alone feeds in an epoch, in the pictures' own order.

    Returns:
        Values of 0 to 255, float32 (N, 3, SIZE, SIZE), and labels.
    """
    batches = context.trainer(data, [step], views=None).train.batches
    images, labels = map(torch.cat, zip(*batches.epoch(epoch), strict=True))
    place = torch.cat(batches.order(epoch)).argsort().to(images.device)
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return 255 * (images[place].cpu() * std + mean), labels[place].cpu()


def origins(images: Tensor) -> np.ndarray:
    """For each picture the matrix (2, 3) from a pixel's place (x, y, 1) to where it was, fitted
    over the middle of the picture.
    """
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    middle = (x - (SIZE - 1) / 2) ** 2 + (y - (SIZE - 1) / 2) ** 2 < 8**2
    places = np.stack([x[middle], y[middle], np.ones(middle.sum())], axis=1)
    came = (images[:, :2].numpy()[:, :, middle] - 4) / STRIDE  # (N, 2, pixels)
    return came @ np.linalg.pinv(places).T


def unlike(values: np.ndarray, expected: np.ndarray | Callable, what: str) -> Problem:
    """Whether draws do not follow a distribution, given or by a large sample of it."""
    if not callable(expected) and np.ptp(expected) < 0.02:  # one value: measured, not drawn
        return outside(values, expected.min(), expected.max(), 0.02, what)
    p = stats.kstest(values, expected).pvalue
    return f"{what} not as stated (p = {p:.0e})" if p < RARE else None


def outside(values: np.ndarray, low: float, high: float, slack: float, what: str) -> Problem:
    """Whether some are beyond a range."""
    if values.min() < low - slack or values.max() > high + slack:
        return f"{what} {values.min():.3g} to {values.max():.3g}, not {low:.3g} to {high:.3g}"
    return None


def rare(count: int, total: int, share: float, what: str, most: float | None = None) -> Problem:
    """Whether so many of so many are no chance at this share, or any from it to `most`."""
    most = share if most is None else most
    likely = min(max(count / total, share), most)
    p = stats.binomtest(count, total, likely).pvalue
    stated = f"{share:.0%}" if most == share else f"{share:.1%} to {most:.1%}"
    return f"{what} {count} of {total}, not {stated}" if p < RARE else None


def flip(step: steps.Flip, see: Callable) -> list[Problem]:
    """Mirrored or not by the share; of any two epochs both sides, where they take turns."""
    seen, picture = [see(epoch)[0] for epoch in (1, 2, 3)], where().float()
    sides = [origins(images)[:, 0, 0] < 0 for images in seen]
    for images, mirrored in zip(seen, sides, strict=True):
        turned = torch.from_numpy(mirrored).view(-1, 1, 1, 1)
        if (images - torch.where(turned, picture.flip(2), picture)).abs().max() > 0.5:
            return ["neither the picture nor its mirror image"]
    if not step.mirror:
        return ["mirrored, where that changes the label"] if np.any(sides) else []
    share = 0.5 if step.alternate else step.probability
    problems = [rare(int(sides[0].sum()), COPIES, share, "mirrored")]
    for epoch in (2, 3) if step.alternate else ():
        if not np.array_equal(sides[epoch - 1], ~sides[epoch - 2]):
            problems.append(f"epoch {epoch} is not epoch {epoch - 1}'s mirror image")
    return problems


def crop(step: steps.Crop, see: Callable) -> list[Problem]:
    """Moved by whole pixels, along x and y by themselves; what enters is reflected."""
    pad, images = SIZE // 8 if step.padding is None else step.padding, see(1)[0].numpy()
    padded = np.pad(np.arange(SIZE), pad, mode="reflect")
    moved = np.lib.stride_tricks.sliding_window_view(padded, SIZE)  # (2 pad + 1, SIZE)
    problems, moves = [], []
    for name, values in (("x", images[:, 0, 0]), ("y", images[:, 1, :, 0])):
        came = ((values - 4) / STRIDE).round()
        fits = (came[:, None] == moved[None]).all(2)
        if not fits.any(1).all():
            return [f"not moved along {name} by up to {pad} whole pixels"]
        moves.append(fits.argmax(1))
        counts = np.bincount(moves[-1], minlength=2 * pad + 1)
        if pad < SIZE and stats.chisquare(counts).pvalue < RARE:  # else two moves look alike
            problems.append(f"moves along {name} not all alike often")
    if pad and np.ptp(moves, 1).all() and abs(np.corrcoef(moves)[0, 1]) > 0.4:
        problems.append("moves along x and y go together")
    return problems


def resized_crop(step: steps.ResizedCrop, see: Callable) -> list[Problem]:
    """A box by its area, its sides' ratio and its place."""
    m, rng = origins(see(1)[0]), np.random.default_rng(0)
    wide, tall = m[:, 0, 0], m[:, 1, 1]
    area = rng.uniform(*step.scale, 10_000)
    ratio = np.exp(rng.uniform(*np.log(step.ratio), 10_000))
    w, h = np.sqrt(area * ratio).clip(max=1), np.sqrt(area / ratio).clip(max=1)
    problems = [unlike(wide * tall, w * h, "areas"), unlike(wide / tall, w / h, "ratios")]
    for axis, side in enumerate((wide, tall)):
        start, room = m[:, axis, 2] - (side - 1) / 2, (1 - side) * SIZE
        beyond = np.maximum(-start, start - room).max()
        problems.append(f"boxes {beyond:.2f} px out of the picture" if beyond > 0.1 else None)
        free = room > 3
        if free.sum() > 20:
            place = (start / room)[free]
            problems.append(unlike(place, stats.uniform.cdf, f"places along {'xy'[axis]}"))
    return problems


def rotate(step: steps.Rotate, see: Callable) -> list[Problem]:
    """About the centre, by an angle of its own."""
    m = origins(see(1)[0])
    angles = np.degrees(np.arctan2(m[:, 1, 0], m[:, 0, 0]))
    middle = m[:, :, :2].sum(2) * (SIZE - 1) / 2 + m[:, :, 2] - (SIZE - 1) / 2
    most = step.degrees
    moved = "not about the centre" if np.abs(middle).max() > 0.3 else None
    spread = stats.uniform(-most, 2 * most).cdf
    problems = [moved, outside(angles, -most, most, 0.5, "degrees")]
    return [*problems, unlike(angles, spread, "angles") if most else None]


def jitter(step: steps.Jitter, see: Callable) -> list[Problem]:
    """Each factor alone: what is left of a pixel's distance from what it is blended with."""
    problems, own = [], torch.tensor([[120.0, 90.0, 150.0], [60.0, 100.0, 80.0]])
    light = own @ LIGHT
    towards = {"brightness": 0 * own, "saturation": light[:, None].expand(2, 3)}
    towards["contrast"] = light.mean().expand(2, 3)
    for name, base in towards.items():
        if amount := getattr(step, name):
            colours = see(1, name)[0][:, :, 0, [0, SIZE - 1]].transpose(1, 2)  # (N, 2, 3)
            axis = own - base
            factor = ((colours - base) * axis).sum((1, 2)) / axis.square().sum()
            inside = ((colours > 1) & (colours < 254)).flatten(1).all(1)  # nothing cut off
            made = base + factor.view(-1, 1, 1) * axis
            if (colours - made)[inside].abs().max() > 1:
                problems.append(f"{name} not blended with what its definition says")
            free = factor.numpy()[(colours < 254).all(2).all(1).numpy()]
            problems.append(outside(free, 1 - amount, 1 + amount, 0.02, name))
            top = min(1 + amount, float(free.max()) if len(free) < COPIES else 1 + amount)
            problems.append(unlike(free, stats.uniform(1 - amount, top - 1 + amount).cdf, name))
    if step.hue:
        colours = see(1, "hue")[0][:, :, 0, 0].numpy()
        a, b = colours[:, 0] - colours[:, 1:].mean(1), (colours[:, 1] - colours[:, 2]) * 0.866
        turned = np.angle(np.exp(1j * (np.arctan2(b, a) - np.arctan2((90 - 150) * 0.866, 0))))
        problems.append(outside(turned / (2 * np.pi), -step.hue, step.hue, 0.02, "hue"))
        if step.hue > 0.02 and np.ptp(turned) / (2 * np.pi) < step.hue:
            problems.append("hue hardly turned")
    return [*problems, _one_factor(step, own, see)]


def _one_factor(step: steps.Jitter, own: Tensor, see: Callable) -> Problem:
    """Whether two of brightness, contrast and saturation are by the same draw.

    One after another, they scale the mean brightness, its range, and the distance from grey.
    """
    used = [n for n in ("brightness", "contrast", "saturation") if getattr(step, n) > 0.02]
    if len(used) < 2:
        return None
    colours = see(1, *used)[0][:, :, 0, [0, SIZE - 1]].transpose(1, 2)  # (N, 2, 3)
    colours = colours[((colours > 1) & (colours < 254)).flatten(1).all(1)]  # nothing cut off
    scales = []
    for values in (colours, own[None]):
        light = values @ LIGHT  # (N, 2)
        far = (values - light[:, :, None]).flatten(1).norm(dim=1)
        scales.append(torch.stack([light.mean(1), light[:, 0] - light[:, 1], far]))
    bright, contrast, colour = (scales[0] / scales[1]).numpy()
    factors = {"brightness": bright, "contrast": contrast / bright, "saturation": colour / contrast}
    alike = np.triu(np.corrcoef([factors[name] for name in used]), 1).max()
    return "one draw for several factors" if len(bright) > 20 and alike > 0.95 else None


def erase(step: steps.Erase, see: Callable) -> list[Problem]:
    """A box of noise by its share of pictures and of the area, anywhere."""
    images = see(1)[0]
    changed = (images - where().float()).abs().amax(1) > 0.5  # (N, SIZE, SIZE)
    tall, wide = changed.any(2).sum(1).numpy(), changed.any(1).sum(1).numpy()
    hit, problems = tall > 0, []
    if np.sqrt(step.scale[0] * 0.3) * SIZE > 2:  # a smaller box may hold no pixel's centre
        problems.append(rare(int(hit.sum()), COPIES, step.probability, "erased"))
    if hit.sum() <= 20:
        return problems
    rng = np.random.default_rng(0)
    area = rng.uniform(*step.scale, 10_000)
    ratio = np.exp(rng.uniform(np.log(0.3), -np.log(0.3), 10_000))
    begins, sides = [], []  # in pixels whose centre is in the box
    for side in (np.sqrt(area * ratio), np.sqrt(area / ratio)):
        side = side.clip(max=1) * SIZE
        start = rng.uniform(0, SIZE - side)
        begins.append(np.ceil(start - 0.5))
        sides.append(np.ceil(start + side - 0.5) - begins[-1])
    x, y, w, h = (values[sides[0] * sides[1] > 0] for values in (*begins, *sides))
    problems.append(unlike((tall * wide)[hit], w * h, "pixels"))
    problems.append(unlike(wide[hit] / tall[hit], w / h, "ratios"))
    noise = images.permute(0, 2, 3, 1)[changed].numpy()  # (pixels, 3)
    uniform = abs(noise.mean() - 127.5) < 6 * 74 / noise.size**0.5 and noise.std() > 60
    if len(noise) > 1000 and (not uniform or abs(np.corrcoef(noise.T)[0, 1]) > 0.3):
        problems.append("what it fills in is no noise over all values")
    left, top = (changed.any(axis).int().argmax(1).numpy()[hit] for axis in (1, 2))
    return [*problems, unlike(left, x, "places along x"), unlike(top, y, "places along y")]


def mixed(name: str, step: steps.MixUp | steps.CutMix, context: AuditContext) -> list[Problem]:
    """Two pictures and their labels by the same share, which is Beta's."""
    data, configured = feed.numbered(context, SIZE), {name: vars(step)}
    own, (images, shares) = data.train.images.float(), fed(context, configured, data)
    if shares.ndim != 2 or (shares.sum(1) - 1).abs().max() > 1e-4 or (shares > 0).sum(1).max() > 2:
        return ["labels that are no shares of two classes"]
    top, which = shares.topk(2, dim=1)
    two = top[:, 1] > 1e-3
    if (which[two] >= len(own)).any():
        return ["labels of other pictures"]
    first, second = own[which[:, 0]], own[which[:, 1] * two]
    if type(step) is steps.MixUp:
        share = top.view(-1, 2, 1, 1, 1)
        off = (images - share[:, 0] * first - share[:, 1] * second).abs().amax((1, 2, 3)) / 255
    else:
        left, right = ((images - part).abs().amax(1) < 1 for part in (first, second))
        off = (~(left | right)).float().mean((1, 2)) + (left.float().mean((1, 2)) - top[:, 0]).abs()
    wrong = len(off[two]) > 0 and off[two].median() > 0.02
    problems = ["pictures are not mixed as their labels are"] if wrong else []
    more = [fed(context, configured, data, epoch) for epoch in range(2, 10)]
    largest = torch.cat([shares.amax(1) for _, shares in more]).numpy()
    drawn = _shares(step, len(own))
    problems.append(unlike(largest.round(3), np.maximum(drawn, 1 - drawn).round(3), "shares"))
    if type(step) is steps.CutMix:
        problems += _off_centre(own, more)
    return problems


def _shares(step: steps.MixUp | steps.CutMix, pictures: int) -> np.ndarray:
    """Many draws of the first picture's share: Beta's, or what a box of the rest leaves of it;
    all, where the picture has drawn itself.
    """
    rng = np.random.default_rng(0)
    share = rng.beta(step.alpha, step.alpha, 20_000)
    if type(step) is steps.CutMix:
        half = np.sqrt(1 - share) / 2
        sides = [  # of the box within the picture, from a middle that is anywhere
            np.minimum(middle + half, 1) - np.maximum(middle - half, 0)
            for middle in rng.uniform(0, 1, (2, len(share)))
        ]
        share = 1 - sides[0] * sides[1] + rng.normal(0, 0.005, len(share))  # by whole pixels
    batches = -(-pictures // BATCH)  # in each of which one draws itself, on average
    return np.where(rng.uniform(size=len(share)) < batches / pictures, 1.0, share)


def _off_centre(own: Tensor, seen: list[tuple[Tensor, Tensor]]) -> list[Problem]:
    """Pasted boxes that are more often to one side of the picture than to the other."""
    pasted = torch.cat(
        [
            ((images - own).abs().amax(1) >= 1)[(shares > 1e-3).sum(1) == 2].float()
            for images, shares in seen
        ]
    )
    problems, sides = [], torch.linspace(-1, 1, SIZE)
    for axis, along in (("x", pasted.mean(1)), ("y", pasted.mean(2))):
        p = stats.ttest_1samp((along * sides).mean(1).numpy(), 0).pvalue
        problems.append(f"boxes off the middle along {axis} (p = {p:.0e})" if p < RARE else None)
    return problems
