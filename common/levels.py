"""Finds the levels by looking, loads their modules; and how every command ends."""

import importlib.util
import logging
import re
from pathlib import Path
from types import ModuleType

from common.utils import paths
from common.utils.errors import UserError, nearest

log = logging.getLogger("rungs")


def find_levels(project: Path | None = None) -> list[Path]:
    """The level directories, lowest first: `level<N>_<name>` with a run.py and a config.yaml."""
    project = project or paths.PROJECT
    found = {}
    for path in project.iterdir():
        number = re.fullmatch(r"level(\d+)_\w+", path.name)
        if number and (path / "run.py").is_file() and (path / "config.yaml").is_file():
            found[int(number.group(1)), path.name] = path
    return [found[key] for key in sorted(found)]


def find_level(name: str, project: Path | None = None) -> Path:
    """A level's directory by its path, its name, or its number ("3").

    Raises:
        UserError: there is none.
    """
    levels = find_levels(project)
    wanted = Path(name).name
    for level in levels:
        if wanted == level.name or re.match(rf"level{re.escape(wanted)}_", level.name):
            return level
    names = [level.name for level in levels]
    raise UserError(f"no level '{name}' in {project or paths.PROJECT}{nearest(wanted, names)}")


def load_module(level: Path) -> ModuleType:
    """A level's run.py as a module, with its `build_network` and `main`."""
    spec = importlib.util.spec_from_file_location(f"{level.name}.run", level / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
