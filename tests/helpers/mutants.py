"""Mutation testing of the audit: of small changes to the code, how many are caught, and by what.

    make mutants                               # judge the sample; again: go on where it stopped
    make mutants MUTANTS="--judges audit"      # by the audit alone: while checks are written
    make mutants MUTANTS="--only common/training/ema.py --count 20"
    make mutants MUTANTS=--report              # write reports/audit_mutants.json, print its page

Each mutant goes to the audit, then to the fast tests of its room, then to the grader, until one
catches it. What survives them all is shown, for a person to write a check or a test for, or to name
in tests/helpers/equivalents.txt with the reason why it changes no result. A third is held back:
only its shares are shown, so that checks written for the rest can be judged by it.
"""

import argparse
import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from helpers.judges import Judges, Known, Verdict, code_of
from helpers.mutant_report import JUDGES, STORED, section, shares, summary
from helpers.mutations import Mutant, draw, mutants_of
from helpers.planted_bugs import PROJECT

RESULTS = PROJECT / "runs" / "mutants" / "results.jsonl"
EQUIVALENTS = PROJECT / "tests" / "helpers" / "equivalents.txt"
SEED, COUNT = 0, 320

# What is mutated; of progress.py what concerns the best epoch, as other files keep checkpoints.
FILES = [*(f"level{name}/run.py" for name in ("1_baseline", "2_augmentation"))]
FILES += ["level3_fusion/run.py", "level3_fusion/fusion_head.py", "level4_finetune_tta/run.py"]
FILES += [f"common/training/{name}.py" for name in ("loop", "progress", "schedules", "ema")]
FILES += [f"common/data/{name}.py" for name in ("loader", "splits")]
FILES += [f"common/data/augment/{n}.py" for n in ("base", "color", "geometry", "policies", "steps")]
FILES += ["common/evaluation/predictions.py"]
FILES += [f"common/models/{name}.py" for name in ("staged", "trunk", "adapt")]
FUNCTIONS = {
    "common/training/progress.py": {"best_epoch", "finished", "save", "_keep_best", "load_best"}
}


def candidates(only: str | None = None) -> list[Mutant]:
    """All mutants of the files, or of one of them."""
    found = []
    for file in [only] if only else FILES:
        source = (PROJECT / file).read_text(encoding="utf-8")
        found += mutants_of(file, source, FUNCTIONS.get(file))
    return found


def sample(found: list[Mutant], count: int) -> list[Mutant]:
    """Of each file its share of `count` mutants, by chance: the same ones each time, and among
    those of a larger sample.
    """
    lots = {mutant.id: draw(SEED, mutant.id) for mutant in found}
    ordered = sorted(found, key=lambda mutant: lots[mutant.id])
    place, seen = {}, {}
    totals = {file: sum(m.file == file for m in found) for file in {m.file for m in found}}
    for mutant in ordered:  # within its file: near 0 for the first, near 1 for the last
        seen[mutant.file] = seen.get(mutant.file, 0) + 1
        place[mutant.id] = (seen[mutant.file] - 0.5) / totals[mutant.file]
    return sorted(ordered, key=lambda mutant: place[mutant.id])[:count]


def equivalents() -> dict[str, str]:
    """Mutants that change no result, by id, and why."""
    lines = EQUIVALENTS.read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))


class Results:
    """Verdicts in a file, a line each; a later one of the same judge counts."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        self.known: Known = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a line that was stopped half-way
                    self._take(json.loads(line))

    def _take(self, entry: dict) -> None:
        self.known[entry["id"], entry["judge"]] = entry

    def find(self, mutant: Mutant, judge: str) -> dict | None:
        """The entry of a mutant, if the code that it hangs on is still the same."""
        entry = self.known.get((mutant.id, judge))
        return entry if entry and entry["code"] == code_of(judge, mutant.file) else None

    def judged(self, mutant: Mutant, judge: str, ask: Callable[[Mutant], Verdict]) -> dict:
        """The entry of a mutant: what is known, or what the judge says now, which is kept."""
        if entry := self.find(mutant, judge):
            return entry
        started = time.perf_counter()
        verdict = ask(mutant)
        entry = {"id": mutant.id, "judge": judge, "code": code_of(judge, mutant.file)}
        entry |= vars(verdict) | {"seconds": round(time.perf_counter() - started, 1)}
        with self.lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            self._take(entry)
        return entry


def judge(
    mutants: list[Mutant], results: Results, judges: dict[str, Callable], jobs: int, reveal: bool
) -> None:
    """Ask the judges about each mutant, until one catches it; say how it goes."""
    done = iter(range(1, len(mutants) + 1))

    def ask(mutant: Mutant) -> None:
        for name, function in judges.items():
            entry = results.judged(mutant, name, function)
            if entry["caught"]:
                break
        how = ": ".join(filter(None, [entry["where"], entry["caught"] or "SURVIVES"]))
        text = f"{mutant.id}, line {mutant.line}: {how}, {entry['seconds']} s"
        shown = reveal or not mutant.held_back
        print(f"{next(done)}/{len(mutants)} {text if shown else 'held back'}", flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(ask, mutants))


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        "mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=COUNT, help=f"mutants (default: {COUNT})")
    parser.add_argument("--only", metavar="FILE", choices=FILES, help="mutate this file alone")
    parser.add_argument("--judges", nargs="+", choices=JUDGES, default=JUDGES)
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (default: 2)")
    parser.add_argument("--reveal", action="store_true", help="show the held-back third, too")
    parser.add_argument("--files", action="store_true", help="count the candidates, and stop")
    parser.add_argument("--report", action="store_true", help="write the summary, print its page")
    arguments = parser.parse_args()
    found = candidates(arguments.only)
    if arguments.files:
        for file in FILES:
            print(f"{sum(mutant.file == file for mutant in found):5} {file}")
        return
    mutants, results = sample(found, arguments.count), Results(RESULTS)
    left_out = equivalents()
    if arguments.report:
        content = summary(mutants, left_out, results.find)
        if content["open"]:
            raise SystemExit(f"{content['open']} mutants are not judged yet; make mutants goes on")
        STORED.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(section(content))
        return
    mutants = [mutant for mutant in mutants if mutant.id not in left_out]
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        judges = Judges(Path(scratch), arguments.jobs, results.known)
        asked = {name: getattr(judges, name) for name in JUDGES if name in arguments.judges}
        judge(mutants, results, asked, arguments.jobs, arguments.reveal)
    for mutant in mutants:
        entries = [results.find(mutant, name) for name in asked]
        caught = any(entry["caught"] for entry in entries if entry)
        if not caught and (arguments.reveal or not mutant.held_back):
            print(f"\n{mutant.diff()}")
    print(shares(summary(mutants, {}, results.find)))


if __name__ == "__main__":
    main()
