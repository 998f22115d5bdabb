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
import functools
import hashlib
import importlib
import json
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import levels
from helpers.mutant_report import JUDGES, STORED, section, shares, summary
from helpers.mutations import Mutant, draw, mutants_of
from helpers.planted_bugs import PROJECT, audited, changed
from helpers.processes import forkserver

RESULTS = PROJECT / "runs" / "mutants" / "results.jsonl"
EQUIVALENTS = PROJECT / "tests" / "helpers" / "equivalents.txt"
SEED, COUNT = 0, 320
LIMIT = 600  # seconds for one judge; what takes longer hangs
MEMORY = 8 * 2**30  # bytes that an audit may take

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

# What is audited, in this order: a level and its options. The last four have what no level has on.
DIGITS = ["--network.weights", "tiny-imagenet"]
PICTURES = [*DIGITS, "--data.name", "folder", "--data.root", "{folder}"]
CONFIGURATIONS = {
    "level 2": (2, DIGITS),
    "level 4": (4, DIGITS),
    "level 3": (3, DIGITS),
    "level 1": (1, DIGITS),
    "level 2, all of a step": (
        2,
        [*PICTURES, "--augment", "[flip, crop, jitter, erase, mixup]", "--train.views", "null"]
        + ["--train.ema", "0.9", "--train.label_smoothing", "0.1", "--train.clip_norm", "1.0"]
        + ["--train.schedule", "one_cycle"],
    ),
    "level 2, plateau": (
        2,
        [*PICTURES, "--train.schedule", "plateau", "--train.early_stopping", "2"]
        + ["--test.tta", "flip_shifts", "--train.views", "2"],
    ),
    "level 2, policies": (
        2,
        [*PICTURES, "--augment", "[trivial_augment, {jitter: {hue: 0.1}}, rotate, cutmix]"]
        + ["--train.schedule", "gradual", "--network.adapt_batch_norm", "60"]
        + ["--train.optimizer", "sgd", "--train.freeze_batch_norm", "true"],
    ),
    "level 1, a network of its own": (
        1,
        [*PICTURES, "--network.weights", "none", "--network.trainable", "block2", "dense", "head"]
        + ["--network.arch", "{cnn_small: {dropout: 0.5}}", "--train.optimizer", "adamw"]
        + ["--augment", "[rand_augment, resized_crop, {flip: {probability: 0.3}}]"]
        + ["--train.schedule", "{cosine: {layer_decay: 0.8, warmup: 0.2}}", "--fast", "false"]
        + ["--train.weight_decay", "0.05", "--test.tta", "shifts"],
    ),
}
IMPORTED_BY = {1: (1,), 2: (2,), 3: (3, 4), 4: (4,)}  # a level's files: the levels to audit

TESTS = {  # by how a file's path begins
    "common/training": ["tests/training"],
    "common/data": ["tests/data"],
    "common/evaluation": ["tests/evaluation"],
    "common/models": ["tests/models"],
    "level": ["tests/models", "tests/commands/test_ladder.py"],
}
TINY = [
    "--data.name=digits",
    "--data.limit=200",
    "--network.weights=tiny-imagenet",
    "--audit=false",
]
TINY += ["--network.image_size=32", "--train.epochs=2", "--train.precision=float32"]

LEFT_OUT = {".git", ".venv", "runs", "data", "common"}  # of a copy; what it needs comes by itself

Calls = set[tuple[str, str]]  # a function's file, and its name


@dataclass(frozen=True)
class Verdict:
    """What caught a mutant, None if nothing did, and where; `crash`: by an error it raised."""

    caught: str | None = None
    where: str = ""
    crash: bool = False


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


def levels_of(file: str) -> list[str]:
    """Names of the configurations whose audit may concern a file, its own level's first."""
    own = re.match(r"level(\d)_", file)
    if not own:
        return list(CONFIGURATIONS)
    order = IMPORTED_BY[int(own[1])]
    names = [name for name, (level, _) in CONFIGURATIONS.items() if level in order]
    return sorted(names, key=lambda name: order.index(CONFIGURATIONS[name][0]))


def tests_of(file: str) -> list[str]:
    """The test files and folders for a file's room."""
    return next(tests for start, tests in TESTS.items() if file.startswith(start))


