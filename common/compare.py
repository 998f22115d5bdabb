"""Run configs one after another, and set them beside each other.

    python -m common.compare level1_baseline/baselines                  # beside the ladder, too
    python -m common.compare level1_baseline/baselines --data.name cifar100
    python -m common.compare level2_augmentation/ablation_cnn.yaml      # with `augment`, without

Further options are those of a level's run.py, and go to every config. One whose report is there
with the same settings is not run again. Beside the reports it writes comparison.md, .json and .svg
for a folder of configs, and files of the config's name for a single one.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from common import cli, levels
from common.config import LevelConfig, load_config
from common.config.schema import comparable
from common.utils.errors import NoNetwork, UserError
from common.utils.paths import expanded, reports_folder, run_name

if TYPE_CHECKING:
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
        plain.recipe = f"{path.stem}_without_augmentation"
        configs.insert(0, plain)
    if configs[0].name is not None and len(configs) > 1:
        raise UserError(
            f"--name: it would be that of several configs of {level.name}; leave it out"
        )

    from common import commands
    from common.data import load_splits
    from common.models import input_size
    from common.reports.store import Reports, check_place

    data = load_splits(configs[0].data, input_size(configs[0].network))
    place = reports_folder(configs[0].reports, data.title, configs[0].given)
    check_place(place)
    reports = Reports.read(place)
    names = {run_name(level.name, config.recipe, config.seed) for config in configs}
    for damage in reports.damaged:
        if damage.split("/")[0] in names:
            raise UserError(f"{place}: {damage}; run its level again, or move it away")
    left = [config for config in configs if not _report(reports, level.name, config)]
    commands.check_unfinished_runs([(level, config) for config in left])
    for config in configs:
        _run(level, config, there=config not in left)

    from common.reports import comparison  # plotting libraries: not before the last epoch
    from common.reports.page import build_page

    reports = Reports.read(place)
    found = [_report(reports, level.name, config) for config in configs]
    place.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        if None in found:
            raise UserError(f"{name}: nothing to compare without its weights")
        comparison.write_ablation(place, path.stem, found)
    else:
        rows = comparison.ladder_rows(reports, {config.recipe for config in configs})
        for config, run in zip(configs, found, strict=True):
            rows.append(comparison.config_row(level, config, len(data.classes), run))
        comparison.write_comparison(place, data.title, rows)
    if reports.runs:
        build_page(reports)


def _run(level: Path, config: LevelConfig, there: bool) -> None:
    """Run a config, unless its report is there; where its weights cannot be had, say so."""
    if there:
        log.info("%s: its report is there, with these settings", config.recipe)
        return
    try:
        levels.load_function(level, "main")(config)
    except NoNetwork as error:
        log.warning("%s: not measured here: %s", config.recipe, error)


def _report(reports: "Reports", level: str, config: LevelConfig) -> "Run | None":
    """The report of this config with these settings, as far as the report names them."""
    own = comparable(config.settings())
    for run in reports.runs:
        theirs = comparable(run.metrics["settings"]).items()
        same = (run.level, run.config) == (level, config.recipe)
        if same and all(own.get(key) == value for key, value in theirs):
            return run
    return None


if __name__ == "__main__":
    cli.command(main, resumes=True)
