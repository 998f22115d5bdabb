"""The pages of comparisons: rows as Markdown, and figures that others published."""

from common.reports.lesson import step_text
from common.reports.markdown import templates
from common.reports.text import Table, duration, gain_cells, percent, span, table_of

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


def published() -> Table:
    """The figures that others published."""
    header = ["network", "data", "strategy", "test accuracy", "source"]
    return Table(header, [[*row[:3], f"{row[3]:.2f} %", row[4]] for row in PUBLISHED])


def page(report: dict) -> str:
    """The page of a comparison: `data`, its title, `rows` and `command`."""
    return templates.get_template("comparison.md").render(
        title=report["data"],
        rows=table_of([_cells(row) for row in report["rows"]]),
        published=published(),
        command=report["command"],
    )


def ablation_page(stem: str, report: dict) -> str:
    """The page of a config run without and with augmentation.

    Args:
        stem: the config's name, which the picture has too.
        report: `data`, two `rows`, `gap_closed` (a share or None), `change` on the same pictures
            from `statistics.compare`, and `command`.
    """
    rows = [
        {"augmentation": ", ".join(map(step_text, row["augment"])) or "none", **_measured(row)}
        for row in report["rows"]
    ]
    return templates.get_template("ablation.md").render(
        stem=stem,
        data=report["data"],
        picture=f"{stem}.png",
        rows=table_of(rows),
        gap_closed=report["gap_closed"],
        gaps=[f"{100 * row['gap']:.1f}" for row in report["rows"]],
        change=table_of([gain_cells(report["change"], "change in test accuracy, points")]),
        command=report["command"],
    )


def _cells(row: dict) -> dict[str, str]:
    operations = row["operations_per_picture"]
    return {
        "config": row["config"],
        "network": row["network"],
        "strategy": row["strategy"],
        "parameters": f"{row['parameters'] / 1e6:.2f} M",
        "trained": f"{row['trained_parameters'] / 1e6:.2f} M",
        "operations a picture": "unknown" if operations is None else f"{operations / 1e6:,.1f} M",
        **_measured(row),
    }


def _measured(row: dict) -> dict[str, str]:
    if row["test_accuracy"] is None:
        names = "epochs", "time", "CPU threads", "train", "test accuracy", "95 % interval"
        return dict.fromkeys((*names, "gap, points"), "") | {"test accuracy": "not measured here"}
    return {
        "epochs": str(row["epochs"]),
        "time": duration(row["seconds"]),
        "CPU threads": str(row["threads"] or ""),
        "train": percent(row["train_accuracy"]),
        "test accuracy": percent(row["test_accuracy"]),
        "95 % interval": span(*row["interval"]),
        "gap, points": f"{100 * row['gap']:+.1f}",
    }
