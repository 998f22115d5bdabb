"""Pictures beyond curves: what is drawn is what the arrays say."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from common.evaluation.statistics import calibration_error, compare
from common.models import StagedNetwork
from common.reports import gallery
from common.reports.figures import diagnostics, galleries, plots, style
from common.reports.figures.album import left_out
from helpers.networks import Means, small_backbone, small_network, small_splits
from helpers.reports import cells, draw, pictures


def test_reliability_draws_confidence_against_the_share_right():
    """Those on the edge of two bins, 0.7 here, belong to the lower one, as in the error's bins."""
    confidence = np.array([0.61, 0.65, 0.7, 0.95, 1.0, *[0.55] * 12])
    labels = np.array([0, 1, 1, 0, 0, *[0] * 9, *[1] * 3])
    probabilities = np.stack([confidence, 1 - confidence], 1)
    upper, lower = diagnostics.reliability(probabilities, labels, bins=10).axes
    many, few = np.split(np.array([bar.get_height() for bar in upper.patches]), 2)
    assert many == pytest.approx([0, 0, 0, 0, 0, 0.75, 0, 0, 0, 0]), "ten pictures and more"
    assert few == pytest.approx([0, 0, 0, 0, 0, 0, 1 / 3, 0, 0, 1])
    middles = [bar.get_x() + bar.get_width() / 2 for bar in upper.patches[:10]]
    assert middles == pytest.approx(np.arange(10) / 10 + 0.05)
    points = upper.lines[1]
    seen = np.isfinite(points.get_ydata())
    assert points.get_xdata()[seen] == pytest.approx([0.55, 0.65333333, 0.975])
    assert points.get_ydata()[seen] == pytest.approx([0.75, 1 / 3, 1])
    assert [bar.get_height() for bar in lower.patches] == [0, 0, 0, 0, 0, 12, 3, 0, 0, 2]
    error = calibration_error(probabilities, labels, bins=10)
    gaps = np.abs(points.get_xdata() - points.get_ydata())[seen]
    assert np.average(gaps, weights=[12, 3, 2]) == pytest.approx(error)


@pytest.mark.parametrize("count", [4, 30])
def test_class_gains_are_those_of_each_class(count):
    rng = np.random.default_rng(0)
    labels = np.arange(40 * count) % count
    below, own = (
        np.where(rng.random(len(labels)) < p, labels, (labels + 1) % count) for p in (0.5, 0.6)
    )
    classes = [f"class {i}" for i in range(count)]
    (axes,) = diagnostics.class_gains(labels, below, own, classes, "level1_first").axes
    assert "level1_first" in axes.get_title(loc="left")
    names = [text.get_text() for text in axes.get_yticklabels()]
    colours = {bar.get_facecolor() for bar in axes.patches}
    assert len(colours) == 2, "some gain, some lose"
    bottom, top = axes.get_ylim()
    assert bottom < top, "the largest gain is on top"
    assert len(names) == min(count, 20)
    for name, bar in zip(names, axes.patches, strict=True):
        chosen = labels == classes.index(name)
        gain = compare(labels[chosen], below[chosen], own[chosen])["gain"]
        assert bar.get_width() == pytest.approx(100 * gain)
        assert bar.get_facecolor() == pytest.approx(
            to_rgba(style.GREEN if gain >= 0 else style.VERMILLION)
        )


def test_the_pictures_of_an_own_head_without_a_linear_layer():
    """An own level's page shows the others, and says which one is left out."""
    network = StagedNetwork(small_backbone(16), Means(), ["c"], ["c"])
    found = gallery.close_ups(network, small_splits(size=16).test)
    assert set(found) == {"feature_maps", "filters"}
    assert "plane of last features is left out" in left_out(list(found))
    assert left_out([*found, "feature_plane"]) == ""
    assert left_out(["reliability"]).startswith("Pictures of test images are left out")
    usual = gallery.close_ups(small_network(size=16), small_splits(size=16).test)
    assert set(usual) == {*found, "feature_plane"}


def test_rates_are_drawn_by_epoch():
    head, stage = np.array([1e-3, 2e-3, 3e-3, 1e-3]), np.array([1e-4, 2e-4, 3e-4, 1e-4])
    parts = {"head": head, "layer4": stage, "layer3": stage.copy()}
    (axes,) = diagnostics.rates(parts, steps=2).axes
    assert [line.get_label() for line in axes.lines] == ["head", "layer4, layer3"]
    for line, values in zip(axes.lines, (head, stage), strict=True):
        assert line.get_xdata() == pytest.approx([0.5, 1, 1.5, 2])
        assert line.get_ydata() == pytest.approx(values)


