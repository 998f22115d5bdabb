"""Where a run stands: a folder by its name, which keeps a finished run until a new one is whole.

    runs/<data>/<level>[-<recipe>][-seed<k>]        finished, or at work for the first time
    runs/<data>/<level>[-<recipe>][-seed<k>].new    at work while a finished one is there

A finished run has a run.json. It is the last thing that a run writes. One at work has a begun.json,
the first thing that it writes after its settings.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.ended import BEGUN, DONE, ended_earlier, run_facts, settings_of
from common.training import checkpoint
from common.utils.errors import UserError
from common.utils.files import read_json, write_whole
from common.utils.processes import launch

SEVERAL = "several"
KEEP = "RUNGS_KEEP_LAST"  # the environment variable of whoever compares the state of training
HANGS_ON = {  # of a finished run, and how it is said where that has changed
    "code": "code",
    "torch": "version of torch",
    "fingerprint": "pictures",
    "split": "split",
    "weights": "starting weights",
    "below": "run that it starts from",
}


@dataclass(frozen=True)
class Place:
    """A run's folder, and those beside it.

    Attributes:
        folder: the run's, by its name.
    """

    folder: Path

    @property
    def new(self) -> Path:
        """Where a run is at work while a finished one is in `folder`."""
        return self.folder.with_name(f"{self.folder.name}.new")

    @property
    def old(self) -> Path:
        """Where a finished run is for a moment, while a new one takes its place."""
        return self.folder.with_name(f"{self.folder.name}.old")

    @property
    def work(self) -> Path:
        """Where the run is at work, or would be."""
        ended = (self.folder / DONE).is_file() or ended_earlier(self.folder)
        return self.new if ended else self.folder

    def done(self) -> dict[str, Any] | None:
        """What run.json says of the finished run; None where there is none, or it is not whole."""
        return run_facts(self.folder) if (self.folder / "best.pt").is_file() else None

    def damage(self) -> str | None:
        """The file of a finished run without which it cannot be known for what it is; None where
        all are there.
        """
        names = "best.pt", "last.pt", DONE
        best, last, done = ((self.folder / name).exists() for name in names)
        if not best or (last and not done) or ended_earlier(self.folder):
            return None
        if run_facts(self.folder) is None:
            return DONE
        return "config.yaml" if settings_of(self.folder) is None else None

    @property
    def unsettled(self) -> bool:
        """Whether there is anything to `settle`."""
        alone = self.new.is_dir() and not self.folder.exists()
        untidy = (self.folder / DONE).is_file() and (self.folder / BEGUN).is_file()
        return (self.new / DONE).is_file() or self.old.is_dir() or alone or untidy

    def settle(self) -> None:
        """Make up for what a run that was stopped at its very end had left to do."""
        if (self.new / DONE).is_file():
            self._replace()
        elif self.old.is_dir() and not self.folder.exists():
            os.replace(self.old, self.folder)
        if self.new.is_dir() and not self.folder.exists():  # the finished one was removed
            os.replace(self.new, self.folder)
        if self.old.is_dir():
            shutil.rmtree(self.old)
        if (self.folder / DONE).is_file():
            _tidy(self.folder)

    def begin(self, own: dict[str, str], resume: bool) -> dict[str, str]:
        """Note what the run at work begins with, or goes on with.

        Returns:
            That; `SEVERAL` for what was another when it began: no later run is the same then.
        """
        began = _begun(self.work) if resume else {}
        facts = {k: v if began.get(k, v) == v else SEVERAL for k, v in own.items()}
        content = json.dumps(facts | {"launch": launch()}, indent=2) + "\n"
        write_whole(self.work / BEGUN, content)
        return facts

    def finish(self, facts: dict[str, Any]) -> None:
        """The run at work is whole: pack its checkpoint, say what it is, and let it take its place.

        Raises:
            OSError: the disk is full, or the run's folder is gone.
        """
        work = self.work
        checkpoint.pack(work / "best.pt")
        write_whole(work / DONE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
        _tidy(work)
        if work == self.new:
            self._replace()
            shutil.rmtree(self.old)

    def _replace(self) -> None:
        if self.old.is_dir():
            shutil.rmtree(self.old)
        if self.folder.exists():
            os.replace(self.folder, self.old)
        os.replace(self.new, self.folder)


def restarted(folder: Path) -> bool:
    """Whether torchrun has started this process again (`--max-restarts`), and those before it got
    so far in this folder that there is something to go on with: not what another start left.
    """
    last = folder / "last.pt"
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) == 0 or not last.is_file():
        return False
    if _begun(folder).get("launch") != launch():
        return False
    return last.stat().st_mtime_ns >= (folder / BEGUN).stat().st_mtime_ns  # both by one clock


def _begun(folder: Path) -> dict[str, Any]:
    """What the run at work here began with; nothing where it is not told."""
    try:
        began = read_json(folder / BEGUN)
    except UserError:
        return {}
    return began if isinstance(began, dict) else {}


def _tidy(folder: Path) -> None:
    """Remove what a finished run has no use for."""
    (folder / BEGUN).unlink(missing_ok=True)
    if not os.environ.get(KEEP):
        for file in folder.glob("last*.pt"):
            file.unlink()
