"""Reports and the ladder: what they print is what the metrics and arrays say."""

import copy
import json
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from common import plots, report
from common.config import UserError
from common.markdown import code, escape, table
from common.pages import duration, interval

NASTY = ["a|b", "tick`s", "<b>bold</b>", "two\nlines", "*star*", "$x$", "_under_", "back\\slash"]


def score(correct, total, loss=0.5):
    return {"correct": correct, "total": total, "accuracy": correct / total, "loss": loss}


def made_up(level="level1_first", right=80, seed=0, config="config", n=100, classes=10):
    """Metrics, history, labels and logits of a run that has `right` of `n` test pictures right."""
    labels = np.arange(n) % classes
    predictions = np.where(np.arange(n) < right, labels, (labels + 1) % classes)
    logits = np.eye(classes, dtype=np.float32)[predictions] * 3
    data = {"name": "digits", "title": "Made | up", "fingerprint": "f" * 64, "split": "5" * 64}
    metrics = {
        "schema": 1,
        "level": level,
        "config": config,
        "seed": seed,
        "data": data | {"classes": classes, "train": 400, "val": 100, "test": n, "skipped": 0},
        "weights": {"name": "tiny", "sha256": "a" * 64},
        "image_size": 64,
        "trainable": ["layer4", "head"],
        "parameters": 11_000_000,
        "trained_parameters": 8_000_000,
        "epochs": 3,
        "best_epoch": 2,
        "train": score(390, 400, 0.1),
        "val": score(85, 100, 0.4),
        "test": score(right, n, 0.4321),
        "test_single": score(max(right - 1, 0), n, 0.45),
        "tta": "flip",
        "frozen": {"before": "c" * 64, "after": "c" * 64},
        "below": None,
        "seconds": 200.4,
        "command": f"python {level}/run.py --seed {seed}",
        "commit": None,
        "machine": {"cpu": "Some CPU", "cores": 2, "memory_gib": 7.8, "gpu": None},
        "versions": {"torch": "2.11"},
        "settings": {"data": {"name": "digits"}, "seed": seed},
    }
    history = [
        {
            "epoch": i + 1,
            "lr": 1e-4,
            "train_loss": 1 / (i + 1),
            "train_accuracy": 0.7 + 0.1 * i,
            "val_loss": 0.6,
            "val_accuracy": [0.8, 0.85, 0.83][i],
            "seconds": 61.0,
            "pictures_per_second": 1234.5,
        }
        for i in range(3)
    ]
    return metrics, history, labels, logits


def leave(reports, name=None, below=None, change=None, **about):
    """Write a made-up run's report as a level does; returns its metrics."""
    metrics, history, labels, logits = made_up(**about)
    metrics = change(metrics) if change else metrics
    run = metrics["level"], metrics["config"], metrics["seed"]
    metrics["below"] = report.gain_over_below(reports, *run, metrics, labels, logits.argmax(1))
    names = [f"class {i}" for i in range(metrics["data"]["classes"])]
    report.write_report(
        reports / (name or "-".join(map(str, run))), metrics, history, labels, logits, names
    )
    return metrics


