"""Where runs and reports stand; names of files as texts, and as paths."""

import os
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


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


def run_name(level: str, stem: str, seed: int) -> str:
    """Folder name of a run: the config and the seed show where they are not the usual ones."""
    config = "" if stem == "config" else f"-{stem}"
    return level + config + (f"-seed{seed}" if seed else "")


def runs_folder(title: str) -> Path:
    """Where runs on this data stand, a folder each."""
    return PROJECT / "runs" / slug(title)


def reports_folder(chosen: str | None, title: str) -> Path:
    """Where reports on this data go: the folder that was chosen, else beside its runs."""
    return expanded(chosen) if chosen else runs_folder(title) / "reports"


def slug(title: str) -> str:
    """A title as a folder name: lower case, hyphens for all that is no letter or digit."""
    return re.sub(r"[^\w]+", "-", title.lower()).strip("-_") or "data"
