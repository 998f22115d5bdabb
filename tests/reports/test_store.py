"""A folder of reports, read: whatever a file holds, its report can be shown, or is left out."""

import copy
import json
import logging
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.reports import ladder, schema
from common.reports.figures import album
from common.reports.markdown import report_page
from common.reports.store import Reports, check_place
from common.utils.errors import UserError
from helpers import spoiled
from helpers.projects import inside
from helpers.reports import build_page, leave, made_up, run_of, write

SETTINGS = {
    "network": {"arch": "resnet18", "trainable": ["head"], "taps": None, "start_from": None},
    "augment": ["flip", {"crop": {"padding": 2}}],
    "train": {
        **{"epochs": 3, "batch_size": 133, "optimizer": "adam", "lr": 1e-3, "weight_decay": 0.1},
        **{"schedule": {"cosine": {"warmup": 0.1}}, "label_smoothing": 0.1},
    },
    "test": {"tta": "none"},
    "benchmarks": [{"data": "Made | up", "weights": "tiny", "image_size": 64, "accuracy": 75.5}],
}


def whole():
    """A made-up run's metrics, history and the rest, with settings and a summary of its network."""
    metrics, *rest = made_up(level="level2_second", tta="flip", single=77)
    stage = {"name": "head", "output": [10], "parameters": 5130, "trained_parameters": 5130}
    network = [stage | {"trains": True, "multiply_adds": 5130}]
    below = {"level": "level1_first", "gain": 0.1, "interval": [0.0, 0.2], "p_value": 0.01}
    below |= {"fixed": 12, "broken": 2, "verdict": "gain"}
    return metrics | {"settings": SETTINGS, "network": network, "below": below}, *rest


def places(content, path=()):
    """The path of every value inside a JSON value."""
    inside = content.items() if isinstance(content, dict) else ()
    inside = enumerate(content) if isinstance(content, list) else inside
    for key, value in inside:
        yield (*path, key)
        yield from places(value, (*path, key))


def put(content, path, value):
    """A copy with another value, or without one where that is `LEFT_OUT`, at a path."""
    content = copy.deepcopy(content)
    *way, last = path
    place = content
    for key in way:
        place = place[key]
    if value == LEFT_OUT:
        del place[last]
    else:
        place[last] = value
    return content


