"""Where trained levels stand; found without torch."""

import re
from collections import Counter
from pathlib import Path

from common import levels
from common.config.ended import DONE, ended_earlier
from common.utils import paths
from common.utils.errors import UserError


def checkpoints(runs: Path) -> list[tuple[Path, Path]]:
    """The levels that have been trained in a folder of runs, and their checkpoints.

    Raises:
        UserError: there are none.
    """
    if found := _checkpoints(runs):
        return found
    raise UserError(f"{runs}: no trained level here (level*/best.pt); run one first")


def all_runs(chosen: Path | None = None) -> list[Path]:
    """The folders of runs in which a level has been trained, that of the latest first.

    Args:
        chosen: where all runs are, or one data set's; None: where runs go by themselves.
    Raises:
        UserError: nothing has been trained yet.
    """
    if chosen and _checkpoints(chosen):
        return [chosen]
    found = {}
    for runs in (chosen or paths.runs_root()).glob("*/"):
        if places := _checkpoints(runs):
            found[runs] = max(place.stat().st_mtime for _, place in places)
    if chosen and not found:
        words = "no trained level here (level*/best.pt, */level*/best.pt); run one first"
        raise UserError(f"{chosen}: {words}")
    if not found:
        raise UserError("nothing is trained yet (runs/*/level*/best.pt); run `make quickstart`")
    return sorted(found, key=found.get, reverse=True)


def _checkpoints(runs: Path) -> list[tuple[Path, Path]]:
    """Of each level its own recipe's; where that has not been run, of those that have, the one that
    most levels have. Ablations do not stand for their level, nor does a run at work.
    """
    found: dict[str, dict[str, Path]] = {}
    for place in sorted(runs.glob("level*/best.pt")):
        level, _, recipe = place.parent.name.partition("-")
        if re.search(r"^without_|(^|-)seed\d+$|\.(new|old)$", recipe):
            continue
        if (place.parent / DONE).is_file() or ended_earlier(place.parent):
            found.setdefault(level, {})[recipe] = place
    counts = Counter(recipe for recipes in found.values() for recipe in recipes)
    chosen = {
        level: max(recipes, key=lambda recipe: (recipe == "", counts[recipe]))
        for level, recipes in found.items()
    }
    known = [level for level in levels.find_levels() if level.name in found]
    return [(level, found[level.name][chosen[level.name]]) for level in known]
