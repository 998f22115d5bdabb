"""What the process that forks the others imports; see processes.py."""

import importlib
import pkgutil

import common

for _, name, _ in pkgutil.walk_packages(common.__path__, "common."):
    if not name.endswith("__main__"):
        importlib.import_module(name)
