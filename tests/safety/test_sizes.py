"""A file's size is looked at before it is read: one that is too large is refused, and no memory
taken for it. Such files are sparse here: large for whoever asks, and empty on the disk.
"""

import contextlib
import os
import resource

import psutil
import pytest

from common.config import yaml_files
from common.grade.submission import Grader, gather
from common.reports import store
from common.reports.schema import read_arrays, read_history, read_metrics
from common.training import checkpoint
from common.training.checkpoint import read_checkpoint
from common.utils.errors import UserError
from helpers.projects import NAMES
from helpers.reports import build_page, leave

HUGE = 30 * 2**30  # bytes


@contextlib.contextmanager
def little_memory():
    """A gigabyte more than there is in use, so that a test that fails harms nobody."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = psutil.Process().memory_info().vms + 2**30
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def grown(file):
    """The file, made huge; or a new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.truncate(file, HUGE)
    return file


READERS = {
    "metrics.json": lambda file: read_metrics(file.parent),
    "history.json": lambda file: read_history(file.parent),
    "predictions.npz": lambda file: read_arrays(file.parent),
    "best.pt": read_checkpoint,
    "config.yaml": yaml_files.read,
}


@pytest.mark.parametrize("name", READERS)
def test_a_huge_file_is_refused_before_it_is_read(name, tmp_path):
    file = grown(tmp_path / "level1_mine" / name)
    with little_memory(), pytest.raises(UserError, match=rf"{name}.*30,720 MiB") as refused:
        READERS[name](file)
    assert "\n" not in str(refused.value)


def test_a_huge_checkpoint_is_called_damaged_and_the_one_before_it_offered(tmp_path):
    last = tmp_path / "last.pt"
    for epoch in (1, 2):
        checkpoint.save(last, {"epoch": epoch}, keep=True)
    grown(last)
    with little_memory(), pytest.raises(checkpoint.Damaged, match="30,720 MiB.*the one before it"):
        checkpoint.load(last)


@pytest.mark.parametrize("name", ["metrics.json", "history.json", "predictions.npz"])
def test_a_huge_report_among_others_is_left_out_of_the_page_and_said(name, tmp_path, caplog):
    for level in NAMES[:2]:
        leave(tmp_path, level)
    grown(tmp_path / NAMES[1] / name)
    with little_memory():
        build_page(tmp_path)
        assert [run.folder.name for run in store.Reports.read(tmp_path).runs] == [NAMES[0]]
    (warning,) = [r.message for r in caplog.records if "left out of" in r.message]
    assert f"{NAMES[1]}/{name}" in warning and "30,720 MiB" in warning


def test_a_huge_gallery_is_made_anew_and_a_huge_page_is_somebody_elses(tmp_path):
    leave(tmp_path, NAMES[0])
    grown(tmp_path / "gallery.npz")
    with little_memory():
        build_page(tmp_path)
        grown(tmp_path / "index.html").write_bytes(b"")
        grown(tmp_path / "index.html")
        with pytest.raises(UserError, match="not a page that runs write"):
            store.check_place(tmp_path)


def test_the_grader_says_what_of_a_submission_is_huge(tmp_path):
    for level in NAMES[:2]:
        (tmp_path / level).mkdir()
        for name in ("run.py", "config.yaml"):
            (tmp_path / level / name).touch()
        leave(tmp_path / "reports", level)
    grown(tmp_path / "reports" / NAMES[0] / "metrics.json")
    grown(tmp_path / "runs/made-up" / NAMES[1] / "best.pt")
    with little_memory():
        one, two = gather(tmp_path, tmp_path / "reports", Grader())[:2]
    assert "30,720 MiB" in one.problems["report"]
    assert "30,720 MiB" in two.problems["checkpoint"] and "report" not in two.problems
