"""Where runs and reports stand; names of files as texts, and as paths."""

import os
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
VARIABLE = "RUNGS_RUNS"
OWN = "config"  # the recipe that is a level's own


def is_text(value: str) -> bool:
    """Whether a text can be written as UTF-8; a file's name need not be one."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def expanded(path: str | Path) -> Path:
    """A path with `~` written out; a name that only begins so, as ~$draft.jpg, stays as it is."""
    return Path(os.path.expanduser(path))


def tilde(path: str | None) -> str | None:
    """A path in the home folder from `~` on, as others can use it; any other as it is."""
    home = str(Path.home())
    inside = path is not None and (path + os.sep).startswith(home + os.sep) and home != os.sep
    return "~" + path[len(home) :] if inside else path


def run_name(level: str, recipe: str, seed: int) -> str:
    """Folder name of a run: the recipe and the seed show where they are not the usual ones."""
    own = "" if recipe == OWN else f"-{recipe}"
    return level + own + (f"-seed{seed}" if seed else "")


def runs_root() -> Path:
    """Where all runs stand: what the environment variable RUNGS_RUNS says, else runs/."""
    chosen = os.environ.get(VARIABLE)
    return expanded(chosen).absolute() if chosen else PROJECT / "runs"


def runs_folder(title: str, given: str = "") -> Path:
    """Where runs on this data stand, a folder each.

    Args:
        given: what they share besides the data, as `config.recipe` names it: "64px".
    """
    return runs_root() / slug(f"{title} {given}")


def run_place(root: Path, metrics: dict) -> Path:
    """Where below `root` the run of a report stands beside others, by the report's metrics."""
    return root / slug(metrics.get("place") or metrics["data"]["title"])


def cache_folder() -> Path:
    """Where decoded pictures are kept: with the runs, where these are not in the project."""
    return (runs_root() if os.environ.get(VARIABLE) else PROJECT / "data") / "cache"


def reports_folder(chosen: str | None, title: str, given: str = "") -> Path:
    """Where reports on this data go: the folder that was chosen, else beside its runs."""
    return expanded(chosen) if chosen else runs_folder(title, given) / "reports"


def slug(title: str) -> str:
    """A title as a folder name: lower case, hyphens for all that is no letter or digit."""
    return re.sub(r"[^\w]+", "-", title.lower()).strip("-_") or "data"
