"""The text of a run's report.md, from figures alone.

Every figure comes from the run's metrics, history or predictions; nothing is measured here.
"""

from collections.abc import Sequence

import numpy as np
import yaml
from markupsafe import Markup
from sklearn.metrics import confusion_matrix

from common.markdown import code, duration, listing, percent, probability, table, templates
from common.plots import points
from common.statistics import BINS, wilson_interval

LISTED_CLASSES = 20  # a report lists every class up to here, else the ten that fare worst

REPORT = """\
# {{ m.level }} on {{ m.data.title }}

{{ sentence }}

![Loss and accuracy by epoch](training_curves.png)

Train is measured while it trains, augmentation and dropout included; val after each epoch.
Of {{ m.epochs }} epochs, epoch {{ m.best_epoch }} had the highest val accuracy and was tested.

![Of each true class, what it was taken for](confusion_matrix.png)

![Training pictures with their classes](contact_sheet.png)

Training pictures with their classes, as they come from the data: do they belong together?

## Results

{{ results }}

{% if m.tta == "none" %}
`test` is a single pass, so `test_single` is the same: there is no test-time augmentation.
{% else %}
`test_single` is a single pass; `test` uses test-time augmentation: {{ m.tta }}.
{% endif %}

{{ detail }}

{{ epochs }}

## What trained

{{ m.trainable | join(", ") }}: {{ trained }} parameters.
{% if not m.frozen.before %}
Nothing was frozen.
{% elif m.frozen.before == m.frozen.after %}
The rest is unchanged: SHA-256 {{ m.frozen.before }} before and after.
{% else %}
**The rest changed, and must not**: SHA-256 {{ m.frozen.before }} before,
{{ m.frozen.after }} after.
{% endif %}

## {{ recall_title }}

{{ recall }}

## What the number does not say

- It is one run: seed {{ m.seed }}, one split. The interval covers the draw of the test pictures,
  not what another seed or split would change.
- Val chose the epoch, so the accuracy on val flatters. Test chose nothing.
{% if m.tta != "none" %}
- Test-time augmentation changed it by {{ tta_points }} points, for more than one pass a picture.
{% endif %}
{% if m.data.skipped %}
- {{ m.data.skipped }} unreadable pictures were left out.
{% endif %}
- The test pictures come from where the training pictures come from; others may fare worse.

## Where it comes from

{{ code(m.command) }}

{{ provenance }}

<details><summary>Settings</summary>

{{ settings }}

</details>
"""


def facts(m: dict) -> dict[str, str]:
    """What reports of one ladder should share."""
    return {
        "data": m["data"]["title"],
        "fingerprint": m["data"]["fingerprint"],
        "split": m["data"]["split"],
        "weights": m["weights"]["name"],
        "weights' SHA-256": m["weights"]["sha256"] or "none",
        "image size": f"{m['image_size']} px",
    }


def report_page(
    m: dict,
    history: list[dict],
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: Sequence[str],
) -> str:
    """report.md of one run.

    Args:
        m: the run's metrics.
        history: a dict an epoch.
        labels, predictions: (N,) int, the test pictures' classes and what they were taken for.
        classes: C names.
    """
    recall = _recall(labels, predictions, classes)
    worst = len(classes) > LISTED_CLASSES
    return templates.from_string(REPORT).render(
        m=m,
        sentence=_sentence(m),
        results=_results(m),
        detail=_detail(m["detail"]),
        epochs=_epochs(history, m["best_epoch"]),
        trained=f"{m['trained_parameters']:,} of {m['parameters']:,}",
        recall_title="The ten classes that fare worst" if worst else "Class by class",
        recall=table(
            ["class", "test pictures", "right", "most often taken for"],
            recall[:10] if worst else recall,
        ),
        tta_points=points(
            (m["test"]["correct"] - m["test_single"]["correct"]) / m["test"]["total"]
        ),
        provenance=_provenance(m),
        settings=code(yaml.safe_dump(m["settings"], sort_keys=False, allow_unicode=True), "yaml"),
    )


