"""The page over all reports: one file that needs no network; and the pages beside it."""

from pathlib import Path

import numpy as np
from markupsafe import Markup

from common.reports import comparison, gallery, ladder
from common.reports.figures import album
from common.reports.gallery import Gallery, uri
from common.reports.html import html
from common.reports.lesson import lesson
from common.reports.markdown import report_page
from common.reports.restore import networks_of, passed_over, pictures_of
from common.reports.schema import Run
from common.reports.store import Reports, check_place
from common.reports.story import cards, story
from common.reports.text import Cell, Table, percent, table_of
from common.utils.files import clear_drafts, npz, read_bytes, write_whole

GALLERY = "gallery.npz"


def build_page(reports: Reports, redraw: bool = False) -> tuple[str, Path]:
    """Write the ladder, index.html, and the levels' pictures and report.md; of the pictures all, or
    what is missing. A report that is damaged is left out, and said.

    Returns:
        The ladder as plain text for a terminal, and the page's path.
    Raises:
        UserError: no reports there, or none that can be read; or pages of somebody else's.
    """
    check_place(reports.folder)
    reports.check()
    for folder in (reports.folder, *(run.folder for run in reports.runs)):
        clear_drafts(folder)
    tables = ladder.read_ladder(reports)
    text = ladder.write_ladder(reports, tables)
    shown, found, why = own_runs(reports), None, "no level has a report here."
    if shown:
        found, why = _gallery(reports.folder, shown, redraw)
    page = html.get_template("page.html").render(
        **_overview(reports, tables, {run.level for run in shown}),
        levels=[_section(run, reports, redraw) for run in shown],
        gallery={"levels": list(found.answers), "maps": found.maps} if found else None,
        gallery_json=Markup(gallery.gallery_json(found)) if found else "",
        galleries_left_out=why,
    )
    path = reports.folder / "index.html"
    write_whole(path, page)
    return text, path


def slim(reports: Reports) -> None:
    """Drop logits and pictures of all runs but the levels' own: of other seeds and configs."""
    kept = own_runs(reports)
    for run in reports.runs:
        if run in kept or run.single is None or not run.history:
            continue
        arrays = {"labels": run.labels, "predictions": run.predictions, "single": run.single}
        content = npz(**arrays, classes=np.array(run.classes))
        write_whole(run.folder / "predictions.npz", content)
        write_whole(run.folder / "report.md", report_page(run, _below(reports, run), {}))
        for file in album.there(run.folder).values():
            (run.folder / file).unlink()


def own_runs(reports: Reports) -> list[Run]:
    """Each level's own run of the lowest seed, of those on the same test pictures as the first."""
    found: dict[str, Run] = {}
    for run in reports.runs:
        whole = reports.is_own(run) and run.logits is not None and run.history
        first = next(iter(found.values()), run)
        if whole and run.level not in found and np.array_equal(first.labels, run.labels):
            found[run.level] = run
    return list(found.values())


def _below(reports: Reports, run: Run) -> Run | None:
    """The run that a report is written against: none where there was none when it ran."""
    return reports.below(run) if run.metrics["below"] else None


def _gallery(folder: Path, shown: list[Run], redraw: bool) -> tuple[Gallery | None, str]:
    """The gallery of these levels with its pictures drawn, and where there is none, why."""
    found, test, why = gallery.load(folder / GALLERY, shown), None, ""
    unseen = [run for run in shown if not found or run.level not in found.maps]
    networks = networks_of(unseen)
    stale = found is None or networks
    if stale:
        test, why = pictures_of(shown[0])
        if test is not None:
            networks |= networks_of([run for run in shown if run not in unseen])
            found = gallery.collect(shown, test, networks)
            gallery.save(found, folder / GALLERY)
    if found is None:
        return None, why
    sheets = gallery.sheets(found) if stale or redraw else {}
    for run in shown:
        pictures = sheets.get(run.level, {})
        if test is not None and run.level in networks:
            with passed_over(f"what {run.level} sees"):
                if "feature_plane" not in album.there(run.folder):
                    pictures |= gallery.close_ups(networks[run.level], test)
        album.save(pictures, run.folder)
    return found, ""


def _section(run: Run, reports: Reports, redraw: bool) -> dict:
    """What the page says of a level; its report.md is written, and its pictures where asked."""
    below = _below(reports, run)
    if redraw:
        album.save(album.draw(run, below), run.folder, instead_of=album.OF_FIGURES)
    files = album.there(run.folder)
    write_whole(run.folder / "report.md", report_page(run, below, files))
    pictures = [
        picture._asdict() | {"name": name, "file": _address(run.folder / files[name])}
        for name, picture in album.ALBUM.items()
        if name in files
    ]
    return lesson(run, below) | {
        "accuracy": percent(run.metrics["test"]["accuracy"]),
        "pictures": pictures,
        "left_out": album.left_out(files),
    }


def _address(file: Path) -> str:
    """A picture's file as an address that holds it."""
    return uri(read_bytes(file), file.suffix[1:])


def _overview(reports: Reports, tables: dict, levels: set[str]) -> dict:
    """What stands above and below the levels."""
    others = {
        title: _within(table_of(rows), levels)
        for title, rows in tables["rows"].items()
        if rows and title not in ("", ladder.OTHERS)  # those stand among all runs
    }
    compared = (reports.folder / "comparison.json").is_file()
    return tables | {
        "story": story(reports),
        "cards": cards(reports),
        "ladder_picture": _address(reports.folder / "ladder.svg"),
        "ladder": _within(table_of(tables["rows"][""]), levels),
        "tables": others,
        "runs": ladder.table_of_runs(reports),
        "published": comparison.published() if compared else None,
    }


def _within(table: Table, levels: set[str]) -> Table:
    """A table whose links lead to the page's own sections, where it has them."""
    rows = [
        [Cell(str(cell), href=f"#{cell}" if str(cell) in levels else None) for cell in row]
        for row in table.rows
    ]
    return Table(table.header, rows)