def tables(text):
    """Every Markdown table as a list of rows of unescaped cells, the header first."""
    blocks = re.findall(r"(?:^\|.*\|\n?)+", text, re.M)
    return [
        [
            [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for i, line in enumerate(block.strip().splitlines())
            if i != 1
        ]
        for block in blocks
    ]


def draw(figure):
    """Draw, so that positions are final; returns the canvas's renderer."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def test_a_report_says_what_the_metrics_say(tmp_path):
    leave(tmp_path, right=78)
    metrics = leave(tmp_path, level="level2_second", right=80)
    folder = tmp_path / "level2_second-config-0"
    assert {file.name for file in folder.iterdir()} == {
        *("metrics.json", "history.json", "predictions.npz"),
        *("training_curves.png", "confusion_matrix.png", "report.md"),
    }
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert json.loads((folder / "history.json").read_text()) == made_up()[1]

    text = (folder / "report.md").read_text()
    low, high = interval(metrics["test"])
    assert text.splitlines()[2] == (
        f"80.0 % of 100 test pictures right (95 % interval {100 * low:.1f} to {100 * high:.1f} %), "
        "+2.0 points over level1_first."
    )
    results, epochs, recall, provenance = tables(text)
    for name, accuracy, _, seen, loss in results[1:]:
        part = metrics[name]
        assert accuracy == f"{100 * part['accuracy']:.1f} %"
        assert seen == f"{part['correct']} of {part['total']}"
        assert loss == f"{part['loss']:.4f}"
    assert [row[0] for row in results[1:]] == ["train", "val", "test", "test_single"]
    assert [row[0] for row in epochs[1:]] == ["1", "**2**", "3"]
    assert epochs[1] == ["1", "0.0001", "1.0000", "70.0 %", "0.6000", "80.0 %", *epochs[1][6:]]
    assert epochs[1][6] == "1 min 01 s (1,234 pictures/s)"
    assert sum(int(row[1]) for row in recall[1:]) == 100
    assert dict(provenance)["fingerprint"] == "f" * 64
    assert dict(provenance)["commit"] == "unknown"
    assert "8,000,000 of 11,000,000 parameters" in text
    assert "changed it by +1.0 points" in text
    assert "python level2_second/run.py --seed 0" in text


@pytest.mark.parametrize(
    ("right", "words"),
    [
        (83, "+3.0 points over level1_first."),
        (80, "no gain over level1_first: just as many."),
        (79, "no gain over level1_first: -1.0 points."),
    ],
)
def test_a_loss_is_not_called_a_gain(tmp_path, right, words):
    leave(tmp_path, right=80)
    leave(tmp_path, "two", level="level2_second", right=right)
    assert words in (tmp_path / "two/report.md").read_text()


def test_predictions_come_back_as_they_were(tmp_path):
    metrics, history, labels, logits = made_up()
    classes = [*NASTY, "ü", ""]
    report.write_report(tmp_path, metrics, history, labels, logits, classes)
    with np.load(tmp_path / "predictions.npz", allow_pickle=False) as saved:
        assert (saved["labels"] == labels).all() and saved["labels"].dtype == np.int64
        assert (saved["predictions"] == logits.argmax(1)).all()
        assert saved["predictions"].dtype == np.int64
        assert saved["logits"].dtype == np.float16 and saved["logits"].shape == (100, 10)
        assert saved["classes"].tolist() == classes


def test_a_report_that_cannot_be_made_leaves_the_old_one(tmp_path):
    metrics, history, labels, logits = made_up()
    report.write_report(tmp_path, metrics, history, labels, logits, list("abcdefghij"))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(KeyError):
        report.write_report(tmp_path, metrics, [{"epoch": 1}], labels, logits, list("abcdefghij"))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_gain_is_measured_on_the_same_pictures_only(tmp_path):
    leave(tmp_path, level="level1_first", right=70)
    leave(tmp_path, level="level2_second", right=75)
    leave(tmp_path, level="level2_second", config="long", right=77)
    leave(tmp_path, level="level10_last", right=99)
    metrics, _, labels, logits = made_up(level="level3_third", right=81)
    predictions = logits.argmax(1)

    def gain(config="config", seed=0, metrics=metrics, labels=labels, level="level3_third"):
        return report.gain_over_below(tmp_path, level, config, seed, metrics, labels, predictions)

    assert gain() == {"level": "level2_second", "gain": pytest.approx(0.06)}
    assert gain(config="wide") == gain()
    assert gain(config="long") == {"level": "level2_second", "gain": pytest.approx(0.04)}
    assert gain(level="level11_x")["level"] == "level10_last"
    assert gain(level="level1_first") is None
    assert gain(seed=1) is None
    assert gain(labels=labels[::-1]) is None
    assert gain(labels=labels[:-1]) is None
    for key in ("fingerprint", "split"):
        other = copy.deepcopy(metrics)
        other["data"][key] = "0" * 64
        assert gain(metrics=other) is None
    (tmp_path / "level2_second-config-0/predictions.npz").write_bytes(b"no archive")
    assert gain() is None


def test_the_ladder_has_a_row_a_level_in_order(tmp_path):
    runs = [("level2_second", 85), ("level10_last", 84), ("level1_first", 80)]
    for level, right in sorted(runs, key=lambda run: report._number(run[0])):
        leave(tmp_path, level=level, right=right)
    for seed, right in ((1, 82), (2, 87)):
        leave(tmp_path, level="level1_first", right=right, seed=seed)
    leave(tmp_path, level="level2_second", right=88, config="long")
    (tmp_path / "no report").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/metrics.json").write_text("{")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/metrics.json").write_text("[1]")

    order = [(m["level"], m["config"], m["seed"]) for m in report.read_metrics(tmp_path)]
    assert order == [
        *(("level1_first", "config", seed) for seed in range(3)),
        ("level2_second", "config", 0),
        ("level2_second", "long", 0),
        ("level10_last", "config", 0),
    ]
    plain = report.write_ladder(tmp_path)
    text = (tmp_path / "README.md").read_text()
    (header, *ladder), (_, other), given = tables(text)
    rows = [dict(zip(header, row, strict=True)) for row in ladder]
    assert [row["level"].split("]")[0][1:] for row in rows] == [
        *("level1_first", "level2_second", "level10_last"),
    ]
    assert rows[0]["level"].endswith("(level1_first-config-0/report.md)")
    assert [row["test accuracy"] for row in rows] == ["80.0 %", "85.0 %", "84.0 %"]
    assert [row["gain, points"] for row in rows] == ["", "+5.0 over level1", "-1.0 over level2"]
    assert [row["mean ± sd (seeds)"] for row in rows] == ["83.0 ± 3.6 % (3)", "", ""]
    assert {row["time"] for row in rows} == {"3 min 20 s"}
    assert {row["epochs"] for row in rows} == {"3 (best 2)"}
    assert header == [
        *("level", "test accuracy", "95 % interval", "gain, points", "mean ± sd (seeds)"),
        *("trained", "epochs", "time"),
    ]
    assert other[0].startswith("[level2_second-long]") and "88.0 %" in other
    assert [value for _, value in given[1:]] == [
        "Made | up",
        "f" * 64,
        "5" * 64,
        "tiny",
        "a" * 64,
        "64 px",
    ]
    assert text.count("a" * 64) == 1

    lines = plain.splitlines()
    assert lines[0].split()[0] == "level" and len(lines) == 6
    assert [line.split()[0] for line in lines[1:4]] == [
        row["level"].split("]")[0][1:] for row in rows
    ]
    assert {line.index(" %") for line in lines[1:5]} == {lines[1].index(" %")}
    assert lines[-1] == str(tmp_path / "README.md")
    assert (tmp_path / "ladder.png").stat().st_size > 5000


def test_the_ladder_says_where_runs_differ(tmp_path):
    def elsewhere(metrics):
        metrics["weights"] = {"name": "other.pth", "sha256": None}
        metrics["image_size"] = 96
        return metrics

    leave(tmp_path, level="level1_first", right=80)
    leave(tmp_path, level="level2_second", right=85, change=elsewhere)
    leave(tmp_path, level="level3_third", right=86)
    leave(tmp_path, level="level2_second", right=84, change=elsewhere)  # run again
    report.write_ladder(tmp_path)
    header, *rows = tables((tmp_path / "README.md").read_text())[0]
    notes = [row[header.index("note")] for row in rows]
    assert notes[0] == ""
    assert (
        notes[1]
        == "other weights: other.pth; other weights' SHA-256: none; other image size: 96 px"
    )
    assert notes[2] == "the level below has changed since this run"
    # ... and the gain is to the figure in the row above.
    assert [row[header.index("gain, points")] for row in rows[1:]] == [
        *("+4.0 over level1", "+2.0 over level2")
    ]


def test_no_reports_no_ladder(tmp_path):
    with pytest.raises(UserError, match="no reports here"):
        report.write_ladder(tmp_path)


def test_text_stays_text_in_markdown(tmp_path):
    assert table(["h"], [[name] for name in NASTY]).splitlines() == [
        *("| h |", "| --- |", r"| a\|b |", r"| tick\`s |", "| &lt;b&gt;bold&lt;/b&gt; |"),
        *("| two lines |", r"| \*star\* |", r"| \$x\$ |", r"| \_under\_ |", r"| back\\slash |"),
    ]
    assert escape("level2_second") == "level2_second"
    assert code("a ``` b").startswith("````\n")
    metrics, history, labels, logits = made_up(right=0)
    report.write_report(tmp_path, metrics, history, labels, logits, [*NASTY, "i", "j"])
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# level1_first on Made \\| up\n")
    recall = tables(text)[2]
    assert [row[0] for row in recall[1:4]] == ["a|b", r"tick\`s", "&lt;b&gt;bold&lt;/b&gt;"]
    assert {len(row) for row in recall} == {4}


def test_curves_show_the_history():
    figure = plots.training_curves(made_up()[1], best_epoch=2)
    loss, accuracy = figure.axes
    lines = {line.get_label(): line for line in accuracy.lines}
    np.testing.assert_allclose(lines["val"].get_ydata(), [80, 85, 83])
    np.testing.assert_allclose(lines["train"].get_ydata(), [70, 80, 90])
    assert set(lines["chosen: epoch 2"].get_xdata()) == {2}
    np.testing.assert_allclose(loss.lines[1].get_ydata(), [1, 1 / 2, 1 / 3])


def test_curves_of_one_epoch_are_seen():
    figure = plots.training_curves(made_up()[1][:1], best_epoch=1)
    draw(figure)
    for axes in figure.axes:
        assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 1.5] == [1]
        assert all(line.get_marker() in "os" for line in axes.lines[1:])


def test_confusion_matrix_is_row_normalised():
    labels, predictions = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1])
    axes = plots.confusion_matrix(labels, predictions, ["a", "b", "never seen"]).axes[0]
    percent = axes.collections[0].get_array().reshape(3, 3)
    np.testing.assert_allclose(percent, [[200 / 3, 100 / 3, 0], [0, 100, 0], [0, 0, 0]])
    assert [text.get_text() for text in axes.texts] == ["67", "33", "", "", "100", "", "", "", ""]


@pytest.mark.parametrize("count", [2, 10, 20, 100])
def test_confusion_matrix_names_are_whole_and_apart(count):
    classes = [f"a rather long name, {'x' * 30}, of $class$ {i}" for i in range(count)]
    labels = np.arange(5 * count) % count
    figure = plots.confusion_matrix(labels, labels, classes)
    renderer, axes = draw(figure), figure.axes[0]
    assert bool(axes.texts) == (count <= 20)
    names = axes.get_yticklabels()
    assert len(names) == (25 if count == 100 else count)
    assert "".join(names[1].get_text().split()).startswith("aratherlongname,xxx")
    assert names[1].get_text().endswith("4" if count == 100 else "1")
    boxes = [name.get_window_extent(renderer) for name in names]
    width, height = figure.canvas.get_width_height()
    for box in [*boxes, *(part.get_tightbbox(renderer) for part in figure.axes)]:
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in zip(boxes, boxes[1:], strict=False))


def test_the_ladder_shows_levels_intervals_and_gains():
    rows = [
        {"level": "level1_first", "accuracy": 0.8, "low": 0.79, "high": 0.81},
        {"level": "level2_second", "accuracy": 0.85, "low": 0.84, "high": 0.86, "gain": 0.05},
        {"level": "level3_third", "accuracy": 0.849, "low": 0.84, "high": 0.86, "gain": -0.0002},
    ]
    axes = plots.ladder(rows).axes[0]
    np.testing.assert_allclose(axes.lines[-1].get_ydata(), [80, 85, 84.9])
    np.testing.assert_allclose(axes.collections[0].get_segments()[0], [[0, 79], [0, 81]])
    assert [text.get_text() for text in axes.texts] == ["80.0", "85.0", "+5.0", "84.9", "-0.02"]
    assert axes.get_xticklabels()[1].get_text() == "level2\nsecond"


def test_durations_in_words():
    words = [duration(s) for s in (0.4, 59.6, 200, 3725)]
    assert words == ["0 s", "1 min 00 s", "3 min 20 s", "1 h 02 min"]
