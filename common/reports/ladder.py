"""The ladder over all reports of a folder: each level, its gain, what ingredients are worth; and a
table of all runs.

Made from reports alone, without data or networks. A config whose name begins with `without_` is
its level less one ingredient; the page says what that ingredient is worth. `without_idea` is the
same training less all that is new at the level: what is left of a gain then is the training's.
"""

import itertools
import re
from collections.abc import Callable

from common.evaluation.statistics import SIGNIFICANCE, compare, summarise, wilson_interval
from common.reports.figures import album, plots
from common.reports.markdown import templates
from common.reports.schema import Run
from common.reports.store import IDEA, WITHOUT, Reports, same_pictures
from common.reports.story import comparable, story
from common.reports.text import (
    Cell,
    Table,
    aligned,
    benchmark,
    duration,
    facts,
    gain_cells,
    gain_text,
    listing,
    percent,
    points,
    span,
    table_of,
)
from common.utils.errors import UserError
from common.utils.files import read_json, write_whole

OTHERS, SEEDS, WORTH = "Other configs", "Seeds", "What each ingredient is worth"

# Columns that stand on pages only: a terminal is too narrow for them.
ON_PAGE = {"fixed / broken", "its idea alone, points", "trained", "epochs", "without", "with"}
TERSE = {"test accuracy": "test", "95 % interval": "95 %"}  # shorter names there
COLUMNS = 80
MINUTES = re.compile(r"(\d+) min (\d+) s")  # which a terminal has in fewer characters
LESS = ["p", "cost", "95 %", "note", "seed", "time"]  # what goes, in turn, where there are more

Row = dict[str, str | Cell]  # column -> cell


def read_ladder(reports: Reports) -> dict:
    """What the pages of a folder of reports, of which there is at least one, say of all of them.

    Returns:
        `rows`: title -> rows; the untitled ones are the ladder itself. `shown`: a dict a level for
        `plots.ladder`. `given`: what the reports share: data, weights ... `commands`, `machines`:
        what ran, and on what. `significance`: of a verdict.
    """
    runs = reports.runs
    given = facts(next((run for run in runs if reports.is_own(run)), runs[0]).metrics)
    groups = itertools.groupby(runs, key=lambda run: (run.level, run.config))
    groups = [[(run, reports.gain(run)) for run in group] for _, group in groups]
    ideas = {(run.level, run.seed): run for run in runs if run.config == IDEA}
    wholes = {(run.level, run.seed): run for run in runs if reports.is_own(run)}
    steps = [_step(reports, group, given, ideas, wholes) for group in groups]
    ladder = [step for step in steps if step["own"]]
    others = [s for s in steps if not s["own"] and not s["config"].startswith(WITHOUT)]

    shown = ladder or steps
    for i, step in enumerate(shown):  # a gain over any other level than the one drawn before it
        if i and step["below"] and step["below"]["level"] == shown[i - 1]["level"]:
            step |= {key: step["below"][key] for key in ("gain", "verdict")}
    rows = {
        "": [step["row"] for step in ladder],
        OTHERS: [step["row"] for step in others],
        SEEDS: [_seeds(group) for group in groups if len(group) > 1],
        WORTH: _ingredients(runs, wholes),
    }
    return {
        "rows": rows,
        "shown": shown,
        "given": given,
        "commands": list(dict.fromkeys(run.metrics["command"] for run in runs)),
        "machines": list(dict.fromkeys(listing(run.metrics["machine"]) for run in runs)),
        "significance": SIGNIFICANCE,
    }


def write_ladder(reports: Reports, ladder: dict) -> str:
    """Write the ladder of a folder of reports: README.md and ladder.svg.

    Where runs differ in data, weights or size, their row says how.

    Returns:
        The ladder as plain text for a terminal; its last line is the README's path.
    """
    album.save({"ladder": plots.ladder(ladder["shown"])}, reports.folder)
    rows, readme = ladder["rows"], reports.folder / "README.md"
    tables = {title: table_of(some) for title, some in rows.items()}
    page = templates.get_template("ladder.md").render(
        ladder, tables=tables, worth=WORTH, story=story(reports)
    )
    write_whole(readme, page)
    parts = [rows[""] + rows[OTHERS], rows[WORTH]]
    return "\n\n".join([_terse(part) for part in parts if part]) + f"\n{readme}"


