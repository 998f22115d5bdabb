"""A folder of reports: each file read once; a run's report written, and its gain measured."""

import dataclasses
import functools
import json
import logging
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.evaluation.statistics import compare
from common.reports import schema
from common.reports.figures import album
from common.reports.markdown import report_page
from common.reports.schema import Run
from common.utils.errors import UserError
from common.utils.files import clear_drafts, npz, read_json, write_together
from common.utils.paths import OWN

log = logging.getLogger("rungs")

WITHOUT = "without_"  # how a recipe is called that is its level less one ingredient
IDEA = f"{WITHOUT}idea"  # less all that is new at the level
FLOAT16 = 65504.0  # the largest float16
PAGES, MARK = ("README.md", "index.html"), b"The ladder on "
FILES = "metrics.json", "history.json", "predictions.npz", "report.md"


@dataclass(frozen=True)
class Reports:
    """The reports of a folder.

    Attributes:
        folder: which.
        runs: in the ladder's order.
        damaged: of each report that is left out, its file and what is wrong with it.
    """

    folder: Path
    runs: list[Run]
    damaged: list[str]

    @classmethod
    def read(cls, folder: Path) -> "Reports":
        """Read every file of every report in a folder, once; what is no report is passed over."""
        runs, damaged = [], []
        for file in sorted(folder.glob("[!.]*/metrics.json")):
            try:
                runs += [run] if (run := _read(file)) else []
            except UserError as error:
                if file.exists():  # else another run is writing it anew
                    damaged.append(str(error))
        runs.sort(key=lambda run: (run.number, run.level, run.config, run.seed))
        return cls(folder, runs, damaged)

    def check(self) -> None:
        """Say what is left out.

        Raises:
            UserError: nothing is left.
        """
        found = [
            f"{damage}; run its level again, or move the folder away" for damage in self.damaged
        ]
        if not self.runs:
            found = found or ["no reports here; run a level first"]
            raise UserError(f"{self.folder}: {found[0]}")
        for damage in found:
            log.warning("left out of %s: %s", self.folder, damage)

    @functools.cached_property
    def recipes(self) -> dict[str, str]:
        """By level, the recipe that stands for it: its own; where that has no report, of those that
        it has the one that most levels have.
        """
        pairs = dict.fromkeys((run.level, run.config) for run in self.runs)
        counts = Counter(recipe for _, recipe in pairs)
        found: dict[str, str] = {}
        for level, recipe in sorted(pairs, key=lambda pair: (pair[1] != OWN, -counts[pair[1]])):
            if not recipe.startswith(WITHOUT):
                found.setdefault(level, recipe)
        return found

    def is_own(self, run: Run) -> bool:
        """Whether a run is of the recipe that stands for its level."""
        return self.recipes.get(run.level) == run.config

    def below(self, run: Run) -> Run | None:
        """The run that one is compared with: of the next lower level that has a report of its seed.

        Of that level's recipes it is the one of the same name, else the level's own. None where
        there is none, or where its pictures or its split are others.
        """
        lower = [
            other
            for other in self.runs
            if other.number < run.number
            and (other.config == run.config or self.is_own(other))
            and other.seed == run.seed
        ]
        below = max(lower, key=lambda r: (r.number, r.config == run.config), default=None)
        return below if below and same_pictures(below, run) else None

    def start(self, run: Run) -> Run | None:
        """The run whose network one starts from; None of none, or without a report."""
        folder = run.metrics.get("started_from")
        network = run.metrics["settings"].get("network") or {}
        level, _, recipe = (network.get("start_from") or "").partition("/")
        for other in self.runs:
            named = (other.level, other.seed) == (level, run.seed)
            own = other.config == recipe if recipe else self.is_own(other)
            if other.folder.name == folder if folder else named and own:
                return other
        return None

    def seconds(self, run: Run) -> float:
        """What a run took, with the runs that it starts from."""
        chain = [run]
        while (start := self.start(chain[-1])) and start not in chain:
            chain.append(start)
        return sum(one.metrics["seconds"] for one in chain)

    def gain(self, run: Run) -> dict | None:
        """What a run gained over the one below as its report is now; as its own report has it where
        its answers are not kept.

        Returns:
            `level`, the level below, and what `statistics.compare` says of the two; None where it
            is compared with nothing.
        """
        if run.labels is None:
            return run.metrics["below"]
        below = self.below(run)
        if below is None:
            return None
        return {"level": below.level, **compare(run.labels, below.predictions, run.predictions)}


