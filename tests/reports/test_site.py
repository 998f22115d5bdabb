"""The page over all reports: its figures, its galleries, and what it says without them."""

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from common import cli
from common.reports import gallery, page
from common.reports.store import Reports
from common.reports.text import duration, percent, points
from common.utils.errors import UserError
from common.utils.files import read_npz
from helpers.projects import NAMES, inside
from helpers.reports import build_page, leave, own_runs


class Cells(HTMLParser):
    """The rows of the sortable table: (text, data-sort) a cell."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.inside, self.cell = [], False, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "table":
            self.inside = "sortable" in attributes.get("class", "")
        if self.inside and tag == "tr":
            self.rows.append([])
        if self.inside and tag == "td":
            self.rows[-1].append(["", attributes["data-sort"]])
        self.cell = tag == "td"

    def handle_endtag(self, tag):
        self.cell = self.cell and tag != "td"

    def handle_data(self, data):
        if self.inside and self.cell:
            self.rows[-1][-1][0] += data


def test_every_figure_on_the_page_is_that_of_metrics_json(coursed):
    text = (coursed.reports / "index.html").read_text(encoding="utf-8")
    rows = {row[0][0]: row for row in Cells(text).rows if row}
    assert list(rows) == NAMES
    taken = {run.folder.name: run.metrics["seconds"] for run in own_runs(coursed.reports)}
    taken[NAMES[3]] += taken[NAMES[2]]  # which it starts from
    for name in NAMES:
        m = json.loads((coursed.reports / name / "metrics.json").read_text(encoding="utf-8"))
        train, test = m["train"]["accuracy"], m["test"]["accuracy"]
        gain = m["below"]["gain"] if m["below"] else None
        over = f" over {m['below']['level'].split('_')[0]}" if m["below"] else ""
        low, high = m["detail"]["interval"]
        expected = [
            *((name, name), ("0", 0), (percent(test), test)),
            *((f"{100 * low:.1f} to {100 * high:.1f}", low), (percent(train), train)),
            (points(train - test), train - test),
            ("" if gain is None else points(gain) + over, "" if gain is None else gain),
            (f"{m['detail']['ece']:.4f}", m["detail"]["ece"]),
            (f"{m['trained_parameters']:,}", m["trained_parameters"]),
            *((str(m["epochs"]), m["epochs"]), (duration(taken[name]), taken[name])),
        ]
        assert [(text, value) for text, value in rows[name]] == [
            (text, str(value)) for text, value in expected
        ]
        section = text[text.index(f'<section id="{name}"') :]
        section = re.sub(r"<[^>]+>", " ", section[: section.index("</section>")])
        for part in ("train", "val", "test", "test_single"):
            assert f"{m[part]['correct']:,} of {m[part]['total']:,}" in section
            assert f"{m[part]['loss']:.4f}" in section
        detail = m["detail"]
        for key in ("macro_f1", "nll", "nll_scaled", "ece", "ece_scaled"):
            assert f"{detail[key]:.4f}" in section
        for fact in (m["data"]["fingerprint"], m["data"]["split"], m["frozen"]["after"]):
            assert fact in section
        history = json.loads((coursed.reports / name / "history.json").read_text())
        for entry in history:
            assert (
                f"{entry['val_loss']:.4f}" in section and percent(entry["val_accuracy"]) in section
            )


def test_the_course_ends_with_the_pages_path(coursed):
    assert coursed.printed.rstrip().endswith(f"page: {coursed.reports / 'index.html'}")


def test_the_page_names_nothing_outside_itself(coursed):
    text = (coursed.reports / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']*""", text)
    assert not re.findall(r"url\(|@import|import\(|fetch\(|XMLHttpRequest", text)


def test_a_gallery_shows_what_the_predictions_say(coursed):
    runs = own_runs(coursed.reports)
    shown = gallery.load(coursed.reports / "gallery.npz", runs)
    assert len(shown.positions) <= gallery.PICTURES and list(shown.maps) == NAMES
    labels = runs[0].labels
    below = None
    for run in runs:
        right = run.predictions == labels
        wrong = shown.positions[shown.groups[f"mistakes {run.level}"]]
        assert not right[wrong].any() and len(wrong) == min(12, (~right).sum())
        assert np.array_equal(shown.answers[run.level], run.predictions[shown.positions])
        sure = run.probabilities.max(1)
        rest = np.setdiff1d(np.flatnonzero(~right), wrong)
        assert not len(rest) or sure[wrong].min() >= sure[rest].max()
        if below is not None:
            for kind, rows in (("fixed", right & ~below), ("broken", ~right & below)):
                chosen = shown.positions[shown.groups[f"{kind} {run.level}"]]
                assert rows[chosen].all() and len(chosen) == min(12, rows.sum())
        below = right
    for name in NAMES:
        files = {file.name for file in (coursed.reports / name).glob("*.[sw]*")}
        sheets = ("mistakes", "activation_maps", "feature_maps", "filters")
        assert {"feature_plane.svg", *(f"{sheet}.webp" for sheet in sheets)} <= files
        report = (coursed.reports / name / "report.md").read_text(encoding="utf-8")
        assert all(f"]({file})" in report for file in files)


