"""Where a run stands: what it began with, and whether it is one that torchrun started again."""

import os

from common.training.place import BEGUN, SEVERAL, Place, restarted

OWN = {"code": "a", "torch": "2"}


def test_started_again_is_whoever_finds_what_this_launch_wrote(tmp_path, monkeypatch):
    place, last = Place(tmp_path), tmp_path / "last.pt"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    place.begin(OWN, resume=False)
    last.touch()
    assert not restarted(tmp_path), "for the first time"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restarted(tmp_path) and not restarted(tmp_path / "none")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert not restarted(tmp_path), "another launch's"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    before = (tmp_path / BEGUN).stat().st_mtime_ns - 1
    os.utime(last, ns=(before, before))
    assert not restarted(tmp_path), "of an earlier run, which this one had begun to replace"
    (tmp_path / BEGUN).write_text("[", encoding="utf-8")
    last.touch()
    assert not restarted(tmp_path), "nothing is known"


def test_a_run_of_two_versions_is_of_none(tmp_path):
    place = Place(tmp_path)
    assert place.begin(OWN, resume=False) == OWN
    assert place.begin(OWN, resume=True) == OWN
    assert place.begin(OWN | {"code": "b"}, resume=True) == OWN | {"code": SEVERAL}
    assert place.begin(OWN, resume=True)["code"] == SEVERAL, "nor is it when the first is back"
    assert place.begin(OWN, resume=False) == OWN, "anew"
