"""The page over all reports in a real browser: by mouse, by keyboard, on a phone."""

import io

import numpy as np
import pytest
from PIL import Image

from common.reports import gallery
from helpers.browser import Watched, browser, screenshot
from helpers.projects import NAMES
from helpers.reports import own_runs

AFTER = ["Diagnostics", "What changed", "All runs", "Where it comes from"]

pytestmark = pytest.mark.xdist_group("page")  # one process makes what they share


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture
def page(chromium, coursed):
    watched = Watched(chromium, (coursed.reports / "index.html").as_uri())
    yield watched
    watched.context.close()
    assert watched.errors == [] and watched.requests == []


def test_the_page_opens_and_its_sections_are_reached(page):
    headings = page.page.locator("h2").all_text_contents()
    assert headings == ["The ladder", *NAMES, *AFTER]
    for link in page.page.locator("nav a").all():
        link.click()
        target = page.page.locator(link.get_attribute("href"))
        assert target.bounding_box()["y"] < 200 or page.page.evaluate(
            "scrollY + innerHeight >= document.documentElement.scrollHeight - 2"
        )
    screenshot(page.page, "page")


def test_the_table_sorts_by_mouse_and_keyboard(page):
    table = page.page.locator("table.sortable")

    def column(i):
        return table.locator(f"tbody td:nth-child({i + 1})").evaluate_all(
            "cells => cells.map((cell) => cell.dataset.sort)"
        )

    header = table.locator("th").nth(2)
    header.locator("button").click()
    values = list(map(float, column(2)))
    assert values == sorted(values, reverse=True)
    assert header.get_attribute("aria-sort") == "descending"
    header.locator("button").focus()
    page.page.keyboard.press("Enter")
    assert list(map(float, column(2))) == sorted(values)
    assert header.get_attribute("aria-sort") == "ascending"
    table.locator("th button").nth(6).click()
    assert column(6)[-1] == "", "what has no gain stands last"
    assert header.get_attribute("aria-sort") is None


def test_pictures_enlarge_by_mouse_and_keyboard(page):
    button, dialog = page.page.locator("button.zoom").nth(1), page.page.locator("dialog")
    button.click()
    assert dialog.is_visible()
    assert dialog.locator("img").get_attribute("alt") == button.locator("img").get_attribute("alt")
    page.page.keyboard.press("Escape")
    assert not dialog.is_visible()
    button.focus()
    page.page.keyboard.press("Enter")
    assert dialog.is_visible()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()
    assert page.page.evaluate("document.activeElement.className") == "zoom"


def test_what_changed_shows_both_answers(page, coursed):
    runs = {run.level: run for run in own_runs(coursed.reports)}
    shown = gallery.load(coursed.reports / "gallery.npz", list(runs.values()))
    labels = runs[NAMES[0]].labels
    right = {name: run.predictions == labels for name, run in runs.items()}
    page.page.locator("#from").select_option(NAMES[0])
    page.page.locator("#to").select_option(NAMES[3])
    for kind, chosen in (
        ("fixed", ~right[NAMES[0]] & right[NAMES[3]]),
        ("broken", right[NAMES[0]] & ~right[NAMES[3]]),
        ("wrong", ~right[NAMES[0]] & ~right[NAMES[3]]),
        ("all", np.ones(len(labels), bool)),
    ):
        page.page.locator("#kind").select_option(kind)
        cards, more = page.page.locator("#changes > li"), page.page.locator("#more")
        count = chosen[shown.positions].sum()
        assert cards.count() == min(6, count) and more.is_visible() == (count > 6)
        if count > 6:
            more.click()
            assert cards.count() == count and not more.is_visible()
    fixed = int((~right[NAMES[0]] & right[NAMES[3]]).sum())
    assert f"{NAMES[3]} has {fixed} right that {NAMES[0]} has wrong" in (
        page.page.locator("#counts").text_content()
    )
    first = cards.first.text_content()
    i = shown.positions[0]
    for name in (NAMES[0], NAMES[3]):
        answer = runs[name].classes[runs[name].predictions[i]]
        assert f"{answer}, {round(100 * runs[name].probabilities[i].max())} %: " in first
    page.page.locator("#kind").focus()
    page.page.keyboard.press("Home")
    assert page.page.locator("#kind").input_value() == "fixed"
    page.page.locator("#kind").select_option("all")
    assert cards.first.locator("canvas").first.evaluate(
        """(canvas) => new Set(canvas.getContext("2d").getImageData(0, 0, 99, 99).data).size > 3"""
    ), "a picture is drawn"
    pixels = "(canvas) => canvas.getContext('2d').getImageData(0, 0, 99, 99).data.join()"
    plain, *lit = (canvas.evaluate(pixels) for canvas in cards.first.locator("canvas").all())
    assert len(lit) == 2 and plain not in lit, "beside the picture, where each level looked"
    page.page.locator("#maps").uncheck()
    assert cards.first.locator("canvas").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_scrolls_sideways_and_axe_is_content(chromium, coursed, scheme):
    address = (coursed.reports / "index.html").as_uri()
    size = {"width": 375, "height": 740}
    phone = Watched(chromium, address, viewport=size, color_scheme=scheme)
    phone.page.locator("details").evaluate_all("all => all.forEach((d) => (d.open = true))")
    assert phone.overflow() <= 0
    assert phone.serious() == []
    screenshot(phone.page, f"phone-{scheme}")
    phone.context.close()


def test_charts_follow_the_scheme_and_pictures_stand_as_large_as_they_are(chromium, coursed):
    """The same file: dark ink on the page's light ground, light ink on its dark one."""
    address, ends = (coursed.reports / "index.html").as_uri(), {}
    for scheme in ("light", "dark"):
        watched = Watched(chromium, address, color_scheme=scheme)
        chart = watched.page.locator("#ladder img")
        with Image.open(io.BytesIO(chart.screenshot())) as shot:
            grey = np.asarray(shot.convert("L"))
        ends[scheme] = grey[0, 0], grey.min(), grey.max()
        sizes = watched.page.locator("section:not([hidden]) figure img").evaluate_all(
            "all => all.filter((i) => i.width).map((i) => [i.width, i.naturalWidth])"
        )
        assert all(0.9 * natural <= shown <= natural + 1 for shown, natural in sizes)
        watched.context.close()
    (ground, darkest, _), (dark_ground, _, lightest) = ends["light"], ends["dark"]
    assert ground > 230 and darkest < 60
    assert dark_ground < 60 and lightest > 200