@pytest.mark.slow
def test_made_anew_it_keeps_its_galleries_and_without_pictures_says_so(coursed, tmp_path):
    reports = tmp_path / "reports"
    shutil.copytree(coursed.reports, reports)
    before = (reports / "index.html").read_text(encoding="utf-8")
    with inside(coursed) as patch:
        patch.setattr(page, "pictures_of", lambda run: (None, "the pictures are not here."))
        build_page(reports, redraw=True)
        assert (reports / "index.html").read_text(encoding="utf-8") == before
        (reports / "gallery.npz").unlink()
        for file in [*reports.glob("*/*.svg"), *reports.glob("*/*.webp")]:
            file.unlink()
        build_page(reports, redraw=True)
    text = (reports / "index.html").read_text(encoding="utf-8")
    assert "Galleries are left out: the pictures are not here." in text
    assert text.count("Pictures of test images are left out") == len(NAMES)
    assert 'id="from"' not in text and text.count("Loss and accuracy by epoch") >= len(NAMES)


def test_a_stale_gallery_is_not_shown(tmp_path, coursed):
    runs = own_runs(coursed.reports)
    other = dataclasses.replace(runs[0], logits=runs[0].logits + 1)
    assert gallery.load(coursed.reports / "gallery.npz", [other, *runs[1:]]) is None
    assert gallery.load(tmp_path / "none.npz", runs) is None


def test_names_stay_text(tmp_path):
    def change(metrics):
        metrics["data"]["title"] = "</script><script>alert(1)</script>"
        metrics["command"] = "<img src=x onerror=alert(1)>"
        return metrics

    with inside(tmp_path):
        leave(tmp_path, change=change)
        text = build_page(tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in text and "<img src=x" not in text
    assert "&lt;/script&gt;" in text


@pytest.mark.parametrize(("display", "terminal", "opens"), [(1, 1, 1), (0, 1, 0), (1, 0, 0)])
def test_the_page_opens_where_there_is_a_desktop(monkeypatch, display, terminal, opens, tmp_path):
    opened = []
    monkeypatch.setattr(cli.webbrowser, "open", opened.append)
    monkeypatch.setattr(cli.sys, "platform", "linux")
    monkeypatch.setattr(cli.sys.stdout, "isatty", lambda: bool(terminal), raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0" if display else "")
    cli.show(tmp_path / "index.html")
    assert opened == [(tmp_path / "index.html").as_uri()] * opens


def test_no_reports_no_page(tmp_path):
    with pytest.raises(UserError, match="no reports here; run a level first"):
        build_page(tmp_path)


def test_a_slim_folder_gives_the_same_page(tmp_path, coursed):
    reports = tmp_path / "reports"
    shutil.copytree(coursed.reports, reports)
    leave(reports, name=f"{NAMES[1]}-seed1", level=NAMES[1], seed=1, draws=True)
    whole = reports / f"{NAMES[1]}-seed2"
    leave(reports, name=whole.name, level=NAMES[1], seed=2)
    arrays = read_npz(whole / "predictions.npz")
    del arrays["single"]  # from before it was kept: not enough for slimming
    np.savez_compressed(whole / "predictions.npz", **arrays)
    kept = {file.name for file in whole.iterdir()}
    with inside(coursed):
        build_page(reports)
        before = (reports / "index.html").read_text(encoding="utf-8")
        size = sum(file.stat().st_size for file in reports.rglob("*"))
        drawn = sum(f.stat().st_size for f in reports.glob(f"{NAMES[1]}-seed1/*.[sw]*"))
        page.slim(Reports.read(reports))
        build_page(reports)
    assert (reports / "index.html").read_text(encoding="utf-8") == before
    assert sum(file.stat().st_size for file in reports.rglob("*")) < size - drawn < size - 20_000
    files = {file.name for file in (reports / f"{NAMES[1]}-seed1").iterdir()}
    assert {file.name for file in whole.iterdir()} >= kept
    assert files == {"metrics.json", "history.json", "predictions.npz", "report.md"}
    assert "](" not in (reports / f"{NAMES[1]}-seed1/report.md").read_text(encoding="utf-8")
