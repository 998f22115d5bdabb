"""The sources: they call nothing that would run what is in a file."""

import ast
import re

import pytest

from helpers.projects import PROJECT

SOURCES = [*PROJECT.glob("common/**/*.py"), *PROJECT.glob("level*/*.py")]
NEVER = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "yaml.load_all"}
NEVER |= {"yaml.full_load", "yaml.unsafe_load", "shutil.unpack_archive", "torch.jit.load"}
DEMANDED = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
DEMANDED |= {"numpy.lib.format.read_array": ("allow_pickle", False)}


def imports(source):
    """What a name stands for, of those that are imported: {"np": "numpy", "dump": "yaml.dump"}."""
    found = {}
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                found |= {alias.asname: alias.name} if alias.asname else {first: first}
        elif isinstance(node, ast.ImportFrom):
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return found


def calls(source):
    """The functions that are called, by their full names, and the constants they are given."""
    known = imports(source)
    for node in ast.walk(source):
        if isinstance(node, ast.Call):
            given = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            first, _, rest = ast.unparse(node.func).partition(".")
            yield ".".join(filter(None, (known.get(first, first), rest))), given


def check_calls(source, name):
    for called, given in calls(source):
        assert called not in NEVER and not called.endswith((".extractall", ".unpack_archive"))
        assert called != "yaml.load" or name == "yaml_files.py"
        assert given.get("shell") in (None, False)
        key, value = DEMANDED.get(called, (None, None))
        assert key is None or given.get(key) is value, f"{called} without {key}={value}"
    imported = {module.split(".")[0] for module in imports(source).values()}
    assert not imported & {"joblib", "dill", "shelve", "marshal", "cloudpickle"}
    assert "pickle" not in imported or name == "cifar.py", "which restricts it"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_no_file_is_unpickled_or_run(file):
    check_calls(ast.parse(file.read_text(encoding="utf-8")), file.name)


def test_common_imports_no_level():
    """It finds them by looking."""
    for file in PROJECT.glob("common/**/*.py"):
        found = imports(ast.parse(file.read_text(encoding="utf-8"))).values()
        assert not [module for module in found if re.match(r"level\d", module)], file


def test_every_room_is_seen_by_the_order_of_rooms():
    """import-linter passes over a folder without __init__.py."""
    rooms = {file.parent for file in PROJECT.glob("common/**/*.py")}
    assert [room for room in rooms if not (room / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    "text",
    [
        "from pickle import loads; loads(x)",
        "import pickle as p; p.loads(x)",
        "from torch import load; load(x)",
        "import torch; torch.load(x, weights_only=False)",
        "import numpy; numpy.load(x)",
        "from os import system as run; run(x)",
        "from yaml import load; load(x)",
        "import tarfile; tarfile.open(x).extractall()",
        "import subprocess; subprocess.run(x, shell=True)",
        "import joblib",
    ],
)
def test_that_would_be_seen(text):
    with pytest.raises(AssertionError):
        check_calls(ast.parse(text), "some.py")
