"""The pages of comparisons: rows as Markdown, and figures that others published."""

from collections.abc import Sequence

from common.config import named_step
from common.reports.ingredients import gain_cells
from common.reports.markdown import duration, percent, templates

MEASURED = [
    "epochs",
    "time",
    "CPU threads",
    "train",
    "test accuracy",
    "95 % interval",
    "gap, points",
]

COURSE = "the course's source projects"
WEIAICUNZAI = "weiaicunzai/pytorch-cifar100, 200 epochs"
PUBLISHED = [  # network, data, strategy, accuracy in percent, source: none of them run here
    ("AlexNet", "CIFAR-100", "scratch", 56.97, COURSE),
    ("VGG-13", "CIFAR-100", "scratch", 57.03, COURSE),
    ("ResNet-18", "CIFAR-100", "scratch", 63.16, COURSE),
    ("VGG-13 with batch norm", "CIFAR-100", "scratch", 72.00, WEIAICUNZAI),
    ("ResNet-18", "CIFAR-100", "scratch", 75.61, WEIAICUNZAI),
    ("EfficientNetV2 features", "CIFAR-100", "transfer", 77.39, COURSE),
    ("ViT", "CIFAR-100", "transfer", 90.54, COURSE),
]

PAGE = """\
# Other systems on {{ title }}

![Test accuracy over training time](comparison.png)

{{ table(header, rows) }}

- Scratch networks start from random weights and see pictures of 32 px; transfer and the ladder
  start from weights trained on other pictures. A row has the epochs it says, not those at which it
  would stop to improve.
- Operations are multiplications and additions for one picture, forward. Train accuracy is without
  augmentation and dropout, after training; the gap is it less the test accuracy, in points.
- Intervals are Wilson's at 95 %. Times are epochs and evaluation, of as many CPU threads as the row
  says; of rows with the same number, times can be compared.

## Published by others, not measured here

{{ table(["network", "data", "strategy", "test accuracy", "source"], published) }}

## How to run it again

{{ code(command) }}
"""

ABLATION = """\
# What augmentation is worth to a network from scratch: {{ stem }} on {{ data }}

![Accuracy on train and val by epoch, without and with augmentation]({{ picture }})

{{ table(header, cells) }}

{% if gap_closed is none %}
Without augmentation there is no gap to close.
{% else %}
The generalisation gap falls from {{ gaps[0] }} to {{ gaps[1] }} points: augmentation closes
{{ "%.0f" | format(100 * gap_closed) }} % of it.
{% endif %}

{{ table(change.keys(), [change.values()]) }}

- The gap is the accuracy on training pictures, without augmentation and dropout, after training,
  less that on test. The curves' train accuracy is measured while it trains, augmentation included.
- Accuracies have Wilson's 95 % interval; the change on the same test pictures has Newcombe's
  paired one, and p is McNemar's exact test's.

## How to run it again

{{ code(command) }}
"""


def page(report: dict) -> str:
    """The page of a comparison: `data`, its title, `rows` and `command`."""
    header = ["config", "network", "strategy", "parameters", "trained", "operations a picture"]
    header += MEASURED
    published = [[n, d, s, f"{accuracy:.2f} %", source] for n, d, s, accuracy, source in PUBLISHED]
    return templates.from_string(PAGE).render(
        title=report["data"],
        header=header,
        rows=[_cells(row) for row in report["rows"]],
        published=published,
        command=report["command"],
    )


def ablation_page(stem: str, report: dict) -> str:
    """The page of a config run without and with augmentation.

    Args:
        stem: the config's name, which the picture has too.
        report: `data`, two `rows`, `gap_closed` (a share or None), `change` on the same pictures
            from `statistics.compare`, and `command`.
    """
    return templates.from_string(ABLATION).render(
        stem=stem,
        data=report["data"],
        picture=f"{stem}.png",
        header=["augmentation", *MEASURED],
        cells=[[_steps(row["augment"]), *_measured(row)] for row in report["rows"]],
        gap_closed=report["gap_closed"],
        gaps=[f"{100 * row['gap']:.1f}" for row in report["rows"]],
        change=gain_cells(report["change"], "change in test accuracy, points"),
        command=report["command"],
    )


def _steps(steps: Sequence) -> str:
    """An `augment` list in words: "crop, rotate (degrees 10)"."""
    words = []
    for name, options in map(named_step, steps):
        listed = ", ".join(f"{key} {value}" for key, value in options.items())
        words.append(f"{name} ({listed})" if listed else name)
    return ", ".join(words) or "none"


def _cells(row: dict) -> list[str]:
    cells = [row["config"], row["network"], row["strategy"]]
    cells += [f"{row[key] / 1e6:.2f} M" for key in ("parameters", "trained_parameters")]
    cells.append(f"{row['operations_per_picture'] / 1e6:,.1f} M")
    return cells + _measured(row)


def _measured(row: dict) -> list[str]:
    if row["test_accuracy"] is None:
        return ["", "", "", "", "not measured here", "", ""]
    low, high = row["interval"]
    return [
        str(row["epochs"]),
        duration(row["seconds"]),
        str(row["threads"] or ""),
        percent(row["train_accuracy"]),
        percent(row["test_accuracy"]),
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * row['gap']:+.1f}",
    ]
