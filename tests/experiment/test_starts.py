"""What a start finds in its folder: it reads it once, and writes over nothing unasked."""

import shlex

import pytest

from common import commands, experiment
from common.audit import runner
from common.audit.context import Finding
from common.training import checkpoint
from helpers.projects import folder_of
from helpers.refusals import LEVELS

TINY = ["--data.name=digits", "--data.limit=60", "--train.epochs=2", "--network.image_size=32"]
TINY += ["--network.arch=mlp", "--network.weights=none", "--audit=false"]


@pytest.fixture
def reads(monkeypatch):
    """The names of the checkpoints that are read, in order, each unpacked and hashed whole.

    No report is written.
    """
    load, names = checkpoint.load, []

    def counted(path):
        names.append(path.name)
        return load(path)

    monkeypatch.setattr(checkpoint, "load", counted)
    monkeypatch.setattr(experiment.Experiment, "report", lambda *_: {})
    monkeypatch.setattr(commands, "write_pages", lambda *_: ("", None))
    return names


def test_a_start_reads_last_once_and_writes_over_no_unfinished_run(run, refused, project, reads):
    assert run(1, *TINY)[0] == 0
    assert reads == ["best.pt"], "the epoch that is tested"
    last = folder_of(LEVELS[1], TINY) / "last.pt"

    reads.clear()
    assert run(1, *TINY)[0] == 0, "once more: the run there is finished"
    assert reads == ["last.pt", "best.pt"]

    reads.clear()
    assert "resumed after epoch 2" in run(1, *TINY, "--resume")[1]
    assert reads == ["last.pt", "best.pt"]

    content = checkpoint.load(last)
    checkpoint.save(last, content | {"history": content["history"][:1]})
    before = last.read_bytes()
    reads.clear()
    again = f"run.py {shlex.join(TINY)} --resume), --anew starts over"
    refused(1, TINY, "after 1 of 2 epochs: --resume goes on with it", again)
    assert reads == ["last.pt"] and last.read_bytes() == before

    reads.clear()
    _, out, _ = run(1, *TINY, "--resume")
    assert "resumed after epoch 1" in out and "epoch 2/2" in out
    assert reads == ["last.pt", "best.pt"]

    reads.clear()
    checkpoint.save(last, content | {"history": content["history"][:1]})
    assert run(1, *TINY, "--anew")[0] == 0, "asked for"
    assert reads == ["best.pt"]


def test_a_run_whose_audit_fails_does_not_begin(run, project, monkeypatch):
    def broken(context):
        return Finding("the sky is blue", False, "blue", "green", "the weather")

    monkeypatch.setattr(runner, "CHECKS", [broken])
    code, out, complaints = run(1, *TINY[:-1])
    assert code == 1 and "FAIL the sky is blue: expected blue; seen green" in out
    assert "error: the audit failed at: the sky is blue" in complaints
    left = {file.name for file in folder_of(LEVELS[1], TINY).iterdir()}
    assert left <= {"lock"}


def test_a_script_without_its_line_is_said_not_to_be_audited(run, project, monkeypatch):
    monkeypatch.setattr(experiment.Experiment, "audit", lambda *_: None)
    monkeypatch.setattr(commands, "write_pages", lambda *_: ("", None))
    assert "not audited: run.py has no line" in run(1, *TINY)[1]
    assert {"log.txt", "config.yaml"} <= {
        file.name for file in folder_of(LEVELS[1], TINY).iterdir()
    }
