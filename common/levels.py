"""Finds the levels by looking, loads their modules, and copies them to where they may run again."""

import ast
import functools
import hashlib
import importlib.util
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from common.utils import paths
from common.utils.errors import UserError, line, nearest

ROOMS = "utils", "config", "data", "models", "training", "evaluation", "runtime"  # that train
COMMANDS = "cli", "commands"  # modules that start a run, and do nothing to it


def number(name: str) -> int | None:
    """3 of "level3_fusion"; None of what is no level's name."""
    match = re.fullmatch(r"level(\d+)_\w+", name)
    return int(match[1]) if match else None


def find_levels(project: Path | None = None) -> list[Path]:
    """The level directories, lowest first: `level<N>_<name>` with a run.py and a config.yaml."""
    found = [
        path
        for path in (project or paths.PROJECT).iterdir()
        if number(path.name) is not None
        and (path / "run.py").is_file()
        and (path / "config.yaml").is_file()
    ]
    return sorted(found, key=lambda path: (number(path.name), path.name))


def find_level(name: str, project: Path | None = None) -> Path:
    """A level's directory by its path, its name, or its number ("3").

    Raises:
        UserError: there is none.
    """
    levels = find_levels(project)
    wanted = Path(name).name
    for level in levels:
        if wanted == level.name or level.name.startswith(f"level{wanted}_"):
            return level
    names = [level.name for level in levels]
    raise UserError(f"no level '{name}' in {project or paths.PROJECT}{nearest(wanted, names)}")


def load_module(level: Path) -> ModuleType:
    """A level's run.py as a module, with its `build_network` and `main`."""
    spec = importlib.util.spec_from_file_location(f"{level.name}.run", level / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_function(level: Path, name: str) -> Callable:
    """A function of a level's run.py: `build_network` or `main`.

    Raises:
        UserError: it cannot be imported, or has no such function.
    """
    try:
        function = getattr(load_module(level), name, None)
    except UserError:
        raise
    except Exception as error:  # a level of the reader's own may fail in any way
        reason = f"{type(error).__name__}: {line(error)}"
        raise UserError(
            f"{level / 'run.py'}: cannot be imported ({reason}); mend it, or move the level away"
        ) from error
    if not callable(function):
        raise UserError(f"{level / 'run.py'}: has no function {name}; see that of another level")
    return function


@functools.cache
def code_at_start(level: Path) -> str:
    """The digest of the code as this process first asked for it, when it had just been imported: it
    may be edited while a run is at work.
    """
    return code_digest(level)


def code_digest(level: Path, rooms: Iterable[str] = ROOMS) -> str:
    """SHA-256 over the code that a level's runs hang on: its own, packages included; what of the
    project it imports, other levels among it; and of common/ these rooms and experiment.py. Of the
    first two neither comments nor docstrings count.
    """
    found, waiting, seen = hashlib.sha256(), [level], set()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
            below = file.relative_to(place.parent)
            if any(part.startswith(".") or part == "__pycache__" for part in below.parts):
                continue
            source = file.read_text(encoding="utf-8")
            found.update(below.as_posix().encode())
            found.update(_meaning(source).encode())
            waiting += _imported(source, level.parent, rooms)
    own = Path(__file__).parent
    files = sorted(file for room in rooms for file in (own / room).rglob("*.py"))
    for file in [own / "experiment.py", *files]:
        found.update(file.read_bytes())
    return found.hexdigest()


def _imported(source: str, project: Path, rooms: Iterable[str]) -> list[Path]:
    """What a module names of the project's own modules and packages, but those of these rooms."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        nodes = []
    modules = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{name.name}" for name in node.names}
    names, known = set(re.findall(r"\blevel\d+_\w+", source)), {*rooms, *COMMANDS, "experiment"}
    for top, _, rest in (module.partition(".") for module in modules):
        inside = rest.split(".")[0]
        if top != "common":
            names.add(top)
        elif inside not in known:
            names.add(f"common/{inside}")
    places = [project / f"{name}{ending}" for name in sorted(names) for ending in ("", ".py")]
    return [place for place in places if place.exists()]


def _meaning(source: str) -> str:
    """Python source without comments and docstrings; as it is where it is none."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            del node.body[0]
    return ast.dump(tree)


def copy_code(parts: Iterable[Path], place: Path) -> None:
    """Copy levels, and what else they need, into `place`, beside this checkout's `common/`.

    The bundled weights and data/ are linked to this checkout's; compiled files stay behind.
    """
    own = paths.PROJECT
    weights = own / "common/weights"

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [n for n in names if n == "__pycache__" or Path(folder, n) == weights]

    place.mkdir(parents=True, exist_ok=True)
    for part in (*parts, own / "common"):
        if part.is_dir():
            copied = place / part.name
            shutil.copytree(part, copied, ignore=left_out, ignore_dangling_symlinks=True)
        elif part.exists():
            shutil.copy(part, place)
    (own / "data").mkdir(exist_ok=True)
    for linked in ("data", "common/weights"):
        (place / linked).symlink_to(own / linked)
