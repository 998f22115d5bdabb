"""Pictures of what tools measure: names that can be read, axes that say what they show."""

import itertools

import numpy as np
import pytest

from common.reports import comparison
from common.reports.figures import charts
from common.reports.store import Reports
from helpers.reports import draw, leave


def row(config, strategy, seconds, accuracy):
    return {
        **{"config": config, "strategy": strategy},
        **{"seconds": seconds, "test_accuracy": accuracy},
    }


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_names_of_systems_cover_neither_each_other_nor_points_nor_the_line(spread):
    """As close as levels of about the same time and accuracy are."""
    places = [(120, 0.786), (400, 0.860), (407, 0.8545), (420 + 370 * spread, 0.885)]
    rows = [row(f"level{i}_of_a_long_name", "ladder", *at) for i, at in enumerate(places, 1)]
    rows += [row("cnn_small", "scratch", 190, 0.82), row("cnn", "scratch", 500, 0.84)]
    rows += [row("missing", "transfer", None, None)]
    figure = charts.accuracy_over_time(rows)
    renderer, (axes,) = draw(figure), figure.axes
    names = [text for text in axes.texts if text.get_text()]
    assert [name.get_text() for name in names] == [r["config"] for r in rows[:-1]]
    boxes = [name.get_window_extent(renderer) for name in names]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    ladder = axes.lines[0]
    assert ladder.get_linestyle() == "-" and ladder.get_xdata() == pytest.approx(
        [seconds for seconds, _ in places]
    )
    points = axes.transData.transform([(r["seconds"], 100 * r["test_accuracy"]) for r in rows[:-1]])
    line = [np.linspace(*ends, 50) for ends in itertools.pairwise(points[: len(places)])]
    for box in boxes:
        assert not any(box.contains(*place) for place in [*points, *np.concatenate(line)])


def test_a_levels_time_includes_that_of_what_it_starts_from(tmp_path):
    def start(level, folder=None):
        def change(metrics):
            network = {"arch": "resnet18", "trainable": ["head"], "taps": None}
            network["start_from"] = level
            own = {"started_from": folder, "seconds": 10.0 * int(metrics["level"][5])}
            return metrics | own | {"settings": {"network": network}}

        return change

    leave(tmp_path, "level1_a", level="level1_a", change=start(None))
    leave(tmp_path, "level2_b", level="level2_b", change=start(None))
    leave(tmp_path, "level2_b-long", level="level2_b", config="long", change=start("level1_a"))
    leave(tmp_path, "level3_c", level="level3_c", change=start("level2_b", "level2_b-long"))
    leave(tmp_path, "level4_d", level="level4_d", change=start("level3_c"))
    reports = Reports.read(tmp_path)
    found = {run.folder.name: reports.seconds(run) for run in reports.runs}
    assert found == {
        **{"level1_a": 10, "level2_b": 20, "level2_b-long": 30},
        **{"level3_c": 60, "level4_d": 100},
    }
    rows = {row["config"]: row["seconds"] for row in comparison.ladder_rows(reports)}
    assert rows == {"level1_a": 10, "level2_b": 20, "level3_c": 60, "level4_d": 100}


def test_the_benchs_axes_say_seconds_and_which_level_grows():
    speed = {"ours_s": 50.0, "plain_s": 90.0, "ratio": 1.8}
    grown = [{"pictures": i, "image_size": i, "s": 2.0 * i} for i in (1, 2)]
    growth = {"level": "level2_augmentation", "pictures": grown, "image_size": grown}
    levels = {f"level{i}_x": speed for i in (1, 2, 3)}
    figure = charts.speed({"levels": levels, "image_size": 64, "growth": growth})
    renderer, (bars, *growing) = draw(figure), figure.axes
    assert bars.get_xlabel() == "seconds"
    for axes in growing:
        assert axes.get_ylabel() == "seconds" and "level2" in axes.get_title(loc="left")
    legend = figure.legends[0].get_window_extent(renderer)
    assert not any(legend.overlaps(axes.get_window_extent(renderer)) for axes in figure.axes)
    assert [text.get_text() for text in bars.texts] == ["1.8 times faster"] * 3
