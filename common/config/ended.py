"""Whether a run has ended well, and what it left word of: read from its folder, without torch."""

from pathlib import Path
from typing import Any

from common.config import yaml_files
from common.utils.errors import UserError
from common.utils.files import read_json

BEGUN, DONE = "begun.json", "run.json"
KINDS = {  # of what run.json says
    **dict.fromkeys(("level", "recipe", "when", "report", "network"), str),
    **{"differ": dict, "seed": int, "accuracy": float, "gain": float | int | None},
}


def run_facts(folder: Path) -> dict[str, Any] | None:
    """What run.json says of the run that has ended here; None where there is none, or no such."""
    try:
        facts = read_json(folder / DONE)
    except UserError:
        return None
    fits = isinstance(facts, dict) and all(isinstance(facts.get(k), t) for k, t in KINDS.items())
    return facts if fits and (facts["recipe"] + facts["when"]).isprintable() else None


def settings_of(folder: Path) -> dict[str, Any] | None:
    """A run's settings; None where there are none that can be read."""
    try:
        return yaml_files.read(folder / "config.yaml")
    except UserError:
        return None


def ended_earlier(folder: Path) -> bool:
    """Whether an earlier version of this project has ended a run here: it left no run.json."""
    if (folder / DONE).exists() or not (folder / "best.pt").is_file():
        return False
    try:
        settings = yaml_files.read(folder / "config.yaml")
        history, train = read_json(folder / "history.json"), settings["train"]
        best = max(range(len(history)), key=lambda i: (history[i]["val_accuracy"], -i), default=0)
        waited, patience = len(history) - best - 1, train.get("early_stopping")
        whole = len(history) >= train["epochs"] or bool(patience and waited >= patience)
    except (UserError, KeyError, TypeError):
        return False
    return whole and "name" not in settings
