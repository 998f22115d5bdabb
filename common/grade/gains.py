"""A submission's gains: each level against the next lower one, on the same test pictures."""

from common.evaluation import statistics
from common.grade.checks import LENIENCE, Finding, equal
from common.grade.examine import Grade
from common.reports.figures.plots import points


def compare_with_below(grades: list[Grade]) -> None:
    """Give each level its gain over the next lower one, and judge what it claims of it."""
    for grade in grades:
        lower = [g for g in grades if _number(g) < _number(grade)]
        if grade.predictions is not None:
            _judge_gain(grade, lower[-1] if lower else None)


def _judge_gain(grade: Grade, below: Grade | None) -> None:
    add, claimed = grade.findings.append, grade.submission.metrics.get("below")
    expected = "no loss against the level below"
    if below is None:
        add(Finding("gain", True, expected, "there is no level below"))
        add(Finding("gain claimed", claimed is None, "none", str(claimed).lower()))
        return
    if below.predictions is None:
        seen = f"not run: {below.submission.level} gave no predictions"
        add(Finding("gain", None, expected, seen))
        add(Finding("gain claimed", None, "", seen))
        return
    own, other = grade.data, below.data
    if (own.fingerprint, own.split) != (other.fingerprint, other.split):
        seen = f"{below.submission.level} is on other pictures or another split: no comparison"
        add(Finding("gain", False, expected, seen))
        add(Finding("gain claimed", claimed is None, "none", str(claimed).lower()))
        return
    labels, old, new = (
        part.numpy()
        for part in (grade.predictions.labels, below.predictions.classes, grade.predictions.classes)
    )
    grade.below = {"level": below.submission.level} | statistics.compare(labels, old, new)
    shown = in_words(grade.below)
    add(Finding("gain", grade.below["verdict"] != "loss", expected, shown))
    add(_judge_claim(grade.below, claimed, grade.same and below.same))


def in_words(below: dict) -> str:
    """ "gain: +2.1 points over level1_baseline (95 % interval +0.4 to +3.9, p 0.018)"."""
    low, high = below["interval"]
    text = f"{below['verdict']}: {points(below['gain'])} points over {below['level']}"
    text += f" (95 % interval {points(low)} to {points(high)}, p {below['p_value']:.2g}, "
    return text + f"{below['fixed']} fixed, {below['broken']} broken)"


def _judge_claim(below: dict, claimed: object, same: bool) -> Finding:
    """metrics.json's `below` is the recomputed one."""
    expected = f"{points(below['gain'])} points over {below['level']}"
    if claimed is None:  # it ran before the level below did
        return Finding("gain claimed", True, expected, "none claimed")
    if not isinstance(claimed, dict) or type(claimed.get("gain")) not in (int, float):
        return Finding("gain claimed", False, expected, str(claimed)[:100])
    wrong = [] if claimed.get("level") == below["level"] else [f"over {claimed.get('level')}"]
    if abs(claimed["gain"] - below["gain"]) > (1e-9 if same else 2 * LENIENCE):
        wrong.append(f"{points(claimed['gain'])} points")
    for key in ("interval", "p_value", "fixed", "broken", "verdict") if same else ():
        if key in claimed and not equal(claimed[key], below[key], 1e-9):
            wrong.append(f"{key} {claimed[key]} instead of {below[key]}")
    seen = ", ".join(wrong) + "; changed, or the level below has run again since"
    return Finding("gain claimed", not wrong, expected, seen if wrong else "the same")


def _number(grade: Grade) -> int:
    return int(grade.submission.level.removeprefix("level").split("_")[0])