def test_the_plane_of_features_has_a_mark_a_class():
    features, labels = np.random.default_rng(0).normal(size=(12, 2)), np.arange(12) % 3
    figure = diagnostics.feature_plane(features, labels, ["a", "b", "c"])
    (axes,) = figure.axes
    for i, line in enumerate(axes.lines):
        assert np.array_equal(line.get_xydata(), features[labels == i])
    assert len({(line.get_marker(), line.get_color()) for line in axes.lines}) == 3


@pytest.mark.parametrize(("count", "first"), [(10, "class 0"), (25, "class 0 to class 2")])
def test_the_plane_of_features_tells_ten_groups_apart(count, first):
    """By colour alone and by marker alone; no picture is left out."""
    labels = np.arange(4 * count) % count
    features = np.random.default_rng(0).normal(size=(len(labels), 2))
    classes = [f"class {i}" for i in range(count)]
    (axes,) = diagnostics.feature_plane(features, labels, classes).axes
    assert len({line.get_color() for line in axes.lines}) == 10
    assert len({line.get_marker() for line in axes.lines}) == 10
    assert sum(len(line.get_xydata()) for line in axes.lines) == len(labels)
    assert axes.lines[0].get_label() == first


def test_classes_that_are_confused_stand_side_by_side():
    count = 30
    partner = np.arange(count) ^ 1  # 0 with 1, 2 with 3 ...
    shuffled = np.random.default_rng(0).permutation(count)
    counts = np.zeros((count, count), int)
    for i in range(count):
        counts[shuffled[i], shuffled[i]] = 60
        counts[shuffled[i], shuffled[partner[i]]] = 40
    place = np.argsort(plots.similar_first(counts))
    assert sorted(place) == list(range(count))
    assert all(abs(place[shuffled[i]] - place[shuffled[partner[i]]]) == 1 for i in range(count))


def test_an_overlay_is_lit_where_the_map_is():
    image, places = np.full((3, 8, 8), 100, np.uint8), np.zeros((2, 2))
    places[0, 0] = 1
    lit = galleries.overlay(image, places, 32)
    assert lit.shape == (32, 32, 3) and lit.dtype == np.uint8
    assert lit[0, 0].sum() > lit[31, 31].sum() + 100
    assert (galleries.overlay(image, None, 16) == 100).all()
    assert galleries.overlay(np.zeros((3, 4, 8), np.uint8), None, 16).shape == (8, 16, 3)


def test_galleries_say_truth_and_answer():
    images, labels = pictures(8)
    truths, lines = [f"truth {i}" for i in labels], [f"answer {i}" for i in labels]
    figure = galleries.answers(images, truths, lines, columns=3)
    draw(figure)
    shown, above, below, _ = cells(figure)
    assert (above, below) == (truths, lines)
    for one, image in zip(shown, images, strict=True):
        assert np.array_equal(one, image.transpose(1, 2, 0))

    levels = {"level1_first": lines, "level2_second": truths}
    figure = galleries.changes(images, truths, levels, [1, 2, 5], [7], columns=2)
    draw(figure)
    _, above, below, names = cells(figure)
    assert above == [truths[i] for i in (1, 2, 5, 7)]
    assert below[0] == f"level 1: {lines[1]}\nlevel 2: {truths[1]}"
    assert [name for name in names if name] == ["fixed", "broken"]

    levels = {"level1_a": (None, lines), "level2_b": (np.ones((8, 2, 2)), truths)}
    figure = galleries.side_by_side(images, truths, levels)
    draw(figure)
    _, above, below, _ = cells(figure)
    assert len(above) == 24
    assert above[:4] == ["picture", "level1\na", "level2\nb", ""]
    assert below[:3] == [truths[0], lines[0], truths[0]]


def test_stages_and_filters_are_drawn_whole():
    image = pictures(1)[0][0]
    stages = {"stem": np.ones((3, 4, 4)), "layer1": np.zeros((2, 2, 2))}
    figure = galleries.feature_maps(image, stages)
    draw(figure)
    shown, _, _, names = cells(figure)
    assert len(shown) == 1 + 3 + 2 and names == ["picture", "stem", "layer1"]
    (axes,) = figure.axes
    tops = [place.get_extent()[3] for place in axes.images]
    heights = [text.get_position()[1] for text in axes.texts if text.get_rotation()]
    for name, rows in zip(heights, ([0], [1, 2, 3], [4, 5]), strict=True):
        below = [top for top in tops if top > name]
        assert all(tops[i] < name for i in rows) and len(below) == len(tops) - rows[-1] - 1
    weights = np.random.default_rng(0).normal(size=(70, 3, 3, 3))
    figure = galleries.filters(weights)
    draw(figure)
    drawn = cells(figure)[0]
    assert len(drawn) == 64
    assert all(a.min() == 0 and a.max() == pytest.approx(1) for a in drawn)
