"""The ladder page: a row a level, its gain and verdict; seeds; what each ingredient is worth."""

import itertools
import re
import sys

import numpy as np
import pytest

from common import course
from common.evaluation.statistics import compare, paired_interval, wilson_interval
from common.reports.figures import album, plots
from common.reports.store import Reports
from common.utils import paths
from common.utils.errors import UserError
from helpers.reports import draw, leave, made_up, tables, titled_tables, write_ladder

WORTH = "What each ingredient is worth"


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Reports without pictures: those are tested with the reports, and take time."""
    monkeypatch.setattr(album, "draw", lambda *_: {})


def page(reports):
    """The ladder, written anew: its tables by title."""
    write_ladder(reports)
    return titled_tables((reports / "README.md").read_text())


def linked(cell):
    """Text and target of a link."""
    return re.fullmatch(r"\[(.*)\]\((.*)\)", cell).groups()


def test_the_ladder_has_a_row_a_level_in_order(tmp_path):
    for level, right in (("level1_first", 70), ("level2_second", 85), ("level10_last", 84)):
        leave(tmp_path, level=level, right=right)
    leave(tmp_path, level="level1_first", right=72, seed=1)
    leave(tmp_path, level="level2_second", right=88, config="config_long")
    (tmp_path / "no report").mkdir()
    for name, text in (("broken", "{"), ("foreign", "[1]"), ("old", '{"schema": 1}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(text)

    order = [
        (m["level"], m["config"], m["seed"])
        for m in (run.metrics for run in Reports.read(tmp_path).runs)
    ]
    assert order == [
        *(("level1_first", "config", seed) for seed in range(2)),
        ("level2_second", "config", 0),
        ("level2_second", "config_long", 0),
        ("level10_last", "config", 0),
    ]
    plain = write_ladder(tmp_path)
    text = (tmp_path / "README.md").read_text()
    found = titled_tables(text)
    rows, (other,), given = found[""], found["Other configs"], found["On what"]
    assert [linked(row["level"]) for row in rows] == [
        (level, f"{level}-config-0/report.md")
        for level in ("level1_first", "level2_second", "level10_last")
    ]
    assert list(rows[0]) == [
        *("level", "test accuracy", "95 % interval", "gain, points", "fixed / broken", "p"),
        *("verdict", "trained", "epochs", "time"),
    ]
    assert [row["test accuracy"] for row in rows] == ["70.0 %", "85.0 %", "84.0 %"]
    low, high = wilson_interval(70, 100)
    assert rows[0]["95 % interval"] == f"{100 * low:.1f} to {100 * high:.1f}"
    gains = [paired_interval(70, 15, 0, 15), paired_interval(84, 0, 1, 15)]
    (low, high), (low2, high2) = 100 * np.array(gains)
    assert [row["gain, points"] for row in rows] == [
        "",
        f"+15.0 ({low:+.1f} to {high:+.1f}) over level1",
        f"-1.0 ({low2:+.1f} to {high2:+.1f}) over level2",
    ]
    assert [row["fixed / broken"] for row in rows] == ["", "15 / 0", "0 / 1"]
    assert [row["p"] for row in rows] == ["", "&lt; 0.001", "1.000"]
    assert [row["verdict"] for row in rows] == ["", "gain", "not shown"]
    assert {row["time"] for row in rows} == {"3 min 20 s"}
    assert {row["epochs"] for row in rows} == {"3 (best 2)"}
    assert {row["trained"] for row in rows} == {"layer4, head"}
    assert linked(other["level"])[0] == "level2_second-config_long"
    assert other["test accuracy"] == "88.0 %" and other["verdict"] == "gain"
    assert [row["value"] for row in given] == [
        *("Made | up", "f" * 64, "5" * 64, "tiny", "a" * 64, "64 px"),
    ]
    assert text.count("a" * 64) == 1 and WORTH not in text

    lines = plain.splitlines()
    assert lines[0].split()[0] == "level" and len(lines) == 6
    assert [line.split()[0] for line in lines[1:5]] == [
        *("level1_first", "level2_second", "level10_last", "level2_second-config_long"),
    ]
    assert {line.index(" %") for line in lines[1:5]} == {lines[1].index(" %")}
    assert f"+15.0 ({low:+.1f} to {high:+.1f}) over level1 gain" in " ".join(lines[2].split())
    assert not set("[]|&") & set("".join(lines[:-1])), "a terminal shows no Markdown"
    assert lines[-1] == str(tmp_path / "README.md")
    assert (tmp_path / "ladder.svg").stat().st_size > 5000


def test_every_seed_stands_with_mean_deviation_and_verdict(tmp_path):
    for seed, right in enumerate((800, 820, 870)):
        leave(tmp_path, n=1000, right=right, seed=seed)
    for seed, right in enumerate((830, 822, 860)):
        leave(tmp_path, n=1000, level="level2_second", right=right, seed=seed)
    for seed, right in ((0, 850), (3, 860)):
        leave(tmp_path, n=1000, level="level3_third", right=right, seed=seed)
    leave(tmp_path, n=1000, level="level4_fourth", right=900)
    first, second, third = page(tmp_path)["Seeds"]
    assert first == {
        "level": "[level1_first](level1_first-config-0/report.md)",
        "seeds": "0, 1, 2",
        "test accuracy, %": "80.00, 82.00, 87.00",
        "mean, %": "83.00",
        "sd, points": "3.61",
        "gain, points": "",
        "verdict": "",
    }
    assert second["mean, %"] == "83.73" and second["sd, points"] == "2.00"
    assert second["gain, points"] == "+3.00, +0.20, -1.00"
    assert second["verdict"] == "gain, not shown, loss"
    assert third["seeds"] == "0, 3"
    assert (third["gain, points"], third["verdict"]) == ("+2.00, -", "gain, -")


def test_what_each_ingredient_is_worth(tmp_path):
    for seed in (0, 1):
        about = {"n": 1000, "level": "level2_second", "seed": seed}
        leave(tmp_path, right=850 + seed, **about)
        leave(tmp_path, right=848, skip=12, config="without_layer3_tap", **about)
    quick = leave(tmp_path, n=1000, level="level4_last", right=900, tta="flip", single=890)
    rows = page(tmp_path)[WORTH]
    assert [(linked(row["ingredient"]), row["level"], row["seed"]) for row in rows] == [
        *(
            (("layer3 tap", f"level2_second-without_layer3_tap-{seed}/report.md"), level, str(seed))
            for seed, level in enumerate(["level2_second"] * 2)
        ),
        (
            *(("test-time augmentation (flip)", "level4_last-config-0/report.md"), "level4_last"),
            "0",
        ),
    ]
    tap, _, tta = rows
    assert (tap["without"], tap["with"]) == ("84.8 %", "85.0 %")
    assert (tap["fixed / broken"], tap["verdict"]) == ("12 / 10", "not shown")
    assert tap["cost"] == "3 min 20 s instead of 3 min 20 s"
    assert (tta["without"], tta["with"]) == ("89.0 %", "90.0 %")
    assert (tta["fixed / broken"], tta["p"], tta["verdict"]) == ("10 / 0", "0.002", "gain")
    assert tta["cost"] == "2.0 s instead of 1.0 s of testing"

    labels, logits, single = made_up(n=1000, right=900, tta="flip", single=890)[2:5]
    worth = compare(labels, single, logits.argmax(1))
    low, high = worth["interval"]
    assert tta["worth, points"] == f"+1.0 ({100 * low:+.1f} to {100 * high:+.1f})"
    assert quick["test"]["correct"] - quick["test_single"]["correct"] == worth["fixed"]

    lines = write_ladder(tmp_path).split("\n\n")[1].splitlines()
    assert lines[0].split()[:2] == ["ingredient", "level"] and len(lines) == 5
    assert max(map(len, lines[:-1])) <= 80, "a terminal's usual width"
    assert lines[1].startswith("layer3 tap ") and lines[3].endswith("gain")
    text = (tmp_path / "README.md").read_text()
    assert "Other configs" not in text, "an ablation is no config of its own"
    assert "for test-time augmentation, over a single pass" in text


def test_an_ingredient_is_not_weighed_against_another_run(tmp_path):
    def elsewhere(metrics):
        metrics["data"]["split"] = "6" * 64
        return metrics

    config = "without_augmentation"
    leave(tmp_path, level="level2_second", right=90, config=config, change=elsewhere)
    leave(tmp_path, level="level3_third", right=80, config=config)
    for level in ("level2_second", "level3_third"):
        leave(tmp_path, level=level, right=92, seed=int(level == "level3_third"))
    for row, without in zip(page(tmp_path)[WORTH], ("90.0 %", "80.0 %"), strict=True):
        assert row["without"] == without
        assert list(row) == ["ingredient", "level", "seed", "without"]


def test_the_ladder_says_where_runs_differ(tmp_path):
    def elsewhere(metrics):
        metrics["weights"] = {"name": "other.pth", "sha256": None}
        metrics["image_size"] = 96
        return metrics

    leave(tmp_path, level="level1_first", right=80)
    leave(tmp_path, level="level2_second", right=85, change=elsewhere)
    leave(tmp_path, level="level3_third", right=86)
    leave(tmp_path, level="level2_second", right=84, change=elsewhere)  # run again
    rows = page(tmp_path)[""]
    assert [row["note"] for row in rows] == [
        "",
        "other weights: other.pth; other image size: 96 px",
        "the level below has changed since this run",
    ]
    # ... and the gain is to the figure in the row above.
    gains = [row["gain, points"].split() for row in rows[1:]]
    assert [(gain[0], gain[-1]) for gain in gains] == [("+4.0", "level1"), ("+2.0", "level2")]


def test_no_reports_no_ladder(tmp_path):
    with pytest.raises(UserError, match="no reports here"):
        write_ladder(tmp_path)


def test_nothing_to_ablate_is_said(tmp_path, monkeypatch):
    (tmp_path / "level1_first").mkdir()
    for name in ("run.py", "config.yaml"):
        (tmp_path / "level1_first" / name).touch()
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["course", "--ablate", "--offline"])
    with pytest.raises(UserError, match="--ablate: no level"):
        course.main()


def test_ablations_alone_make_a_page(tmp_path):
    leave(tmp_path, level="level2_second", right=90, config="without_augmentation")
    assert write_ladder(tmp_path).splitlines()[1].startswith("augmentation  level2_second")
    assert len(tables((tmp_path / "README.md").read_text())) == 2


def test_the_ladder_shows_levels_intervals_and_gains():
    rows = [
        {"level": "level1_first", "accuracy": 0.8},
        {"level": "level2_second", "accuracy": 0.85, "gain": 0.05, "verdict": "gain"},
        {"level": "level3_third", "accuracy": 0.849, "gain": -0.0002, "verdict": "not shown"},
        {"level": "level4_last", "accuracy": 0.8, "gain": -0.049, "verdict": "loss"},
    ]
    rows = [row | {"low": row["accuracy"] - 0.01, "high": row["accuracy"] + 0.01} for row in rows]
    axes = plots.ladder(rows).axes[0]
    (marks,) = (line for line in axes.lines if line.get_label() == "test accuracy")
    np.testing.assert_allclose(marks.get_ydata(), [80, 85, 84.9, 80])
    np.testing.assert_allclose(axes.collections[0].get_segments()[0], [[0, 79], [0, 81]])
    texts = {text.get_text(): text for text in axes.texts}
    gains = ["+5.0", "-0.02\nnot shown", "-4.9"]
    assert list(texts) == ["80.0", "85.0", "84.9", *gains]
    assert [texts[name].get_fontweight() for name in gains] == ["bold", "normal", "bold"]
    renderer = draw(axes.figure)
    boxes = [texts[name].get_window_extent(renderer) for name in gains]
    ways = [line for line in axes.lines if line is not marks]
    for line, box in itertools.product(ways, boxes):
        ends = axes.transData.transform(line.get_xydata())
        assert not any(box.contains(*place) for place in np.linspace(*ends, 50)), "room for a gain"
    assert axes.get_xticklabels()[1].get_text() == "level2\nsecond"