LEFT_OUT = "left out"
NUMBERS = st.sampled_from([0, -1, 1, 2, 0.5, 1e99, -1e99, 1e308, 10**12, 10**17, 1e-320, True])
PLAIN = st.none() | NUMBERS | st.sampled_from(["", "x", "none", "../x", "a|b", "\x00", "level1_x"])
JUNK = st.recursive(
    PLAIN | st.just(LEFT_OUT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
METRICS, HISTORY = whole()[:2]


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """A folder with a sound report of the level below, and what is asked for of another's."""
    folder = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(album, "draw", lambda *_: {})
        leave(folder, right=70)
        write(folder / "level2_second", *whole())
    return folder


def read(folder, metrics, history):
    """The folder's reports where the second has these figures."""
    for name, content in (("metrics", metrics), ("history", history)):
        text = json.dumps(content, ensure_ascii=False)
        (folder / f"level2_second/{name}.json").write_text(text, encoding="utf-8")
    return Reports.read(folder)


def show(reports):
    """All that pages say of reports, without pictures."""
    tables = ladder.read_ladder(reports)
    ladder.table_of_runs(reports)
    for run in reports.runs:
        report_page(run, reports.below(run), [])
        album.learning_rates(run)
    return tables


@given(st.sampled_from(list(places(METRICS))), JUNK)
def test_any_value_in_metrics_is_shown_or_left_out(beside, path, value):
    reports = read(beside, put(METRICS, path, value), HISTORY)
    assert len(reports.runs) + len(reports.damaged) == 2 and reports.runs[0].level == "level1_first"
    assert all(d.startswith("level2_second/") and "\n" not in d for d in reports.damaged)
    show(reports)


@given(st.sampled_from(list(places(HISTORY))), JUNK)
def test_any_value_in_history_is_shown_or_left_out(beside, path, value):
    reports = read(beside, METRICS, put(HISTORY, path, value))
    assert len(reports.runs) + len(reports.damaged) == 2
    show(reports)


def test_what_is_sound_is_not_left_out(beside):
    """Else the above could not fail."""
    reports = read(beside, METRICS, HISTORY)
    assert [run.level for run in reports.runs] == ["level1_first", "level2_second"]
    assert reports.damaged == []
    text = report_page(reports.runs[1], reports.runs[0], [])
    assert "| head | 10 | 5,130 | 5,130 | trains |" in text
    assert "crop (padding 2)" in text and "cosine (warmup 0.1)" in text
    older = {k: v for k, v in METRICS.items() if k != "network"}
    run = read(beside, older, HISTORY).runs[1]
    assert "The network" in text and "The network" not in report_page(run, None, [])


def test_the_largest_figures_that_pass_can_be_drawn(tmp_path):
    """As can a class's name of 255 characters."""
    metrics, history, *rest, _, examples = whole()
    for epoch in history:
        epoch |= {"train_loss": 1e100, "val_loss": -1e100}
    metrics["settings"] = copy.deepcopy(SETTINGS)
    metrics["settings"]["train"] |= {"lr": 1e100}
    classes = ["x" * 255, "line\nbreak", "", *"abcdefg"]
    run = run_of(tmp_path, metrics, history, *rest, classes)
    album.save(album.draw(run, run, examples), tmp_path)
    assert set(album.there(tmp_path)) >= {"training_curves", "learning_rate", "class_gains"}


def test_a_damaged_report_is_left_out_with_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(album, "draw", lambda *_: {})
    leave(tmp_path, right=70)
    leave(tmp_path, "level2_second", level="level2_second", right=80)
    spoiled.cut(tmp_path / "level2_second/predictions.npz")
    with inside(tmp_path), caplog.at_level(logging.WARNING, "rungs"):
        text = build_page(tmp_path).read_text(encoding="utf-8")
    (warning,) = caplog.messages
    assert (
        "level2_second/predictions.npz: unreadable" in warning and "run its level again" in warning
    )
    assert "level1_first" in text and "level2_second" not in text
    assert "level2" not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_other_folders_are_let_be(tmp_path):
    for name, text in (("mine", "no JSON"), ("theirs", "[1]"), ("old", '{"schema": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(text)
    (tmp_path / "level9_x").mkdir()
    (tmp_path / "level9_x/metrics.json").write_text('{"schema": 1}')  # before gains had intervals
    assert Reports.read(tmp_path) == Reports(tmp_path, [], [])
    with pytest.raises(UserError, match="no reports here; run a level first"):
        Reports.read(tmp_path).check()


def test_each_file_is_read_once(beside, monkeypatch):
    read(beside, METRICS, HISTORY)
    opened = []
    monkeypatch.setattr(schema, "read_npz", counted(schema.read_npz, opened))
    for module in (schema, sys.modules["common.reports.store"]):
        monkeypatch.setattr(module, "read_json", counted(module.read_json, opened))
    show(Reports.read(beside))
    names = ["history.json", "metrics.json", "predictions.npz"]
    assert sorted(opened) == sorted(
        beside / run / name for run in ("level1_first-config-0", "level2_second") for name in names
    )


def counted(read, opened):
    def reading(file):
        opened.append(file)
        return read(file)

    return reading


def test_the_drawn_rate_has_the_steps_that_were_taken(tmp_path):
    """Of 400 pictures in batches of 133, the last one joins the batch before it."""
    metrics, history, *rest, _ = whole()
    rates, steps = album.learning_rates(run_of(tmp_path, metrics, history, *rest))
    assert steps == 3 and all(len(own) == 3 * len(history) for own in rates.values())
    metrics["data"] |= {"train": 401}
    assert album.learning_rates(run_of(tmp_path, metrics, history, *rest))[1] == 4


@pytest.mark.parametrize("name", ["notes.txt", "run.py", "metrics.json/x"])
def test_a_folder_that_is_no_report_is_not_written_over(tmp_path, name):
    file = tmp_path / "level1_first" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(UserError, match="level1_first: not a report, and the run's would go there"):
        check_place(tmp_path, "level1_first")
    check_place(tmp_path, "level2_second")
    for fine in ("metrics.json", ".report.md.7.part"):  # in any state; of a run that was killed
        (tmp_path / "level3_third").mkdir(exist_ok=True)
        (tmp_path / "level3_third" / fine).write_text("{")
        check_place(tmp_path, "level3_third")


def test_arrays_that_do_not_go_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(album, "draw", lambda *_: {})
    leave(tmp_path, "one")
    with np.load(tmp_path / "one/predictions.npz") as found:
        arrays = dict(found)
    names = {"classes": np.array(["x" * 256] * 10), "labels": arrays["labels"].astype(np.uint8)}
    for name, values in names.items():
        np.savez(tmp_path / "one/predictions.npz", **arrays | {name: values})
        (damage,) = Reports.read(tmp_path).damaged
        assert f"'{name}'" in damage