def _terse(rows: list[Row]) -> str:
    """Rows for a terminal: as many of their columns as fit its usual width."""
    rows = [{TERSE.get(k, k): v for k, v in row.items() if k not in ON_PAGE} for row in rows]
    for row in rows:
        row |= {"time": MINUTES.sub(_minutes, row["time"])} if "time" in row else {}
    names = [name for name in LESS if any(row.get(name) for row in rows)]
    text = aligned(*table_of(rows))
    while names and max(map(len, text.splitlines())) > COLUMNS:
        name = names.pop(0)
        rows = [{k: v for k, v in row.items() if k != name} for row in rows]
        text = aligned(*table_of(rows))
    return text


def _minutes(time: re.Match) -> str:
    minutes = int(time[1]) + int(time[2]) / 60
    return f"{minutes:.1f} min" if minutes < 9.95 else f"{minutes:.0f} min"


def _link(run: Run, text: str) -> Cell:
    return Cell(text, href=f"{run.folder.name}/report.md")


def _step(
    reports: Reports,
    group: list[tuple[Run, dict | None]],
    given: dict[str, str],
    ideas: dict,
    wholes: dict,
) -> dict:
    """A level in the ladder, from its runs with one config: the lowest seed's figures.

    Args:
        ideas: by level and seed, the run without what is new at the level; wholes: the level's own.
    """
    run, below = group[0]
    whole = wholes.get((run.level, run.seed))
    idea = ideas.get((run.level, run.seed)) if run is whole else None
    m = run.metrics
    low, high = wilson_interval(m["test"]["correct"], m["test"]["total"])
    notes = [] if run.seed == 0 else [f"seed {run.seed}"]
    for own in (facts(other.metrics) for other, _ in group):
        if own["weights"] != given["weights"]:
            own.pop("weights' SHA-256")  # the name says it
        notes += [f"other {key}: {own[key][:20]}" for key in own if own[key] != given[key]]
    if (m["below"] or {}).get("gain") != (below or {}).get("gain"):
        notes.append("the level below has changed since this run")
    return {
        "level": run.level,
        "config": run.config,
        "own": bool(whole) and run.config == whole.config,
        "accuracy": m["test"]["accuracy"],
        "benchmark": benchmark(m),
        "low": low,
        "high": high,
        "below": below,
        "row": {
            "level": _link(run, run.label),
            "test accuracy": percent(m["test"]["accuracy"]),
            "95 % interval": span(low, high),
            **gain_cells(below),
            **_varied(run, whole),
            "its idea alone, points": _alone(run, idea),
            "trained": ", ".join(m["trainable"]),
            "epochs": f"{m['epochs']} (best {m['best_epoch']})",
            "time": duration(reports.seconds(run)),
            "note": "; ".join(dict.fromkeys(notes)),
        },
    }


def _varied(run: Run, whole: Run | None) -> dict[str, str]:
    """What a recipe of a level gains over the level's own."""
    if whole is None or run.config == whole.config or not same_pictures(whole, run):
        return {}
    gain = compare(run.labels, whole.predictions, run.predictions)
    return {"over its level, points": f"{gain_text(gain)}: {gain['verdict']}"}


def _alone(run: Run, idea: Run | None) -> str:
    """What a level gains over the same training without its idea."""
    if idea is None or not comparable(run, idea):
        return ""
    gain = compare(run.labels, idea.predictions, run.predictions)
    return f"{gain_text(gain)}: {gain['verdict']}"


def _seeds(group: list[tuple[Run, dict | None]]) -> Row:
    """A level that ran with several seeds: every figure, their mean and standard deviation."""
    runs, gains = zip(*group, strict=True)
    summary = summarise([run.metrics["test"]["accuracy"] for run in runs])
    return {
        "level": _link(runs[0], runs[0].label),
        "seeds": ", ".join(str(run.seed) for run in runs),
        "test accuracy, %": ", ".join(f"{100 * value:.2f}" for value in summary["values"]),
        "mean, %": f"{100 * summary['mean']:.2f}",
        "sd, points": f"{100 * summary['sd']:.2f}",
        "gain, points": _in_turn(gains, lambda gain: f"{100 * gain['gain']:+.2f}"),
        "verdict": _in_turn(gains, lambda gain: gain["verdict"]),
    }


