"""The leaderboard: what each level and config reached, over its seeds, and what others did."""

import itertools
import statistics
from pathlib import Path

from common.config.schema import comparable
from common.evaluation.statistics import summarise
from common.reports.comparison import published
from common.reports.markdown import templates
from common.reports.schema import Run
from common.reports.store import Reports
from common.reports.text import Cell, duration, table_of
from common.utils.errors import UserError
from common.utils.files import write_whole

# settings that seeds of one row may differ in: itself, and how the machine computes
HOW = {"seed", "fast"}
HOW |= {f"train.{key}" for key in ("threads", "device", "precision", "compile", "deterministic")}


def write(place: Path, several: list[Reports]) -> Path:
    """Write LEADERBOARD.md into a folder, of the reports in it and in others below it.

    Raises:
        UserError: there are none.
    """
    for reports in several:
        if reports.runs or reports.damaged:
            reports.check()
    runs = [(run, reports.folder.relative_to(place)) for reports in several for run in reports.runs]
    if not runs:
        raise UserError(f"{place}: no reports here; run a level first")
    runs.sort(key=_group)
    groups = [list(group) for _, group in itertools.groupby(runs, key=_group)]
    groups.sort(key=lambda group: (_group(group[0])[:3], -_accuracy(group)["mean"]))
    text = templates.get_template("leaderboard.md").render(
        rows=table_of([_row(group) for group in groups]), published=published()
    )
    file = place / "LEADERBOARD.md"
    write_whole(file, text)
    return file


def _group(entry: tuple[Run, Path]) -> tuple:
    """What the seeds of a row share."""
    run, folder = entry
    m = run.metrics
    title, weights = m["data"]["title"], m["weights"]["name"]
    same = {k: v for k, v in comparable(m["settings"]).items() if k not in HOW}
    pictures = m["data"]["fingerprint"], m["data"]["split"], m["test"]["total"]
    recipe = repr((pictures, m["weights"]["sha256"], sorted(same.items())))
    return title, m["image_size"], weights, str(folder), run.level, run.config, recipe


def _accuracy(group: list[tuple[Run, Path]]) -> dict:
    return summarise([run.metrics["test"]["accuracy"] for run, _ in group])


def _row(group: list[tuple[Run, Path]]) -> dict[str, str | Cell]:
    run, folder = group[0]
    m, reached = run.metrics, _accuracy(group)
    mean = f"{100 * reached['mean']:.2f}"
    machines = dict.fromkeys(_machine(run.metrics["machine"]) for run, _ in group)
    commits = dict.fromkeys((run.metrics["commit"] or "unknown")[:7] for run, _ in group)
    return {
        "level": Cell(run.label, href=f"{(folder / run.folder.name).as_posix()}/report.md"),
        "data": m["data"]["title"],
        "size": f"{m['image_size']} px",
        "weights": m["weights"]["name"],
        "seeds": ", ".join(str(run.seed) for run, _ in group),
        "pictures": f"{m['test']['total']:,}",
        "test accuracy, %": mean
        if reached["sd"] is None
        else f"{mean} ± {100 * reached['sd']:.2f}",
        "time": duration(statistics.median(run.metrics["seconds"] for run, _ in group)),
        "machine": "; ".join(machines),
        "commit": ", ".join(commits),
    }


def _machine(facts: dict) -> str:
    words = [facts["gpu"] or facts["cpu"], facts.get("precision")]
    if threads := facts.get("threads"):
        words.append(f"{threads} threads" if threads > 1 else "1 thread")
    return ", ".join(word for word in words if word)