def audit_in_child(
    file: str,
    source: str,
    names: list[str],
    folder: Path,
    only: str = "",
    limit: float = LIMIT,
    trace: bool = False,
) -> tuple[Verdict, Calls]:
    """Audit configurations in a forked process that has this source of a file; stop at the first
    check that fails. `only` runs one check.

    Returns:
        The verdict, and with `trace` which functions were called.
    """
    forked = forkserver()
    receiver, sender = forked.Pipe(duplex=False)
    facts = sender, file, source, names, folder, only, trace
    process = forked.Process(target=_audit, args=facts, daemon=True)
    process.start()
    sender.close()
    told = Verdict("hangs", "audit"), set()
    if receiver.poll(limit):
        try:
            told = receiver.recv()
        except EOFError:  # it ended without a word
            told = Verdict("crashes", "audit", True), set()
        process.join(10)
    process.kill()
    process.join()
    return told


def _audit(
    pipe: Connection,
    file: str,
    source: str,
    names: list[str],
    folder: Path,
    only: str,
    trace: bool,
) -> None:
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # or stopping the tool would be a crash here
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    tempfile.tempdir = str(folder.parent)  # what a killed process leaves goes with the rest
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    where, verdict, called = "", Verdict(), set()
    if trace:
        sys.settrace(lambda frame, *_: called.add(frame.f_code))  # calls alone, no lines
    try:
        with changed(file, source):
            for where in names:
                verdict = _first_failure(where, folder, only)
                if verdict.caught:
                    break
    except BaseException as error:  # what is left of the project may fail anywhere
        verdict = Verdict("crashes", f"{where}: {type(error).__name__}", True)
    sys.settrace(None)
    pipe.send((verdict, {(c.co_filename, c.co_qualname.replace(".<locals>", "")) for c in called}))


def _first_failure(name: str, folder: Path, only: str) -> Verdict:
    level, options = CONFIGURATIONS[name]
    context = audited(str(level), options, folder)
    runner = importlib.import_module("common.audit.runner")
    for check in [check.check for check in runner.CHECKS if only in check.check]:
        (finding,) = runner.find_bugs(context, [check])
        if not finding.passed:
            return Verdict(check, name, finding.expected == "no error")
    return Verdict()


