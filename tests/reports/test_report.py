"""A run's report: what it prints is what the metrics and arrays say; and its pictures."""

import copy
import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from common.evaluation import Predictions, Results
from common.evaluation.statistics import describe, fit_temperature, paired_interval, wilson_interval
from common.experiment import _detail
from common.reports.figures import album
from common.reports.markdown import code, escape, table
from common.reports.store import Reports
from common.reports.text import duration, points, probability
from helpers.reports import NASTY, leave, made_up, pictures, run_of, tables, write


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures take time."""
    monkeypatch.setattr(album, "draw", lambda *_: {})


def test_a_report_says_what_the_metrics_say(tmp_path):
    leave(tmp_path, right=78)
    metrics = leave(tmp_path, level="level2_second", right=80, tta="flip", single=79)
    folder = tmp_path / "level2_second-config-0"
    files = {file.name for file in folder.iterdir()}
    assert files == {
        *("metrics.json", "history.json", "predictions.npz", "report.md"),
        *("training_curves.svg", "confusion_matrix.svg", "contact_sheet.webp"),
        *("reliability.svg", "class_gains.svg"),
    }
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert json.loads((folder / "history.json").read_text()) == made_up()[1]

    text = (folder / "report.md").read_text()
    assert all(f"]({name})" in text for name in files if name.endswith((".svg", ".webp")))
    results, detail, epochs, recall, provenance = tables(text)
    for name, accuracy, ends, seen, loss in results[1:]:
        part = metrics[name]
        low, high = wilson_interval(part["correct"], part["total"])
        assert accuracy == f"{100 * part['accuracy']:.1f} %"
        assert ends == f"{100 * low:.1f} to {100 * high:.1f}"
        assert seen == f"{part['correct']} of {part['total']}"
        assert loss == f"{part['loss']:.4f}"
    assert [row[0] for row in results[1:]] == ["train", "val", "test", "test_single"]
    assert detail == [
        ["on test", "as it is", "at temperature 1.38, fitted on val"],
        ["macro F1", "0.7912", ""],
        ["negative log-likelihood", "0.4321", "0.4012"],
        ["expected calibration error (15 bins)", "0.0512", "0.0213"],
    ]
    assert [row[0] for row in epochs[1:]] == ["1", "2 (chosen)", "3"]
    assert epochs[1] == ["1", "0.0001", "1.0000", "70.0 %", "0.6000", "80.0 %", *epochs[1][6:]]
    assert epochs[1][6] == "1 min 01 s (1,234 pictures/s)"
    assert sum(int(row[1]) for row in recall[1:]) == 100
    assert dict(provenance)["fingerprint"] == "f" * 64
    assert dict(provenance)["commit"] == "unknown"
    assert "8,000,000 of 11,000,000 parameters" in text
    assert "test uses test-time augmentation: flip." in text
    assert "changed it by +1.0 points" in text
    assert "python level2_second/run.py --seed 0" in text


@pytest.mark.parametrize(
    ("right", "skip", "gain", "fixed", "broken", "words"),
    [
        (830, 0, "+3.0", 30, 0, "p &lt; 0.001: a gain"),
        (770, 0, "-3.0", 0, 30, "p &lt; 0.001: a loss"),
        (805, 10, "+0.5", 15, 10, "p = 0.424: a gain is not shown"),
        (795, 0, "-0.5", 0, 5, "p = 0.062: a gain is not shown"),
        (800, 0, "0.0", 0, 0, "p = 1.000: a gain is not shown"),
    ],
)
def test_the_first_sentence_tells_gain_loss_and_not_shown(
    no_pictures, tmp_path, right, skip, gain, fixed, broken, words
):
    leave(tmp_path, n=1000, right=800)
    metrics = leave(tmp_path, "two", level="level2_second", n=1000, right=right, skip=skip)
    assert metrics["below"]["p_value"] == binomtest(fixed, fixed + broken or 1).pvalue
    low, high = wilson_interval(right, 1000)
    ends = paired_interval(right - fixed, fixed, broken, 1000 - right - broken)
    least, most = map(points, ends)
    assert (tmp_path / "two/report.md").read_text().splitlines()[2] == (
        f"{right / 10:.1f} % of 1,000 test pictures right (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f} %). Over level1_first: {gain} points (95 % interval {least} to {most}), "
        f"of the pictures {fixed} fixed and {broken} broken, {words}."
    )


def test_a_first_level_is_compared_with_nothing(no_pictures, tmp_path):
    leave(tmp_path, "one", right=80)
    text = (tmp_path / "one/report.md").read_text()
    assert text.splitlines()[2].endswith("%); there is no level below to compare it with.")
    assert "there is no test-time augmentation" in text and "changed it by" not in text


def test_detail_takes_its_temperature_from_val():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 12
    noise = torch.randn(2, 240, 12, generator=generator)
    val, test = noise * 3 + torch.eye(12)[labels] * torch.tensor([9.0, 5.0])[:, None, None]
    parts = [Predictions(logits, labels) for logits in (val, test)]
    single = Predictions(test.flip(0), labels)
    results = Results(parts[0], *parts, single, "flip", seconds=9, test_seconds=4, single_seconds=2)
    got = _detail(results)
    temperature = fit_temperature(val.numpy(), labels.numpy())
    assert temperature != pytest.approx(fit_temperature(test.numpy(), labels.numpy()), rel=0.1)
    correct = int((test.argmax(1) == labels).sum())
    assert got == {
        "interval": list(wilson_interval(correct, 240)),
        **describe(test.numpy(), labels.numpy(), temperature),
        "seconds": {"test": 4, "test_single": 2},
    }
    json.dumps(got)


def test_top5_stands_where_there_are_more_than_ten_classes(no_pictures, tmp_path):
    metrics, *rest = made_up()
    metrics["detail"]["top5"] = 0.987
    write(tmp_path, metrics, *rest)
    detail = tables((tmp_path / "report.md").read_text())[1]
    assert ["top-5 accuracy", "98.7 %", ""] in detail


def test_predictions_come_back_as_they_were(no_pictures, tmp_path):
    metrics, history, labels, logits, single, _, examples = made_up(tta="flip", single=77)
    classes = [*NASTY, "ü", ""]
    write(tmp_path, metrics, history, labels, logits, single, classes, examples)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as saved:
        assert (saved["labels"] == labels).all() and saved["labels"].dtype == np.int64
        assert (saved["predictions"] == logits.argmax(1)).all()
        assert saved["predictions"].dtype == np.int64
        assert (saved["single"] == single).all() and saved["single"].dtype == np.int64
        assert (saved["single"] != saved["predictions"]).sum() == 3
        assert saved["logits"].dtype == np.float16 and saved["logits"].shape == (100, 10)
        assert saved["classes"].tolist() == classes


def test_a_report_that_cannot_be_made_leaves_the_old_one(tmp_path):
    metrics, history, *rest = made_up()
    write(tmp_path, metrics, history, *rest)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(KeyError):
        write(tmp_path, metrics, [{"epoch": 1}], *rest)
    with pytest.raises(IndexError):  # a picture's label without a class: the last thing drawn
        write(tmp_path, metrics, history, *rest[:-1], (pictures()[0], [10] * 11))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_gain_is_measured_on_the_same_pictures_only(no_pictures, tmp_path):
    leave(tmp_path, level="level1_first", right=70)
    leave(tmp_path, level="level2_second", right=75)
    leave(tmp_path, level="level2_second", config="long", right=77)
    leave(tmp_path, level="level10_last", right=99)
    metrics, history, labels, *rest, _ = made_up(level="level3_third", right=81, skip=2)

    def gain(config="config", seed=0, metrics=metrics, labels=labels, level="level3_third"):
        metrics = metrics | {"level": level, "config": config, "seed": seed}
        run = run_of(tmp_path / "own", metrics, history, labels, *rest)
        return Reports.read(tmp_path).gain(run)

    assert gain() == {
        "level": "level2_second",
        "gain": pytest.approx(0.06),
        "interval": list(paired_interval(73, 8, 2, 17)),
        "p_value": binomtest(2, 10).pvalue,
        "fixed": 8,
        "broken": 2,
        "verdict": "not shown",
    }
    assert gain(config="wide") == gain()
    assert gain(config="long")["gain"] == pytest.approx(0.04)
    assert gain(level="level11_x")["level"] == "level10_last"
    assert gain(level="level11_x")["verdict"] == "loss"
    assert gain(level="level1_first") is None
    assert gain(seed=1) is None
    assert gain(labels=labels[::-1]) is None
    assert gain(labels=labels[:-1]) is None
    assert gain(labels=None) == metrics["below"], "as the run itself has it"
    for key in ("fingerprint", "split"):
        other = copy.deepcopy(metrics)
        other["data"][key] = "0" * 64
        assert gain(metrics=other) is None
    (tmp_path / "level2_second-config-0/predictions.npz").write_bytes(b"no archive")
    assert gain()["level"] == "level2_second", "another recipe of the level stands for it"
    (tmp_path / "level2_second-long-0/predictions.npz").write_bytes(b"no archive")
    assert gain()["level"] == "level1_first", "damaged reports are left out"
    (tmp_path / "level1_first-config-0/predictions.npz").unlink()
    assert gain() is None


def test_text_stays_text_in_markdown(no_pictures, tmp_path):
    assert table(["h"], [[name] for name in NASTY]).splitlines() == [
        *("| h |", "| --- |", r"| a\|b |", r"| tick\`s |", "| &lt;b&gt;bold&lt;/b&gt; |"),
        *("| two lines |", r"| \*star\* |", r"| \$x\$ |", r"| \_under\_ |", r"| back\\slash |"),
    ]
    assert escape("level2_second") == "level2_second"
    assert code("a ``` b").startswith("````\n")
    metrics, history, labels, logits, single, _, examples = made_up(right=0)
    classes = [*NASTY, "i", "j"]
    write(tmp_path, metrics, history, labels, logits, single, classes, examples)
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# level1_first on Made \\| up\n")
    recall = tables(text)[3]
    assert [row[0] for row in recall[1:4]] == ["a|b", r"tick\`s", "&lt;b&gt;bold&lt;/b&gt;"]
    assert {len(row) for row in recall} == {4}


def test_durations_and_probabilities_in_words():
    words = [duration(s) for s in (0.4, 59.6, 200, 3725)]
    assert words == ["0 s", "1 min 00 s", "3 min 20 s", "1 h 02 min"]
    words = [probability(p) for p in (1.0, 0.0123, 0.0496, 0.0502, 0.00099)]
    assert words == ["1.000", "0.012", "0.0496", "0.0502", "< 0.001"]
