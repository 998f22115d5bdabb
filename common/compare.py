"""Run configs one after another, and set them beside each other and the ladder.

    python -m common.compare level1_baseline/baselines
    python -m common.compare level1_baseline/baselines --reports reports --data.name cifar100

Further options are those of a level's run.py, and go to every config. One whose report is there
with the same settings is not run again. Writes comparison.md, comparison.json and comparison.png
beside the reports; published figures stand in a table of their own.
"""

import json
import logging
import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from common import charts, comparison, levels, plots, pretrained
from common.config import LevelConfig, NoNetwork, UserError, named_step
from common.data import load_splits
from common.experiment import reports_folder
from common.options import load_config
from common.report import find_reports
from common.verdicts import comparable

log = logging.getLogger("rungs")


def main() -> None:
    """Compare the configs of the folder named first on the command line."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("--"):
        raise UserError("name a folder of configs: python -m common.compare DIR [options]")
    folder = Path(sys.argv[1]).expanduser().resolve()
    files = sorted(folder.glob("*.yaml"))
    level = next((p for p in (folder, *folder.parents) if (p / "run.py").is_file()), None)
    if not files or level is None:
        raise UserError(f"{sys.argv[1]}: no *.yaml here, in a level's directory or below it")
    missing: dict[str, str] = {}
    prog = "python -m common.compare DIR"
    configs = [load_config(file, sys.argv[2:], prog) for file in files]
    data = load_splits(configs[0].data, pretrained.image_size(configs[0].network))
    place = reports_folder(configs[0], data.title)
    for config in configs:
        if _report(place, level.name, config):
            log.info("%s: its report is there, with these settings", config.stem)
            continue
        try:
            levels.load_module(level).main(config)
        except NoNetwork as error:
            log.warning("%s: not measured here: %s", config.stem, error)
            missing[config.stem] = "its weights could not be downloaded"
    rows = [_row(level, config, len(data.classes), place) for config in configs]
    rows = _ladder_rows(place) + rows
    text = json.dumps({"schema": 1, "data": data.title, "rows": rows}, indent=2)
    place.mkdir(parents=True, exist_ok=True)
    (place / "comparison.json").write_text(text + "\n", encoding="utf-8")
    (place / "comparison.md").write_text(comparison.page(data.title, rows), encoding="utf-8")
    plots.save(charts.accuracy_over_time(rows), place / "comparison.png")
    log.info("%s", place / "comparison.md")


def _report(place: Path, level: str, config: LevelConfig) -> dict | None:
    """The metrics of a report of this config with these settings."""
    for _, metrics in find_reports(place):
        same = (metrics["level"], metrics["config"]) == (level, config.stem)
        if same and comparable(metrics["settings"]) == comparable(config.settings()):
            return metrics
    return None


def _row(level: Path, config: LevelConfig, classes: int, place: Path) -> dict:
    """A config's row; what training alone can tell is None where there is no report."""
    metrics = _report(place, level.name, config) or {}
    name = named_step(config.network.arch)[0]
    strategy = "scratch" if config.network.weights == "none" else "transfer"
    row = {"config": config.stem, "network": name, "strategy": strategy}
    return row | _size(level, config, classes) | _measured(metrics)


def _ladder_rows(place: Path) -> list[dict]:
    """The levels' own runs of the lowest seed that have a report there."""
    rows: dict[str, dict] = {}
    for _, metrics in find_reports(place):
        if metrics["config"] != "config" or metrics["level"] in rows:
            continue
        level = levels.find_level(metrics["level"])
        config = LevelConfig()
        network = metrics["settings"]["network"]
        config.network.arch = network["arch"]
        config.network.image_size = metrics["image_size"]
        config.network.trainable, config.network.taps = network["trainable"], network["taps"]
        row = {"config": metrics["level"], "network": named_step(network["arch"])[0]}
        row |= {"strategy": "ladder"} | _size(level, config, metrics["data"]["classes"])
        rows[metrics["level"]] = row | _measured(metrics)
    return list(rows.values())


def _measured(metrics: dict) -> dict:
    if not metrics:
        names = ["epochs", "seconds", "train_accuracy", "test_accuracy", "gap", "interval"]
        return dict.fromkeys(names)
    train, test = metrics["train"]["accuracy"], metrics["test"]["accuracy"]
    return {
        "epochs": metrics["epochs"],
        "seconds": metrics["seconds"],
        "train_accuracy": train,
        "test_accuracy": test,
        "gap": train - test,
        "interval": metrics["detail"]["interval"],
    }


def _size(level: Path, config: LevelConfig, classes: int) -> dict:
    """Parameters, and operations for a picture, of the network as it is built, weights aside."""
    network = config.network
    size = pretrained.image_size(network)
    bare = LevelConfig()
    bare.network.arch, bare.network.trainable = network.arch, network.trainable
    bare.network.weights, bare.network.image_size, bare.network.taps = "none", size, network.taps
    built = levels.load_module(level).build_network(bare, classes).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        built(torch.zeros(1, 3, size, size))
    return {
        "parameters": sum(p.numel() for p in built.parameters()),
        "trained_parameters": sum(p.numel() for p in built.parameters() if p.requires_grad),
        "operations_per_picture": counter.get_total_flops(),
    }


if __name__ == "__main__":
    levels.command(main)
