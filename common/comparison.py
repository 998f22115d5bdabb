"""The comparison's page: its rows as Markdown, and figures that others published."""

from collections.abc import Sequence

from common.markdown import duration, percent, templates

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
- Intervals are Wilson's at 95 %. Times are epochs and evaluation.

## Published by others, not measured here

{{ table(["network", "data", "strategy", "test accuracy", "source"], published) }}

## How to run it again

{{ code("python -m common.compare level1_baseline/baselines") }}
"""


def page(title: str, rows: Sequence[dict]) -> str:
    """The page of a comparison's rows."""
    header = ["config", "network", "strategy", "parameters", "trained", "operations a picture"]
    header += ["epochs", "time", "train", "test accuracy", "95 % interval", "gap, points"]
    published = [[n, d, s, f"{accuracy:.2f} %", source] for n, d, s, accuracy, source in PUBLISHED]
    values = {"title": title, "header": header, "published": published}
    return templates.from_string(PAGE).render(values | {"rows": [_cells(row) for row in rows]})


def _cells(row: dict) -> list[str]:
    cells = [row["config"], row["network"], row["strategy"]]
    cells += [f"{row[key] / 1e6:.2f} M" for key in ("parameters", "trained_parameters")]
    cells.append(f"{row['operations_per_picture'] / 1e9:.2f} G")
    if row["test_accuracy"] is None:
        return [*cells, "", "", "", "not measured here", "", ""]
    low, high = row["interval"]
    return [
        *cells,
        str(row["epochs"]),
        duration(row["seconds"]),
        percent(row["train_accuracy"]),
        percent(row["test_accuracy"]),
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * row['gap']:+.1f}",
    ]