class Judges:
    """The three judges, in the order in which they are asked.

    What fails on the code as it is judges nothing: a configuration is left out, and says so; tests
    and training stop the tool.
    """

    def __init__(self, scratch: Path, jobs: int, results: "Results"):
        from helpers.makers import make_picture_folder

        self.scratch, self.results, self.copies = scratch, results, queue.Queue()
        self.before, self.lock = {}, threading.Lock()
        self.folder = scratch / "pictures"
        classes = ["cat", "dog", "eel", "fox"]
        make_picture_folder(self.folder, classes, 30, 10, size=(32, 32))
        for job in range(jobs):
            self.copies.put(scratch / f"copy{job}")
        # without compiled files: a mutant may be as large as the file, and written in its second
        self.environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}

    def _as_it_is(self, key: object, ask: Callable[[], Any]) -> Any:
        """What a judge says of the code without a change: asked once, others wait."""
        with self.lock:
            if key not in self.before:
                self.before[key] = ask()
            return self.before[key]

    def _sound(self) -> dict[str, Calls]:
        """The configurations whose audit passes on the code as it is, and what each calls."""
        kept = {}
        for name in CONFIGURATIONS:
            facts = FILES[0], _original(FILES[0]), [name], self.folder
            verdict, called = audit_in_child(*facts, trace=True)
            if verdict.caught:
                print(f"left out: {name}, whose audit fails as it is at '{verdict.caught}'")
            else:
                kept[name] = called
        return kept

    def audit(self, mutant: Mutant) -> Verdict:
        """The audit, in all configurations that pass as they are and call what is changed."""
        sound = self._as_it_is("audit", self._sound)
        names = [name for name in levels_of(mutant.file) if name in sound]
        if not names:
            raise SystemExit(f"no audit for {mutant.file} passes as it is")
        changed = str(PROJECT / mutant.file), mutant.place
        names = [name for name in names if not mutant.place or changed in sound[name]]
        if not names:
            return Verdict(None, "no configuration calls it")
        before = self.results.known.get((mutant.id, "audit"))
        if before and before["where"] in names and before["caught"]:  # ask first what caught it
            likely = mutant.file, mutant.source, [before["where"]], self.folder, before["caught"]
            verdict, _ = audit_in_child(*likely)
            if verdict.caught:
                return verdict
        return audit_in_child(mutant.file, mutant.source, names, self.folder)[0]

    def tests(self, mutant: Mutant) -> Verdict:
        """The fast tests of the file's room, in a copy of the project."""
        file, tests = mutant.file, tests_of(mutant.file)
        before = self._as_it_is(str(tests), lambda: self._run_tests(file, _original(file)))
        if before.caught:
            raise SystemExit(f"a copy of the project fails its tests as it is: {before.caught}")
        return self._run_tests(file, mutant.source)

    def grader(self, mutant: Mutant) -> Verdict:
        """The grader, on a tiny run of a copy of the project."""
        file, source = mutant.file, mutant.source
        level = re.match(r"level(\d)_", file)
        number = int(level[1]) if level else 2
        numbers = (3, 4) if number == 4 else (number,)
        before = self._as_it_is(numbers, lambda: self._grade(file, _original(file), numbers))
        if isinstance(before, Verdict):
            raise SystemExit(f"levels {numbers} cannot be trained as they are: {before.caught}")
        graded = self._grade(file, source, numbers)
        if isinstance(graded, Verdict):
            return graded
        failed = [name for name in graded if name not in before]
        return Verdict(failed[0], "grader") if failed else Verdict()

    def _run_tests(self, file: str, source: str) -> Verdict:
        with self._copy_with(file, source) as copy:
            options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={copy}-pytest"]
            status, output = self._python(copy, "-m", "pytest", *options, *tests_of(file))
        if status in (0, None):
            return Verdict("hangs", "tests") if status is None else Verdict()
        named = re.search(r"^(?:FAILED|ERROR) ([^\s[]+)", output, re.MULTILINE)
        return Verdict(named[1] if named else "crashes", "tests", not named)

    def _grade(self, file: str, source: str, numbers: tuple[int, ...]) -> list[str] | Verdict:
        """Train levels in a copy, grade it by this project: the names of the checks that fail."""
        with self._copy_with(file, source) as copy:
            shutil.rmtree(copy / "runs", ignore_errors=True)
            names = [path.name for number in numbers for path in copy.glob(f"level{number}_*")]
            for name in names:
                status, _ = self._python(copy, f"{name}/run.py", *TINY)
                if status != 0:
                    hangs = status is None
                    return Verdict("hangs" if hangs else "crashes", "training", not hangs)
            _, output = self._python(PROJECT, "-m", "common.grade", str(copy), "--format", "json")
        try:
            grades = json.loads(output)["levels"]
        except ValueError:
            return Verdict("crashes", "grader", True)
        return [
            f"{grade['level']}: {check['check']}"
            for grade in grades
            if grade["level"] in names
            for check in grade["checks"]
            if check["outcome"] == "failed"
        ]

    def _python(self, folder: Path, *arguments: str) -> tuple[int | None, str]:
        """Exit status, None where it took too long, and stdout."""
        command = [sys.executable, *arguments]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=self.environment | {"PYTHONPATH": str(folder), "TMPDIR": str(self.scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # and what it has started
            process.wait()
            return None, ""
        return process.returncode, output

    @contextlib.contextmanager
    def _copy_with(self, file: str, source: str) -> Iterator[Path]:
        """A copy of the project, no other job's, in which a file has this source."""
        copy = self.copies.get()
        try:
            if not copy.exists():
                levels.copy_code([p for p in PROJECT.iterdir() if p.name not in LEFT_OUT], copy)
            (copy / file).write_text(source, encoding="utf-8")
            yield copy
        finally:
            (copy / file).write_text(_original(file), encoding="utf-8")
            self.copies.put(copy)


def _original(file: str) -> str:
    return (PROJECT / file).read_text(encoding="utf-8")


@functools.cache
def code_of(judge: str, file: str) -> str:
    """Hash of what a judge's verdict on a mutant of a file hangs on: how it judges, the file."""
    places = {"audit": ["common/audit"], "grader": ["common/grade"], "tests": tests_of(file)}
    options = {"audit": CONFIGURATIONS, "grader": TINY, "tests": ()}
    digest = hashlib.sha256(f"{options[judge]}{_original(file)}".encode())
    for place in map(PROJECT.joinpath, places[judge]):
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Results:
    """Verdicts in a file, a line each; a later one of the same judge counts."""

    def __init__(self, path: Path):
        self.path, self.lock = path, threading.Lock()
        self.known: dict[tuple[str, str], dict] = {}
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
        judges = Judges(Path(scratch), arguments.jobs, results)
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