def _in_turn(gains: tuple[dict | None, ...], words: Callable[[dict], str]) -> str:
    """Something of every gain, a dash where there is none; nothing where there is none at all."""
    return ", ".join(words(gain) if gain else "-" for gain in gains) if any(gains) else ""


def _ingredients(runs: list[Run], wholes: dict[tuple[str, int], Run]) -> list[Row]:
    """An ingredient and seed each: the level as it is against the level without it."""
    rows = []
    for run in runs:
        m = run.metrics
        if run.config.startswith(WITHOUT):
            rows.append(_ablation(run, wholes.get((run.level, run.seed))))
        elif m["tta"] != "none" and run.single is not None:
            test, single = (m["detail"]["seconds"][part] for part in ("test", "test_single"))
            rows.append(
                {
                    "ingredient": _link(run, f"test-time augmentation ({m['tta']})"),
                    "level": run.label,
                    "seed": str(run.seed),
                    "without": percent(m["test_single"]["accuracy"]),
                    "with": percent(m["test"]["accuracy"]),
                    **gain_cells(compare(run.labels, run.single, run.predictions), "worth, points"),
                    "cost": f"{test:.1f} s instead of {single:.1f} s of testing",
                }
            )
    return rows


def _ablation(run: Run, whole: Run | None) -> Row:
    """It says only `without` where the whole level did not run on the same data and weights."""
    m = run.metrics
    row = {
        "ingredient": _link(run, run.config.removeprefix(WITHOUT).replace("_", " ")),
        "level": run.level,
        "seed": str(run.seed),
        "without": percent(m["test"]["accuracy"]),
    }
    if run.config == IDEA:
        row["ingredient"] = _link(run, "its idea, all of it")
    if whole and comparable(whole, run):
        row["with"] = percent(whole.metrics["test"]["accuracy"])
        gain = compare(run.labels, run.predictions, whole.predictions)
        row |= gain_cells(gain, "worth, points")
        if whole.metrics["machine"] == m["machine"]:  # threads and all, else times say nothing
            times = [duration(metrics["seconds"]) for metrics in (whole.metrics, m)]
            row["cost"] = " instead of ".join(times)
    return row


def table_of_runs(reports: Reports) -> Table:
    """All runs, to be sorted by metrics.json's own values."""
    rows = [_run(run, reports.seconds(run)) for run in reports.runs]
    empty = dict.fromkeys(rows[0], Cell(""))
    for name in _not_measured(reports):
        cells = {"run": Cell(name, name), "test accuracy": Cell("not measured here")}
        rows.append(empty | cells)
    return Table(list(rows[0]), [list(row.values()) for row in rows])


def _run(run: Run, seconds: float) -> dict[str, Cell]:
    m = run.metrics
    test, train = m["test"]["accuracy"], m["train"]["accuracy"]
    low, high = m["detail"]["interval"]
    gain = m["below"]["gain"] if m["below"] else None
    over = f" over {m['below']['level'].split('_')[0]}" if m["below"] else ""
    return {
        "run": Cell(run.label, run.label),
        "seed": Cell(str(run.seed), run.seed),
        "test accuracy": Cell(percent(test), test),
        "95 % interval": Cell(span(low, high), low),
        "train accuracy": Cell(percent(train), train),
        "gap, points": Cell(points(train - test), train - test),
        "gain, points": Cell("" if gain is None else points(gain) + over, gain),
        "calibration error": Cell(f"{m['detail']['ece']:.4f}", m["detail"]["ece"]),
        "trained parameters": Cell(f"{m['trained_parameters']:,}", m["trained_parameters"]),
        "epochs": Cell(str(m["epochs"]), m["epochs"]),
        "time": Cell(duration(seconds), seconds),
    }


def _not_measured(reports: Reports) -> list[str]:
    """Configs that a comparison could not run here."""
    try:
        rows = read_json(reports.folder / "comparison.json")["rows"]
        names = [row["config"] for row in rows if row["test_accuracy"] is None]
    except (UserError, KeyError, TypeError):
        return []
    return [name for name in names if isinstance(name, str)]
