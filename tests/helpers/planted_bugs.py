"""Planting a bug in the code, auditing a level, and the table of what is caught.

`make audit-table` prints the table that stands in reports/audit.md.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

from helpers.bugs import BUGS, Bug

PROJECT = Path(__file__).resolve().parents[2]


def planted(bug: Bug) -> contextlib.AbstractContextManager[None]:
    """Import the project anew, with the bug in it; afterwards the project is as it was."""
    source = (PROJECT / bug.file).read_text(encoding="utf-8")
    assert source.count(bug.old) >= 1, f"{bug.file} has no more '{bug.old}'"
    return changed(bug.file, source.replace(bug.old, bug.new))


@contextlib.contextmanager
def changed(file: str, source: str) -> Iterator[None]:
    """Import the project anew, with another source of one file; afterwards it is as it was."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if _ours(name)}
    original = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> object:
        path = Path(loader.get_filename(name))
        if path != PROJECT / file:
            return original(loader, name)
        return compile(source, str(path), "exec")

    SourceFileLoader.get_code = get_code
    importlib.invalidate_caches()
    try:
        yield
    finally:
        SourceFileLoader.get_code = original
        for name in [name for name in sys.modules if _ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)


def _ours(name: str) -> bool:
    return name.split(".")[0] == "common" or name.startswith("level")


def audited(level: str, options: list[str], folder: Path) -> object:
    """An AuditContext of a level on digits, through modules that are imported here and now."""
    import torch

    torch.manual_seed(0)
    module = importlib.import_module
    levels, options_of = module("common.levels"), module("common.config.parser")
    path = levels.find_level(level)
    base = ["--data.name", "digits", "--network.weights", "none"]
    arguments = [text.replace("{folder}", str(folder)) for text in [*base, *options]]
    config = options_of.load_config(path / "config.yaml", arguments)
    data = module("common.data").load_splits(config.data, 32)
    runtime = module("common.runtime").start_runtime(config.train, config.fast)
    run = levels.load_module(path)
    context = module("common.audit.context").AuditContext
    return context(config, run.build_network, data, runtime, run.main)


def table() -> str:
    """reports/audit.md: each bug, where it is planted, the check that names it; then mutants, and
    the checks' margins.
    """
    from helpers import margins as margins_of
    from helpers import mutant_report

    mutants, margins = mutant_report.stored_section(), margins_of.stored_section()
    rows = [
        f"| {bug.name}{' *' * bug.common} | `{bug.file}`, level {bug.level} | {bug.check} |"
        for bug in BUGS
    ]
    return "\n".join(
        [
            "# What the audit catches",
            "",
            f"{len(BUGS)} bugs, each planted in the real code by "
            "`tests/audit/test_planted_bugs.py` and named by the check beside it.",
            "Those with a star were found together in one real code base.",
            "",
            "| bug | planted in | check that names it |",
            "| --- | --- | --- |",
            *rows,
            "",
            "Made by `make audit-table` from `tests/helpers/bugs.py`.",
            "",
        ]
    ) + "".join(f"\n{part}" for part in (mutants, margins) if part)


if __name__ == "__main__":
    print(table(), end="")
