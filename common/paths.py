"""Names of files as texts, and as paths."""

import os
from pathlib import Path


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
    """A path below the home folder from `~` on, as others can use it; any other as it is."""
    home = str(Path.home())
    inside = path is not None and path.startswith(home + os.sep) and home != os.sep
    return "~" + path[len(home) :] if inside else path
