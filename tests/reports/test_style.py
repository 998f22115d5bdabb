"""Pictures as files: they show on a light and on a dark ground, and are the same bytes twice."""

import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from common.reports.figures import album, charts, diagnostics, galleries, plots, style
from helpers.reports import NASTY, leave, made_up, run_of

GROUNDS = "#ffffff", "#f5f6f8", "#1e2226", "#14171a", "#0d1117"  # the page's, GitHub's


def a_run(tmp_path, **about):
    metrics, history, *rest, _ = made_up(**about)
    metrics["settings"]["train"] = {
        **{"lr": 1e-4, "head_lr": 1e-3, "batch_size": 100, "epochs": 3},
        "schedule": "cosine",
    }
    return run_of(tmp_path, metrics, history, *rest)


def all_charts(tmp_path):
    """Every chart that the project draws, by a name of its own."""
    below, run = a_run(tmp_path), a_run(tmp_path, level="level2_second", right=85)
    labels = np.arange(4000) % 40
    rows = [
        {"level": f"level{i}_x", "accuracy": a, "low": a - 0.02, "high": a + 0.02, "benchmark": 0.8}
        | {"gain": 0.1, "verdict": verdict}
        for i, a, verdict in ((1, 0.7, "gain"), (2, 0.8, "not shown"))
    ]
    compared = [
        {"config": f"{kind} {i}", "strategy": kind, "seconds": 10.0**i, "test_accuracy": 0.2 * i}
        for kind in ("ladder", "scratch", "transfer")
        for i in (1, 2, 3)
    ]
    speed = {"ours_s": 1.0, "plain_s": 3.0, "ratio": 3.0}
    grown = [{"pictures": i, "image_size": i, "s": 2.0 * i} for i in (1, 2)]
    growth = {"level": "level2_x", "pictures": grown, "image_size": grown}
    gap = {"config": "a", "train_accuracy": 0.9, "test_accuracy": 0.8}
    levels = {"level1_x": speed, "level2_x": speed}
    features = np.random.default_rng(0).normal(size=(4000, 2))
    classes = [f"c {i}" for i in range(40)]
    return album.draw(run, below) | {
        "ladder": plots.ladder(rows),
        "large confusion": plots.confusion_matrix(labels, (labels * 7) % 40, classes),
        "feature plane": diagnostics.feature_plane(features[:40], labels[:40], classes),
        "speed": charts.speed({"levels": levels, "image_size": 64, "growth": growth}),
        "sweep": charts.learning_rates(np.geomspace(1e-6, 1, 9), np.arange(9.0), 1e-3, 1e-2),
        "over time": charts.accuracy_over_time(compared),
        "gaps": charts.gaps([gap, gap], [run.history] * 2),
    }


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("charts")
    return [
        {name: style.file_of(figure) for name, figure in all_charts(folder).items()}
        for _ in range(2)
    ]


def test_charts_are_vectors_and_the_same_bytes_twice(drawn):
    first, second = drawn
    expected = {"training_curves", "learning_rate", "reliability", "confusion_matrix"}
    assert expected | {"class_gains", "ladder", "speed"} <= set(first)
    assert {suffix for suffix, _ in first.values()} == {".svg"}
    assert first == second


def test_no_chart_has_a_ground_or_an_ink_of_its_own(drawn):
    """Its colours are those that have contrast on every ground; white stands on blue alone."""
    fine = {colour.lower() for colour in (*diagnostics.COLOURS, style.GREEN)} | {"none"}
    for name, (_, content) in drawn[0].items():
        text = content.decode()
        rules, text = text.split("</style>", 1)
        styles = dict(re.findall(r"\.(c\d+){([^}]*)}", rules))
        assert f"svg{{color:{style.INK}}}" in rules, name
        assert f"(prefers-color-scheme:dark){{svg{{color:{style.LIGHT_INK}}}" in rules, name
        assert "<image" not in text and 'href="http' not in text, name
        assert "date" not in text.lower().replace("updated", ""), name
        for element in ElementTree.fromstring(content).iter():
            own = dict(re.findall(r"(fill|stroke): ([^;]+)", styles.get(element.get("class"), "")))
            assert not {"style", "fill", "stroke"} & {*element.keys()}, name
            if element.tag.endswith("}text"):
                allowed = {"currentColor"} | ({"#ffffff"} if name == "confusion_matrix" else set())
                assert own.get("fill") in allowed, (name, element.text, own)
            else:
                assert set(own.values()) <= fine | {"currentColor"}, (name, own)


