"""The runs that there are: what each is, what it reached, and what it takes on the disk.

    python -m common.runs                                         # list them
    python -m common.runs --remove digits/level2_augmentation-epochs-1
    python -m common.runs --prune                                 # what was stopped on its way

A run is removed with the report beside it; reports elsewhere stay.
"""

import contextlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import cli
from common.config import yaml_files
from common.config.ended import BEGUN, DONE, ended_earlier, run_facts
from common.config.recipe import AT_WORK, is_shared
from common.levels import number
from common.utils.errors import UserError, nearest
from common.utils.files import read_json
from common.utils.paths import expanded, runs_root

log = logging.getLogger("rungs")

OWN = {"best.pt", "last.pt", DONE, BEGUN}  # files that a run alone has


@dataclass(frozen=True)
class Found:
    """A run's folder, `facts` of its run.json (empty where there is none), its size in bytes.

    `stands` says how far it is instead: "2 of 5 epochs". `ended`: --prune leaves it.
    """

    folder: Path
    facts: dict[str, Any]
    size: int
    stands: str = ""
    ended: bool = True

    @property
    def name(self) -> str:
        """As --remove takes it: data/run."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def find_runs(root: Path) -> list[Found]:
    """All runs below a folder, by data and level. A level's own folder is none, nor is a report or
    what holds no file of a run's.
    """
    folders = [p for p in root.glob("*/level*") if p.is_dir() and _level(p)]
    return [_found(folder) for folder in sorted(folders) if _is_run(folder)]


def _is_run(folder: Path) -> bool:
    names = {file.name for file in folder.iterdir()}
    return bool(names & OWN) and not names & {"run.py", "metrics.json"}


def _level(folder: Path) -> int | None:
    """The number of the level whose run stands in a folder; None of any other folder."""
    return number(folder.name.partition("-")[0].partition(".")[0])


def _found(folder: Path) -> Found:
    size = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a run at work clears its drafts away
            size += file.stat().st_size if file.is_file() else 0
    if facts := run_facts(folder):
        return Found(folder, facts, size)
    if ended_earlier(folder):
        return Found(folder, {}, size, "ended by an earlier version")
    return Found(folder, {}, size, _progress(folder), ended=False)


def _progress(folder: Path) -> str:
    """How far a run is that has not finished."""
    try:
        epochs = yaml_files.read(folder / "config.yaml")["train"]["epochs"]
        return f"{len(read_json(folder / 'history.json'))} of {epochs} epochs"
    except (UserError, KeyError, TypeError):
        return "no epoch yet"


def listed(runs: list[Found]) -> str:
    """The runs as a table in plain text."""
    rows = [("run", "test", "gain", "size", "when", "differs from its level by")]
    for run in runs:
        facts = run.facts
        rows.append(
            (
                run.name,
                f"{100 * facts['accuracy']:.2f} %" if "accuracy" in facts else run.stands,
                f"{100 * facts['gain']:+.2f}" if facts.get("gain") is not None else "",
                f"{run.size / 1e6:.1f} MB",
                facts.get("when", ""),
                _differs(facts.get("differ", {})),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    total = sum(run.size for run in runs) / 1e6
    return "\n".join([*lines, f"{len(runs)} runs, {total:.1f} MB"])


def _differs(differ: dict[str, Any]) -> str:
    """What is a recipe's own; what its data's folder is called for stands in the name."""
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in differ.items()}
    return ", ".join(f"{key} {text}" for key, text in texts.items() if not is_shared(key))


def remove(run: Found) -> None:
    """Remove a run's folder, and the report beside it.

    Raises:
        UserError: it is at work.
    """
    from common.training import guards  # torch

    name = run.folder.name
    for ending in AT_WORK:
        name = name.removesuffix(ending)
    guards.lock(run.folder.with_name(name))
    _delete(run.folder)
    report = run.folder.parent / "reports" / run.folder.name
    if run.ended and report.is_dir():
        _delete(report)
    log.info("removed %s, %.1f MB", run.name, run.size / 1e6)


def _delete(folder: Path) -> None:
    """Of a link to a folder, the link alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)


def _named(runs: list[Found], name: str) -> Found:
    """The run of this name, or data/name."""
    found = [run for run in runs if name in (run.name, run.folder.name)]
    if len(found) == 1:
        return found[0]
    names = [run.name for run in runs]
    if found:
        raise UserError(f"--remove: there are several '{name}': {', '.join(r.name for r in found)}")
    raise UserError(
        f"--remove: no run '{name}'{nearest(name, names) if names else '; there is none'}"
    )


def main() -> None:
    """List the runs, or remove some."""
    parser = cli.Parser("runs", __doc__)
    parser.add_argument("--remove", metavar="NAME", action="append", help="a run, as it is listed")
    parser.add_argument("--prune", action="store_true", help="remove what is not finished")
    parser.add_argument("--runs", metavar="DIR", help="where they stand (default: runs/)")
    own = parser.parse_args()
    root = expanded(own.runs) if own.runs else runs_root()
    if own.runs and not root.is_dir():
        raise UserError(f"--runs: {root}: no folder; name the one in which the runs stand")
    runs = find_runs(root)
    chosen = [_named(runs, name) for name in own.remove or []]
    chosen += [run for run in runs if not run.ended] if own.prune else []
    for run in chosen:
        remove(run)
    if not (own.remove or own.prune):
        print(listed(runs) if runs else f"no runs in {root} yet")
    elif not chosen:
        log.info("every run is finished: nothing to prune")


if __name__ == "__main__":
    cli.command(main)