def _sentence(m: dict) -> str:
    test = m["test"]
    low, high = wilson_interval(test["correct"], test["total"])
    right = f"{percent(test['accuracy'])} of {test['total']:,} test pictures right"
    right += f" (95 % interval {100 * low:.1f} to {percent(high)})"
    if not m["below"]:
        return f"{right}; there is no level below to compare it with."
    below = m["below"]
    words = {"gain": "a gain", "loss": "a loss", "not shown": "a gain is not shown"}
    gain, low, high = map(points, (below["gain"], *below["interval"]))
    counts = f"of the pictures {below['fixed']:,} fixed and {below['broken']:,} broken"
    p = f"p = {probability(below['p_value'])}".replace("= <", "<")
    return (
        f"{right}. Over {below['level']}: {gain} points (95 % interval {low} to {high}), {counts}, "
        f"{p}: {words[below['verdict']]}."
    )


def gain_text(gain: dict) -> str:
    """A gain with its interval in percentage points: "+2.1 (+1.3 to +2.9)"."""
    low, high = map(points, gain["interval"])
    return f"{points(gain['gain'])} ({low} to {high})"


def _results(m: dict) -> Markup:
    rows = []
    for name in ("train", "val", "test", "test_single"):
        part = m[name]
        low, high = wilson_interval(part["correct"], part["total"])
        seen = f"{part['correct']:,} of {part['total']:,}"
        ends = f"{100 * low:.1f} to {100 * high:.1f}"
        rows.append([name, percent(part["accuracy"]), ends, seen, f"{part['loss']:.4f}"])
    return table(["on", "accuracy", "95 % interval", "right", "loss"], rows)


def _detail(d: dict) -> Markup:
    """What else is said of the test score; the temperature comes from val."""
    rows = [
        ["macro F1", f"{d['macro_f1']:.4f}", ""],
        *([["top-5 accuracy", percent(d["top5"]), ""]] if d["top5"] is not None else []),
        ["negative log-likelihood", f"{d['nll']:.4f}", f"{d['nll_scaled']:.4f}"],
        [f"expected calibration error ({BINS} bins)", f"{d['ece']:.4f}", f"{d['ece_scaled']:.4f}"],
    ]
    scaled = f"at temperature {d['temperature']:.2f}, fitted on val"
    return table(["on test", "as it is", scaled], rows)


def _epochs(history: list[dict], best_epoch: int) -> Markup:
    header = ["epoch", "rate", "train loss", "train accuracy", "val loss", "val accuracy", "time"]
    rows = []
    for epoch in history:
        row = [epoch["epoch"], f"{epoch['lr']:g}"]
        for part in ("train", "val"):
            row += [f"{epoch[f'{part}_loss']:.4f}", percent(epoch[f"{part}_accuracy"])]
        row.append(f"{duration(epoch['seconds'])} ({epoch['pictures_per_second']:,.0f} pictures/s)")
        best = epoch["epoch"] == best_epoch
        rows.append([Markup(f"**{cell}**") for cell in row] if best else row)
    return table(header, rows)


def _recall(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]) -> list[list]:
    """A row a class that has test pictures, the worst first."""
    counts = confusion_matrix(labels, predictions, labels=range(len(classes)))
    totals, right = counts.sum(1), counts.diagonal()
    wrong = counts - np.diag(right)
    rows = []
    for i in np.argsort(right / totals.clip(1), kind="stable"):
        j = wrong[i].argmax()
        mistake = f"{classes[j]} ({wrong[i, j]})" if wrong[i, j] else ""
        if totals[i]:
            rows.append([classes[i], totals[i], percent(right[i] / totals[i]), mistake])
    return rows


def _provenance(m: dict) -> Markup:
    data = m["data"]
    counts = f"{data['train']:,} train, {data['val']:,} val, {data['test']:,} test"
    rows = [
        ["commit", m["commit"] or "unknown"],
        *facts(m).items(),
        ["pictures", f"{counts}; {data['classes']} classes"],
        ["seed", m["seed"]],
        ["config", m["config"]],
        ["time", duration(m["seconds"])],
        ["machine", listing(m["machine"])],
        ["versions", listing(m["versions"])],
    ]
    return table(["what", "value"], rows)