def luminance(colour):
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    """WCAG 2's."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def test_colours_have_contrast_on_both_grounds():
    for colour in (*diagnostics.COLOURS, style.GREEN):
        assert all(contrast(colour, ground) >= 3 for ground in GROUNDS), colour
    for ground in GROUNDS:
        assert max(contrast(ink, ground) for ink in (style.INK, style.LIGHT_INK)) > 12
    assert contrast(style.INK, "#ffffff") > 12 and contrast(style.LIGHT_INK, "#0d1117") > 12


def test_text_stays_text_and_harms_no_picture(tmp_path):
    """Also where a class is called like the ink, or like a place in a path."""
    classes = [*NASTY, style.INK, 'd="1.23456"', "\x00\x1b", "\uffff"]
    labels = np.arange(100) % 10
    content = style.svg(plots.confusion_matrix(labels, labels, classes))
    said = {"".join(e.itertext()) for e in ElementTree.fromstring(content).iter() if e.text}
    assert {style.INK, 'd="1.23456"', "<b>bold</b>", "$x$"} <= said


def test_a_sheet_of_pictures_has_all_its_colours():
    ramp = np.arange(64, dtype=np.uint8)
    image = np.stack([*np.meshgrid(ramp * 4, ramp * 4), np.full((64, 64), 99)]).astype(np.uint8)
    figure = galleries.contact_sheet(image[None].repeat(4, 0), np.arange(4), ["a", "b", "c", "d"])
    suffix, content = style.file_of(figure)
    with Image.open(io.BytesIO(content)) as sheet:
        assert suffix == ".webp" and sheet.format == "WEBP"
        colours = sheet.convert("RGB").getcolors(10**6)
        corner = sheet.convert("RGB").getpixel((0, 0))
    assert len(colours) > 2000
    assert (
        np.abs(np.subtract(corner, [int(style.PAPER[i : i + 2], 16) for i in (1, 3, 5)])).max() < 4
    )
    with Image.open(io.BytesIO(style.png(figure))) as sheet:
        assert sheet.format == "PNG" and sheet.mode == "RGB"
        assert len(sheet.getcolors(10**6)) > 2000


def test_plain_squares_are_kept_without_loss():
    weights = np.random.default_rng(0).integers(0, 2, (16, 3, 4, 4)).astype(float)
    with Image.open(io.BytesIO(style.webp(galleries.filters(weights)))) as sheet:
        pixels = np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(pixels) == 8 + 1, "black, white, the six between, and the ground"


def test_a_rate_that_never_changes_is_not_drawn(tmp_path):
    run = a_run(tmp_path)
    assert list(album.learning_rates(run)[0]) == ["head", "layer4"]
    assert "learning_rate" in album.draw(run, None)
    run.metrics["settings"]["train"]["schedule"] = "constant"
    assert "learning_rate" not in album.draw(run, None)
    run.metrics["settings"]["train"]["schedule"] = {"gradual": {"epochs": 2}}
    assert "learning_rate" in album.draw(run, None), "layer4 joins later"


def test_each_trained_part_has_its_own_rate(tmp_path):
    run = a_run(tmp_path)
    train = run.metrics["settings"]["train"]
    train["schedule"] = {"gradual": {"epochs": 2, "layer_decay": 0.5}}
    rates, steps = album.learning_rates(run)
    np.testing.assert_allclose(rates["head"], 1e-3)
    np.testing.assert_allclose(rates["layer4"], [np.nan] * 2 * steps + [0.5e-4] * steps)
    train["head_lr"] = None
    np.testing.assert_allclose(album.learning_rates(run)[0]["head"], 1e-4)


def test_earlier_pictures_are_shown_until_they_are_drawn_anew(tmp_path):
    leave(tmp_path, "old")
    run, folder = a_run(tmp_path), tmp_path / "old"
    for file in folder.glob("*.[sw]*"):
        file.unlink()
    for name in ("training_curves", "contact_sheet", "learning_rate", "mistakes"):
        (folder / f"{name}.png").write_bytes(b"old")
    (folder / "mistakes.webp").write_bytes(b"new")
    assert album.there(folder) == {
        **{name: f"{name}.png" for name in ("contact_sheet", "training_curves", "learning_rate")},
        "mistakes": "mistakes.webp",
    }
    run.metrics["settings"]["train"]["schedule"] = "constant"
    album.save(album.draw(run, None), folder, instead_of=album.OF_FIGURES)
    there = album.there(folder)
    assert there["training_curves"] == "training_curves.svg" and "learning_rate" not in there
    assert there["contact_sheet"] == "contact_sheet.png"
    assert not (folder / "training_curves.png").exists()
