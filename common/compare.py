"""Run configs one after another, and set them beside each other.

    python -m common.compare level1_baseline/baselines                  # beside the ladder, too
    python -m common.compare level1_baseline/baselines --data.name cifar100
    python -m common.compare level2_augmentation/ablation_cnn.yaml      # with `augment`, without

Further options are those of a level's run.py, and go to every config. One whose report is there
with the same settings is not run again. Beside the reports it writes comparison.md, .json and .png
for a folder of configs, and files of the config's name for a single one.
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from common import cli, levels
from common.config import LevelConfig, load_config, named_step
from common.config.schema import comparable
from common.utils.errors import NoNetwork, UserError
from common.utils.paths import expanded, reports_folder, run_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from common.reports.schema import Run
    from common.reports.store import Reports

log = logging.getLogger("rungs")


def main() -> None:
    """Compare the configs of the folder, or the two ways of the config, that is named first."""
    parser = cli.Parser("compare", __doc__, "FOLDER or FILE.yaml [options of a level]")
    named, _, options = parser.parse_before_levels()
    if len(named) != 1:
        raise UserError("name configs: python -m common.compare FOLDER or FILE.yaml [options]")
    (name,) = named
    path = expanded(name).resolve()
    level = next((p for p in path.parents if (p / "run.py").is_file()), None)
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    if not files or level is None:
        raise UserError(f"{name}: no *.yaml here, in a level's directory or below it")
    configs = [load_config(file, options, parser.prog) for file in files]
    if configs[0].seeds:
        raise UserError("--seeds: one seed at a time here, by --seed")
    if path.is_file():
        if not configs[0].augment:
            raise UserError(f"{name}: its `augment` is empty: nothing to leave out")
        plain = load_config(path, [*options, "--augment", "[]"], parser.prog)
        plain.file = path.with_name(f"{path.stem}_without_augmentation.yaml")
        configs.insert(0, plain)

    from common import experiment
    from common.data import load_splits
    from common.models import input_size
    from common.reports.store import Reports, check_place

    data = load_splits(configs[0].data, input_size(configs[0].network))
    place = reports_folder(configs[0].reports, data.title)
    check_place(place)
    reports = Reports.read(place)
    for config in configs:
        _check_own(reports, run_name(level.name, config.stem, config.seed))
    left = [config for config in configs if not _report(reports, level.name, config)]
    experiment.check_unfinished_runs([(level, config) for config in left])
    for config in configs:
        _run(level, config, there=config not in left)

    from common.reports.page import build_page  # plotting libraries: not before the last epoch

    reports = Reports.read(place)
    found = [_report(reports, level.name, config) for config in configs]
    place.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        if None in found:
            raise UserError(f"{name}: nothing to compare without its weights")
        _write_ablation(place, path.stem, found)
    else:
        rows = [
            _row(level, config, len(data.classes), run)
            for config, run in zip(configs, found, strict=True)
        ]
        _write_comparison(place, data.title, _ladder_rows(reports) + rows)
    if reports.runs:
        build_page(reports)


def _check_own(reports: "Reports", name: str) -> None:
    """Raise UserError where the report of a config that is to be compared is damaged."""
    for damage in reports.damaged:
        if damage.startswith(f"{name}/"):
            raise UserError(f"{reports.folder}: {damage}; run its level again, or move it away")


def _run(level: Path, config: LevelConfig, there: bool) -> None:
    """Run a config, unless its report is there; where its weights cannot be had, say so."""
    if there:
        log.info("%s: its report is there, with these settings", config.stem)
        return
    try:
        levels.load_function(level, "main")(config)
    except NoNetwork as error:
        log.warning("%s: not measured here: %s", config.stem, error)


def _report(reports: "Reports", level: str, config: LevelConfig) -> "Run | None":
    """The report of this config with these settings, as far as the report names them."""
    own = comparable(config.settings())
    for run in reports.runs:
        theirs = comparable(run.metrics["settings"]).items()
        same = (run.level, run.config) == (level, config.stem)
        if same and all(own.get(key) == value for key, value in theirs):
            return run
    return None


def _write_comparison(place: Path, title: str, rows: list[dict]) -> None:
    from common.reports import comparison
    from common.reports.figures import charts
    from common.runtime import command

    report = {"data": title, "rows": rows, "command": command()}
    picture = charts.accuracy_over_time(rows)
    _write(place / "comparison", report, comparison.page(report), picture)


def _write_ablation(place: Path, stem: str, found: list["Run"]) -> None:
    """With and without augmentation: gaps, and what it changed on the same test pictures."""
    from common.evaluation.statistics import compare
    from common.reports import comparison
    from common.reports.figures import charts
    from common.runtime import command

    rows = [
        {"config": run.config, "augment": run.metrics["settings"]["augment"]} | _measured(run)
        for run in found
    ]
    closed = 1 - rows[1]["gap"] / rows[0]["gap"] if rows[0]["gap"] > 0 else None
    change = compare(found[0].labels, *(run.predictions for run in found))
    title = found[0].metrics["data"]["title"]
    report = {"data": title, "rows": rows, "gap_closed": closed, "change": change}
    report["command"] = command()
    picture = charts.gaps(rows, [run.history for run in found])
    _write(place / stem, report, comparison.ablation_page(stem, report), picture)


def _write(file: Path, report: dict, page: str, figure: "Figure") -> None:
    """A page, its figures and its picture, side by side."""
    from common.reports.figures import plots

    text = json.dumps({"schema": 1, **report}, indent=2, ensure_ascii=False)
    file.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    file.with_suffix(".md").write_text(page, encoding="utf-8")
    plots.save(figure, file.with_suffix(".png"))
    log.info("%s", file.with_suffix(".md"))


def _row(level: Path, config: LevelConfig, classes: int, run: "Run | None") -> dict:
    """A config's row; what training alone can tell is None where there is no report."""
    name = named_step(config.network.arch)[0]
    strategy = "scratch" if config.network.weights == "none" else "transfer"
    row = {"config": config.stem, "network": name, "strategy": strategy}
    return row | _size(level, config, classes) | _measured(run)


def _ladder_rows(reports: "Reports") -> list[dict]:
    """The levels' own runs of the lowest seed that have a report there; what a picture takes is
    None where the level is not here any more, or cannot be built.
    """
    from common.reports.restore import passed_over

    rows: dict[str, dict] = {}
    for run in reports.runs:
        network = run.metrics["settings"].get("network")
        if run.config != "config" or run.level in rows or not network:
            continue
        row = {"config": run.level, "network": named_step(network["arch"])[0], "strategy": "ladder"}
        row |= {key: run.metrics[key] for key in ("parameters", "trained_parameters")}
        row["operations_per_picture"] = None
        with passed_over(f"the operations of {run.level}"):
            config = LevelConfig()
            config.network.arch, config.network.taps = network["arch"], network["taps"]
            config.network.image_size = run.metrics["image_size"]
            config.network.trainable = network["trainable"]
            level = levels.find_level(run.level)
            row |= _size(level, config, run.metrics["data"]["classes"])
        rows[run.level] = row | _measured(run)
    return list(rows.values())


def _measured(run: "Run | None") -> dict:
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


def _size(level: Path, config: LevelConfig, classes: int) -> dict:
    """Parameters, and operations for a picture, of the network as it is built, weights aside."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from common.models import input_size

    network = config.network
    size = input_size(network)
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
    cli.command(main, resumes=True)
