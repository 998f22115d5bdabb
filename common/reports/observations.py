"""What a run's figures show, in sentences: each is made only where its own interval allows it."""

from collections.abc import Sequence

import numpy as np

from common.evaluation.statistics import wilson_interval
from common.reports.schema import Run
from common.reports.text import gain_text, percent, points, span

FEW = 200  # test pictures: with fewer an interval is over ten points wide
NAMED = 3  # classes that a sentence names
CLEAR = 0.05  # how far a temperature is from 1 where it says something


def observations(run: Run) -> list[str]:
    """The gap, the epochs, the classes, the gain and the confidence, each as far as it is shown."""
    said = [_gap(run.metrics), _epochs(run), _classes(run), _never(run)]
    said += [_gain(run.metrics["below"]), _confidence(run.metrics["detail"])]
    return [*filter(None, [_small(run.metrics["test"]), *said])]


def joined(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def apart(run: Run) -> tuple[list[int], list[int]]:
    """Classes that fare worse, and better, than all test pictures do: their own interval leaves
    the accuracy over all out. The clearest first.
    """
    overall = run.metrics["test"]["accuracy"]
    right = run.predictions == run.labels
    ends = {}
    for label in np.unique(run.labels):
        own = right[run.labels == label]
        ends[int(label)] = wilson_interval(int(own.sum()), len(own))
    worse = sorted((high, k) for k, (low, high) in ends.items() if high < overall)
    better = sorted((-low, k) for k, (low, high) in ends.items() if low > overall)
    return [label for _, label in worse], [label for _, label in better]


def recall_of(run: Run, label: int) -> str:
    """A class by name, with what share of it is right: "cat (61.2 %)"."""
    own = run.labels == label
    return f"{run.classes[label]} ({percent((run.predictions[own] == label).mean())})"


def fares(run: Run, label: int) -> str:
    """A class that is often wrong: "cat (74.3 % right, 119 times taken for dog)"."""
    answers = run.predictions[run.labels == label]
    counts = np.bincount(answers[answers != label], minlength=len(run.classes))
    times = "once" if counts.max() == 1 else f"{counts.max()} times"
    often = f", {times} taken for {run.classes[counts.argmax()]}"
    return f"{recall_of(run, label)[:-1]} right{often if counts.any() else ''})"


def _small(test: dict) -> str:
    if test["total"] >= FEW:
        return ""
    ends = span(*wilson_interval(test["correct"], test["total"]))
    return f"There are few test pictures, {test['total']}: an accuracy of {ends} % fits them."


def _gap(m: dict) -> str:
    train, test = (m[part] for part in ("train", "test"))
    gap = train["accuracy"] - test["accuracy"]
    ends = [wilson_interval(part["correct"], part["total"]) for part in (train, test)]
    if ends[0][0] <= ends[1][1] and ends[1][0] <= ends[0][1]:
        return "Train accuracy, without augmentation, and test accuracy are not shown to differ."
    means = "it fits more than it can carry over" if gap > 0.05 else "little is learned by heart"
    above = "above" if gap > 0 else "below"
    said = f"Train accuracy, without augmentation, is {abs(100 * gap):.1f} points {above} test"
    return f"{said}: {means}." if gap > 0 else f"{said}."


def _epochs(run: Run) -> str:
    val, best = [entry["val_accuracy"] for entry in run.history], run.metrics["best_epoch"]
    if best < len(val):
        return f"Val accuracy was best in epoch {best} of {len(val)}; no later one was better."
    if len(val) < 2:
        return ""
    before, pictures = max(val[:-1]), run.metrics["val"]["total"]
    rise = val[-1] - before
    raised = f"The last of {len(val)} epochs raised the best val accuracy by {points(rise)} points"
    _, high = wilson_interval(round(before * pictures), pictures)
    if val[-1] > high:
        return f"{raised}: more may help."
    return f"{raised}, which on {pictures:,} val pictures may be chance."


def _classes(run: Run) -> str:
    if len(run.classes) < 3:
        return ""
    said = [
        f"{where}: {_some([recall_of(run, label) for label in labels])}"
        for where, labels in zip(
            ("Shown to be below its accuracy over all", "above it"), apart(run), strict=True
        )
        if labels
    ]
    text = "; ".join(said) or "no class is shown to fare worse, or better, than all together"
    return f"{text[0].upper()}{text[1:]}."


def _some(names: list[str]) -> str:
    """The first of them, and how many there are besides."""
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return joined([*names[:NAMED], *more])


def _never(run: Run) -> str:
    """Classes with test pictures that are no answer at all."""
    missing = np.setdiff1d(run.labels, run.predictions)
    return f"It never answers {_some([run.classes[i] for i in missing])}." if len(missing) else ""


def _gain(below: dict | None) -> str:
    if not below:
        return ""
    words = {
        "gain": "The gain is shown on these pictures",
        "loss": "It is worse than the level below, and that is shown",
        "not shown": "No gain is shown on these pictures",
    }
    return f"{words[below['verdict']]}: {gain_text(below)} points over {below['level']}."


def _confidence(d: dict) -> str:
    if abs(d["temperature"] - 1) < CLEAR:
        return "It is about as sure as it is right."
    sure = "surer than it is right" if d["temperature"] > 1 else "right more often than it is sure"
    fitted = f"It is {sure} on val: temperature {d['temperature']:.2f}"
    errors = f"from {d['ece']:.4f} to {d['ece_scaled']:.4f}"
    if d["ece_scaled"] < d["ece"]:
        return f"{fitted} takes the expected calibration error on test {errors}."
    return f"{fitted}. On test that helps nothing: the expected calibration error goes {errors}."
