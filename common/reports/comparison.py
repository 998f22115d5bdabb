"""Runs beside each other: figures as JSON, a page and a picture; and what others published."""

import json
import logging
from collections.abc import Container
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from common import levels
from common.config import LevelConfig, NetworkConfig, named_step
from common.evaluation.statistics import compare
from common.models import input_size
from common.reports.figures import charts
from common.reports.figures.style import svg
from common.reports.lesson import step_text
from common.reports.markdown import templates
from common.reports.restore import passed_over
from common.reports.schema import Run
from common.reports.store import Reports
from common.reports.summary import bare_network
from common.reports.text import Table, duration, gain_cells, percent, span, table_of
from common.runtime import command
from common.utils.files import write_together

log = logging.getLogger("rungs")

COURSE = "the course's source projects"
WEIAICUNZAI = "weiaicunzai/pytorch-cifar100, 200 epochs"
AIRBENCH = "KellerJordan/cifar10-airbench, one A100"
ALAVI = "mrpouyaalavi-cifar-10-image-classification.hf.space, 15 epochs at 224 px"
PUBLISHED = [  # network, data, strategy, accuracy in percent, source: none of them run here
    ("airbench94", "CIFAR-10", "scratch", 94.01, f"{AIRBENCH}, 3.83 s"),
    ("airbench96", "CIFAR-10", "scratch", 96.05, f"{AIRBENCH}, 46.3 s"),
    ("ResNet-18", "CIFAR-10", "scratch", 96.0, f"{AIRBENCH}, 7 min"),
    ("ResNet-18, frozen", "CIFAR-10", "transfer", 87.48, ALAVI),
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


def write_comparison(place: Path, title: str, rows: list[dict]) -> None:
    """Write comparison.json, .md and .svg of rows as `config_row` and `ladder_rows` give them."""
    report = {"data": title, "rows": rows, "command": command()}
    _write(place / "comparison", report, page(report), charts.accuracy_over_time(rows))


def page(report: dict) -> str:
    """The page of a comparison: `data`, its title, `rows` and `command`."""
    return templates.get_template("comparison.md").render(
        title=report["data"],
        rows=table_of([_cells(row) for row in report["rows"]]),
        published=published(),
        command=report["command"],
    )


def write_ablation(place: Path, stem: str, found: list[Run]) -> None:
    """Write what augmentation changed on the same test pictures, and the gap it was left with.

    Args:
        stem: the config's name, which the files have too.
        found: its run without augmentation, and the one with it.
    """
    rows = [
        {"config": run.config, "augment": run.metrics["settings"]["augment"]} | _measured(run)
        for run in found
    ]
    closed = 1 - rows[1]["gap"] / rows[0]["gap"] if rows[0]["gap"] > 0 else None
    change = compare(found[0].labels, *(run.predictions for run in found))
    title = found[0].metrics["data"]["title"]
    report = {"data": title, "rows": rows, "gap_closed": closed, "change": change}
    report["command"] = command()
    steps = [", ".join(map(step_text, row["augment"])) or "none" for row in rows]
    cells = [{"augmentation": s, **_figures(row)} for s, row in zip(steps, rows, strict=True)]
    text = templates.get_template("ablation.md").render(
        stem=stem,
        data=title,
        picture=f"{stem}.svg",
        rows=table_of(cells),
        gap_closed=closed,
        gaps=[f"{100 * row['gap']:.1f}" for row in rows],
        change=table_of([gain_cells(change, "change in test accuracy, points")]),
        command=report["command"],
    )
    _write(place / stem, report, text, charts.gaps(rows, [run.history for run in found]))


def _write(file: Path, report: dict, text: str, figure: Figure) -> None:
    """A page, its figures and its picture, side by side."""
    content = json.dumps({"schema": 1, **report}, indent=2, ensure_ascii=False)
    contents = {".json": content + "\n", ".md": text, ".svg": svg(figure)}
    files = {file.with_suffix(suffix): content for suffix, content in contents.items()}
    write_together(files, instead_of=[file.with_suffix(".png")])  # of an earlier one
    log.info("%s", file.with_suffix(".md"))


def config_row(level: Path, config: LevelConfig, classes: int, run: Run | None) -> dict:
    """A config's row; what training alone can tell is None where there is no report."""
    name = named_step(config.network.arch)[0]
    strategy = "scratch" if config.network.weights == "none" else "transfer"
    row = {"config": config.recipe, "network": name, "strategy": strategy}
    return row | size(level, config, classes) | _measured(run)


def ladder_rows(reports: Reports, compared: Container[str] = ()) -> list[dict]:
    """The levels' own runs of the lowest seed that have a report there, none of a config that is
    `compared` with them; what a picture takes is None where the level is not here any more, or
    cannot be built.
    """
    rows: dict[str, dict] = {}
    for run in reports.runs:
        network = run.metrics["settings"].get("network")
        own = reports.is_own(run) and run.config not in compared
        if not own or run.level in rows or not network:
            continue
        row = {"config": run.level, "network": named_step(network["arch"])[0], "strategy": "ladder"}
        row |= {key: run.metrics[key] for key in ("parameters", "trained_parameters")}
        row["operations_per_picture"] = None
        with passed_over(f"the operations of {run.level}"):
            own = {key: network[key] for key in ("arch", "taps", "trainable")}
            config = LevelConfig(network=NetworkConfig(**own, image_size=run.metrics["image_size"]))
            level = levels.find_level(run.level)
            row |= size(level, config, run.metrics["data"]["classes"])
        rows[run.level] = row | _measured(run) | {"seconds": reports.seconds(run)}
    return list(rows.values())


def size(level: Path, config: LevelConfig, classes: int) -> dict:
    """Parameters, and operations for a picture, of the network as it is built, weights aside."""
    network, side = bare_network(level, config, classes).eval(), input_size(config.network)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(1, 3, side, side))
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained_parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "operations_per_picture": counter.get_total_flops(),
    }


def _measured(run: Run | None) -> dict:
    if not run:
        names = "epochs seconds threads train_accuracy test_accuracy gap interval"
        return dict.fromkeys(names.split())
    metrics = run.metrics
    train, test = metrics["train"]["accuracy"], metrics["test"]["accuracy"]
    return {
        "epochs": metrics["epochs"],
        "seconds": metrics["seconds"],
        "threads": metrics["machine"].get("threads"),
        "train_accuracy": train,
        "test_accuracy": test,
        "gap": train - test,
        "interval": metrics["detail"]["interval"],
    }


def _cells(row: dict) -> dict[str, str]:
    operations = row["operations_per_picture"]
    return {
        "config": row["config"],
        "network": row["network"],
        "strategy": row["strategy"],
        "parameters": f"{row['parameters'] / 1e6:.2f} M",
        "trained": f"{row['trained_parameters'] / 1e6:.2f} M",
        "operations a picture": "unknown" if operations is None else f"{operations / 1e6:,.1f} M",
        **_figures(row),
    }


def _figures(row: dict) -> dict[str, str]:
    if row["test_accuracy"] is None:
        return {"test accuracy": "not measured here"}
    return {
        "epochs": str(row["epochs"]),
        "time": duration(row["seconds"]),
        "CPU threads": str(row["threads"] or ""),
        "train": percent(row["train_accuracy"]),
        "test accuracy": percent(row["test_accuracy"]),
        "95 % interval": span(*row["interval"]),
        "gap, points": f"{100 * row['gap']:+.1f}",
    }
