"""Runs on a folder of one's own: what of it is left out is said, reported, and never mixed."""

import json
import shutil

import pytest

from common.training import checkpoint
from common.training.place import DONE, KEEP
from helpers.makers import make_picture_folder
from helpers.projects import folder_of
from helpers.refusals import LEVELS, on

DROP = "--data.drop_copies=true"


@pytest.fixture
def pets(tmp_path):
    """Some of train's pictures are test's, too; and there is what is no picture."""
    root = make_picture_folder(tmp_path / "pets", per_class=30, test_per_class=10)
    for file in sorted((root / "train/cat").iterdir())[:15]:
        shutil.copy(file, root / "test/cat" / f"again-{file.name}")
    for name in ("train/cat/.DS_Store", "train/.x", "test/dog/Thumbs.db", "test/dog/a.txt"):
        (root / name).write_text("x")
    return root


def test_what_is_left_out_is_said_and_reported(run, pets):
    whole, less = (run(1, *on(pets), *more) for more in ([], [DROP]))
    assert whole[0] == less[0] == 0, less[2]
    said = "left out: 3 hidden files, 1 .txt\n"
    assert whole[1].count(said) == less[1].count(said) == 1
    figures = []
    for out, more in ((whole[1], []), (less[1], [DROP])):
        place = folder_of(LEVELS[1], [*on(pets), *more])
        assert said in (place / "log.txt").read_text("utf-8")
        report = place.parent / "reports" / place.name
        figures.append(json.loads((report / "metrics.json").read_text("utf-8"))["data"])
        count = figures[-1]["dropped"]
        said_so = f"left out of train: {count} copies of val or test pictures\n" in out
        text = f"{count} training pictures were left out, as copies of val or test pictures."
        assert said_so == (text in (report / "report.md").read_text("utf-8")) == bool(more)
    one, two = figures
    assert one["left_out"] == two["left_out"] == 4 and one["skipped"] == 0
    assert one["dropped"] == 0 < two["dropped"] == one["train"] - two["train"]
    assert (one["val"], one["test"]) == (two["val"], two["test"])
    assert one["fingerprint"] == two["fingerprint"] and one["split"] != two["split"]


def test_runs_with_and_without_copies_are_not_mixed(run, refused, pets, monkeypatch):
    """Though one be moved to where the other is looked for."""
    monkeypatch.setenv(KEEP, "1")
    assert run(1, *on(pets))[0] == 0
    left = folder_of(LEVELS[1], on(pets))
    (left / DONE).unlink()
    own, start = [*on(pets), DROP], "--network.start_from=level1_baseline"
    there = folder_of(LEVELS[1], own)
    shutil.copytree(left, there)
    (there / "config.yaml").unlink()  # else it is set aside
    refused(1, [*own, "--resume"], there / "last.pt", "made with other data.drop_copies")
    for name in ("last.pt", "best.pt"):
        content = checkpoint.load(there / name)
        content["settings"]["data"]["drop_copies"] = True
        checkpoint.save(there / name, content)
    refused(1, [*own, "--resume"], there / "last.pt", "made with other split")
    refused(2, [*own, start], there / "best.pt", "made with other split", "run first: python")