def _read(file: Path) -> Run | None:
    """The report of a metrics.json; None of one that is not ours, or from before gains had
    intervals.
    """
    named = re.match(r"level\d+_", file.parent.name)
    try:
        metrics = read_json(file)
    except UserError:
        if named:
            raise
        return None
    ours = isinstance(metrics, dict) and metrics.get("schema") == 1
    known = "detail" in metrics if ours else named
    return schema.read_run(file.parent, metrics) if known else None


def same_pictures(one: Run, other: Run) -> bool:
    """Whether two runs answered for the same test pictures, and learned from the same others."""
    data = [[run.metrics["data"][key] for key in ("fingerprint", "split")] for run in (one, other)]
    known = one.labels is not None and other.labels is not None
    return known and data[0] == data[1] and np.array_equal(one.labels, other.labels)


def check_place(reports: Path, name: str | None = None) -> None:
    """Make sure that pages, and a run's report of this name, replace nothing of somebody else's.

    Raises:
        UserError: they would; it names the file or folder.
    """
    hint = "name another folder with --reports, or move"
    for page in PAGES:
        file = reports / page
        ours = not file.exists() or file.is_file() and MARK in _beginning(file)
        if not ours:
            what = "not a page that runs write, and they would replace it"
            raise UserError(f"{file}: {what}: {hint} the file away")
    folder = reports / (name or "")
    if name and folder.exists():
        held = [file.name for file in folder.iterdir()] if folder.is_dir() else [""]
        ours = {*held} & {*FILES} or all(file.endswith(".part") for file in held)
        if not ours or any((folder / file).is_dir() for file in FILES):
            raise UserError(f"{folder}: not a report, and the run's would go there: {hint} it away")


def _beginning(file: Path) -> bytes:
    with open(file, "rb") as page:
        return page.read(2000)


def write_report(run: Run, below: Run | None, examples: tuple[np.ndarray, np.ndarray]) -> None:
    """Write a run's report; one that is there is replaced only once all of the new is made.

    Args:
        run: with all arrays; logits are kept as float16.
        below: the run that it is compared with.
        examples: some training pictures, uint8 (n, 3, H, W), and their classes, (n,) int.
    """
    folder = run.folder
    run = dataclasses.replace(run, logits=run.logits.clip(-FLOAT16, FLOAT16).astype(np.float16))
    folder.mkdir(parents=True, exist_ok=True)
    clear_drafts(folder)
    pictures = album.files(album.draw(run, below, examples))
    arrays = {
        "labels": np.asarray(run.labels, np.int64),
        "predictions": np.asarray(run.predictions, np.int64),
        "single": np.asarray(run.single, np.int64),
        "logits": run.logits,
        "classes": np.array(run.classes, dtype=str),
    }
    # Without metrics.json it is no report: the old one goes first, the new one comes last.
    files = {
        "predictions.npz": npz(**arrays),
        **pictures,
        "history.json": json.dumps(run.history, indent=2) + "\n",
        "report.md": report_page(run, below, {Path(file).stem: file for file in pictures}),
        "metrics.json": json.dumps(run.metrics, indent=2, ensure_ascii=False) + "\n",
    }
    old = [folder / "metrics.json", *album.places(album.ALBUM, folder)]
    write_together({folder / name: content for name, content in files.items()}, instead_of=old)
