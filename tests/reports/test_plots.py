"""The pictures of a report: what is drawn is what the arrays say, and is seen."""

import numpy as np
import pytest

from common.reports.figures import galleries, plots
from helpers.reports import cells, draw, made_up, pictures


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
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said == {(0.5, 0.5): "67", (1.5, 0.5): "33", (1.5, 1.5): "100"}, "blank: never"
    shaded = {
        tuple(corners.mean(0)): patch.get_label()
        for patch in axes.patches
        for corners in patch.get_path().to_polygons(closed_only=False)
        for corners in [corners[:4]]
    }
    assert shaded == {(0.5, 0.5): "to 80 %", (1.5, 0.5): "to 40 %", (1.5, 1.5): "to 100 %"}


def test_a_rare_confusion_is_no_zero():
    labels = np.zeros(200, int)
    axes = plots.confusion_matrix(labels, np.r_[1, labels[1:]], ["a", "b"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["100", "<1"], "half a percent"


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
    assert count == 100 or names[1].get_text().endswith("1")
    boxes = [name.get_window_extent(renderer) for name in names]
    width, height = figure.canvas.get_width_height()
    for box in [*boxes, *(part.get_tightbbox(renderer) for part in figure.axes)]:
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height + 1
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in zip(boxes, boxes[1:], strict=False))


def test_a_contact_sheet_names_each_picture():
    images, labels = pictures(11)
    classes = ["$5$ note", "fourteen chars", "thirteen char", *"defghij"]
    figure = galleries.contact_sheet(images, labels, classes, columns=4)
    renderer = draw(figure)
    shown, _, below, _ = cells(figure)
    for picture, image, label, name in zip(shown, images, labels, below, strict=True):
        assert picture.dtype == np.uint8 and (picture == image.transpose(1, 2, 0)).all()
        assert name == (classes[label] if label != 1 else "fourteen cha…")

    width, height = figure.canvas.get_width_height()
    (axes,) = figure.axes
    boxes, names = (
        [part.get_window_extent(renderer) for part in parts]
        for parts in (axes.images, axes.texts[1::2])
    )
    assert all(b.x0 >= 0 and b.x1 <= width and b.y0 >= 0 and b.y1 <= height for b in boxes + names)
    for upper, lower in zip(names[:7], boxes[4:], strict=True):
        assert upper.y0 >= lower.y1, "a name does not run into the picture below it"
