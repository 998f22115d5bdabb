"""The page over all reports: one file that needs no network."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from common.evaluation.statistics import SIGNIFICANCE
from common.reports import comparison, exhibits, ladder, store
from common.reports.embedded import gallery_json, uri
from common.reports.exhibits import Gallery, Level
from common.reports.figures.album import ALBUM, left_out
from common.reports.html import HERE, html
from common.reports.lesson import lesson
from common.reports.markdown import percent
from common.reports.pages import report_page
from common.reports.records import check_reports
from common.reports.restore import networks_of, pictures_of
from common.reports.table_of_runs import table_of_runs
from common.utils.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GALLERY = "gallery.npz"


def build_page(reports: Path, redraw: bool = False) -> Path:
    """Write index.html, and the levels' pictures and report.md; all of them, or what is missing.

    Returns:
        The page's path.
    Raises:
        UserError: no reports there, or a damaged one.
    """
    check_reports(reports)
    ladder.write_ladder(reports)
    found = read_levels(reports)
    shown, gallery, why = [level for _, level in found], None, "no level has a report here."
    if found:
        gallery, why = _gallery(reports, found, redraw)
    sections = []
    for folder, level in found:
        _draw(folder, level, reports, redraw)
        sections.append(_section(folder, level, reports))
    page = html.get_template("page.html").render(
        **_overview(reports, sections),
        levels=sections,
        gallery={"levels": list(gallery.answers), "maps": gallery.maps} if gallery else None,
        gallery_json=Markup(gallery_json(gallery, shown)) if gallery else "",
        galleries_left_out=why,
        css=Markup((HERE / "page.css").read_text("utf-8")),
        js=Markup((HERE / "page.js").read_text("utf-8")),
    )
    path = reports / "index.html"
    write_whole(path, page)
    return path


def slim(reports: Path) -> None:
    """Drop logits and pictures of all runs but the levels' own: of other seeds and configs."""
    shown = {folder for folder, _ in read_levels(reports)}
    for folder, _ in store.find_reports(reports):
        run = store.read_run(folder) if folder not in shown else None
        arrays = store.read_predictions(folder)
        if run is None or arrays is None:
            continue
        page, draft = report_page(run, store.read_below(reports, run), []), folder / "slim.npz"
        np.savez_compressed(draft, **arrays, classes=np.array(run.classes))
        os.replace(draft, folder / "predictions.npz")
        write_whole(folder / "report.md", page)
        for name in _pictures(folder):
            (folder / f"{name}.png").unlink()


def read_levels(reports: Path) -> list[tuple[Path, Level]]:
    """Each level's own run of the lowest seed, of those on the same test pictures as the first."""
    found: dict[str, tuple[Path, Level]] = {}
    for folder, m in store.find_reports(reports):
        if m["config"] != "config" or m["level"] in found:
            continue
        run, logits = store.read_run(folder), store.read_logits(folder)
        if run is None or logits is None:
            continue
        first = next(iter(found.values()))[1].run if found else run
        if np.array_equal(first.labels, run.labels):
            found[m["level"]] = folder, Level(m["level"], run, logits)
    return list(found.values())


def _gallery(
    reports: Path, found: list[tuple[Path, Level]], redraw: bool
) -> tuple[Gallery | None, str]:
    """The gallery of these levels with its pictures drawn, and where there is none, why."""
    shown = [level for _, level in found]
    file = reports / GALLERY
    gallery, test, why = exhibits.load(file, shown), None, ""
    networks = networks_of([level.run.metrics for level in shown])
    stale = gallery is None or not set(gallery.maps) >= set(networks)
    if stale:
        test, why = pictures_of(shown[0].run.metrics)
        if test is not None:
            exhibits.save(exhibits.collect(shown, test, networks), file)
            gallery = exhibits.load(file, shown)
    if gallery is None:
        return None, why
    sheets = exhibits.sheets(gallery, shown) if stale or redraw else {}
    for folder, level in found:
        pictures = sheets.get(level.name, {})
        if test is not None and level.name in networks and "feature_plane" not in _pictures(folder):
            pictures |= exhibits.close_ups(networks[level.name], test)
        _save(pictures, folder)
    return gallery, ""


def _draw(folder: Path, level: Level, reports: Path, redraw: bool) -> None:
    """A level's pictures from its figures, and its report.md."""
    below = store.read_below(reports, level.run)
    if redraw:
        _save(store.draw(level.run, level.logits, below), folder)
    page = report_page(level.run, below, _pictures(folder))
    write_whole(folder / "report.md", page)


def _save(pictures: dict[str, "Figure"], folder: Path) -> None:
    from common.reports.figures import plots

    for name, figure in pictures.items():
        plots.save(figure, folder / f"{name}.png")


def _pictures(folder: Path) -> list[str]:
    return [name for name in ALBUM if (folder / f"{name}.png").is_file()]


def _section(folder: Path, level: Level, reports: Path) -> dict:
    pictures = [
        ALBUM[name]._asdict() | {"file": uri((folder / f"{name}.png").read_bytes(), "png")}
        for name in _pictures(folder)
    ]
    m = level.run.metrics
    return lesson(level.run, store.read_below(reports, level.run)) | {
        "accuracy": percent(m["test"]["accuracy"]),
        "pictures": pictures,
        "left_out": left_out(_pictures(folder)),
    }


def _overview(reports: Path, sections: list[dict]) -> dict:
    """What stands above and below the levels."""
    tables = ladder.read_tables(reports)
    plain = {
        title: [{k: getattr(v, "plain", v) for k, v in row.items()} for row in rows]
        for title, rows in tables.titled.items()
    }
    first = plain.pop("")
    names = [name for name in first[0] if any(row[name] for row in first)] if first else []
    others = {}
    for title, rows in plain.items():
        if rows and title != ladder.OTHERS:  # those stand among all runs
            header = [name for name in rows[0] if any(row[name] for row in rows)]
            others[title] = header, [[row[name] for name in header] for row in rows]
    runs, published = table_of_runs(reports), None
    if (reports / "comparison.json").is_file():
        header = ["network", "data", "strategy", "test accuracy", "source"]
        published = header, [[*row[:3], f"{row[3]:.2f} %", row[4]] for row in comparison.PUBLISHED]
    return {
        "title": tables.given["data"],
        "given": tables.given,
        "ladder_picture": uri((reports / "ladder.png").read_bytes(), "png"),
        "ladder": (names, [{name: row[name] for name in names} for row in first]),
        "tables": others,
        "anchors": [section["level"] for section in sections],
        "runs": runs,
        "published": published,
        "commands": tables.commands,
        "machines": tables.machines,
        "significance": SIGNIFICANCE,
    }
