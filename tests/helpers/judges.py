"""The judges of mutation testing: the audit, the fast tests of a mutant's room, the grader."""

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import levels
from helpers.mutations import Mutant
from helpers.planted_bugs import PROJECT, audited, changed
from helpers.processes import forkserver

LIMIT = 600  # seconds for one judge; what takes longer hangs
MEMORY = 8 * 2**30  # bytes that an audit may take


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

UNCHANGED = "common/training/loop.py"  # any file, to audit the code as it is

Calls = set[tuple[str, str]]  # a function's file, and its name
Known = dict[tuple[str, str], dict]  # entries of verdicts, by mutant and judge


@dataclass(frozen=True)
class Verdict:
    """What caught a mutant, None if nothing did, and where; `crash`: by an error it raised."""

    caught: str | None = None
    where: str = ""
    crash: bool = False


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

    def __init__(self, scratch: Path, jobs: int, known: Known):
        from helpers.makers import make_picture_folder

        self.scratch, self.known, self.copies = scratch, known, queue.Queue()
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
            facts = UNCHANGED, _original(UNCHANGED), [name], self.folder
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
        before = self.known.get((mutant.id, "audit"))
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
        likely = (self.known.get((mutant.id, "tests")) or {}).get("caught") or ""
        if "::" in likely:  # ask first what caught it
            verdict = self._run_tests(file, mutant.source, [likely])
            if verdict.caught == likely:
                return verdict
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

    def _run_tests(self, file: str, source: str, some: list[str] | None = None) -> Verdict:
        with self._copy_with(file, source) as copy:
            options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={copy}-pytest"]
            status, output = self._python(copy, "-m", "pytest", *options, *(some or tests_of(file)))
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
