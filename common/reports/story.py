"""What a ladder shows, in four sentences made from its figures, and a card a level."""

from pathlib import Path

import numpy as np

from common.evaluation.statistics import compare
from common.reports.markdown import escape
from common.reports.observations import NAMED, fares, joined
from common.reports.schema import Run
from common.reports.store import IDEA, WITHOUT, Reports, same_pictures
from common.reports.text import duration, facts, gain_text, percent, points
from common.utils.errors import UserError
from common.utils.files import read_bytes, write_whole

MARK, END = "<!-- story -->", "<!-- /story -->"


def story(reports: Reports) -> list[str]:
    """What gives most, what gives nothing or costs, what is still wrong, and what it took; what the
    reports do not show is left out.
    """
    levels = own(reports)
    steps = [(_short(run.level), gain) for run in levels if (gain := reports.gain(run))]
    parts = _ingredients(reports, levels)
    return [*filter(None, [_most(steps, parts), _nothing(steps, parts), *_end(reports, levels)])]


def write_into(file: Path, reports: Reports) -> None:
    """Write the story between the two marks of a Markdown file.

    Raises:
        UserError: the file is not there, or has no such marks.
    """
    try:
        text = read_bytes(file).decode("utf-8")
        before, _, rest = text.partition(MARK)
        _, end, after = rest.partition(END)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read; name a Markdown file") from error
    if not end:
        raise UserError(f"{file}: no place for the story; put {MARK} and {END} where it goes")
    lines = "\n".join(f"- {escape(sentence)}" for sentence in story(reports))
    write_whole(file, f"{before}{MARK}\n{lines}\n{END}{after}")


def own(reports: Reports) -> list[Run]:
    """Each level's own run of the lowest seed whose answers are kept, from the lowest level."""
    found: dict[str, Run] = {}
    for run in reports.runs:
        if reports.is_own(run) and run.predictions is not None:
            found.setdefault(run.level, run)
    return list(found.values())


def comparable(run: Run, other: Run) -> bool:
    """Whether two runs differ in their recipe alone: not in pictures, split, weights or size."""
    return facts(run.metrics) == facts(other.metrics) and same_pictures(run, other)


def cards(reports: Reports) -> list[dict]:
    """A level each: its name, its idea's words, its accuracy, gains over the level below and over
    the best below, and time.
    """
    levels, made = own(reports), []
    for place, run in enumerate(levels):
        lower = [other for other in levels[:place] if same_pictures(other, run)]
        best = max(lower, key=lambda other: other.metrics["test"]["accuracy"], default=None)
        below = reports.gain(run)
        over_best = None
        if best and below and best.level != below["level"]:
            gain = compare(run.labels, best.predictions, run.predictions)
            over_best = _over(gain | {"level": best.level})
        made.append(
            {
                "level": run.level,
                "title": _title(run),
                "accuracy": percent(run.metrics["test"]["accuracy"]),
                "gain": _over(below) if below else None,
                "over_best": over_best,
                "time": duration(reports.seconds(run)),
            }
        )
    return made


def _over(gain: dict) -> dict:
    return {
        "text": f"{gain_text(gain)} over {_short(gain['level'])}",
        "verdict": gain["verdict"],
    }


def _short(level: str) -> str:
    """ "level 2" of "level2_augmentation"."""
    return level.split("_")[0].replace("level", "level ")


def _title(run: Run) -> str:
    return run.level.partition("_")[2].replace("_", " ")


def _ingredients(reports: Reports, levels: list[Run]) -> list[tuple[str, dict]]:
    """What each ingredient of a level is worth, by words that name it."""
    found = []
    for run in levels:
        for other in reports.runs:
            if (other.level, other.seed) != (run.level, run.seed) or other.config == IDEA:
                continue
            if other.config.startswith(WITHOUT) and comparable(run, other):
                name = other.config.removeprefix(WITHOUT).replace("_", " ")
                gain = compare(run.labels, other.predictions, run.predictions)
                found.append((f"{name} at {_short(run.level)}", gain))
        if run.metrics["tta"] != "none" and run.single is not None:
            gain = compare(run.labels, run.single, run.predictions)
            found.append((f"test-time augmentation at {_short(run.level)}", gain))
    return found


def _most(steps: list[tuple[str, dict]], parts: list[tuple[str, dict]]) -> str:
    shown = [[pair for pair in some if pair[1]["verdict"] == "gain"] for some in (steps, parts)]
    said = [max(some, key=lambda pair: pair[1]["gain"]) for some in shown if some]
    if not said:
        return "No gain is shown on these pictures." if steps or parts else ""
    (name, gain), *rest = said
    over = f" over {_short(gain['level'])}" if "level" in gain else ""
    text = f"{name[0].upper()}{name[1:]} gives most: {gain_text(gain)} points{over}"
    if rest:
        name, gain = rest[0]
        text += f"; of single ingredients, {name}: {gain_text(gain)}"
    return f"{text}."


def _nothing(steps: list[tuple[str, dict]], parts: list[tuple[str, dict]]) -> str:
    both = [*steps, *parts]
    if not both:
        return ""
    costs = [f"{name} ({points(gain['gain'])})" for name, gain in both if gain["verdict"] == "loss"]
    idle = [f"{n} ({points(g['gain'])})" for n, g in both if g["verdict"] == "not shown"]
    said = [f"What costs: {joined(costs)}"] if costs else []
    said += [f"{'n' if costs else 'N'}o gain is shown for {joined(idle)}"] if idle else []
    return f"{'; '.join(said)}." if said else "Every step and ingredient that was measured gains."


def _end(reports: Reports, levels: list[Run]) -> list[str]:
    if not levels:
        return []
    top = max(levels, key=lambda run: run.metrics["test"]["accuracy"])
    test = top.metrics["test"]
    wrong = test["total"] - test["correct"]
    text = f"Still wrong at {_short(top.level)}: {wrong:,} of {test['total']:,} test pictures"
    if most := _most_wrong(top):
        text += f", most among {joined([fares(top, label) for label in most])}"
    machine = top.metrics["machine"]
    name = machine.get("gpu") or machine.get("cpu")
    shared = name and all(run.metrics["machine"] == machine for run in levels)
    where = f" on {name}" if shared else ""
    times = [f"{duration(reports.seconds(run))} at {_short(run.level)}" for run in levels]
    started = any(run.metrics.get("started_from") or _starts(run) for run in levels)
    within = ", what each starts from included" if started else ""
    return [f"{text}.", f"Training and testing took {joined(times)}{where}{within}."]


def _most_wrong(run: Run) -> list[int]:
    """The classes with most of the wrong pictures, up to three: each with more than any other."""
    counts = np.bincount(run.labels[run.predictions != run.labels], minlength=len(run.classes))
    order = np.argsort(-counts, kind="stable").tolist()
    for some in range(min(NAMED, len(order) - 1), 0, -1):
        if counts[order[some - 1]] > counts[order[some]]:
            return order[:some]
    return []


def _starts(run: Run) -> bool:
    return bool((run.metrics["settings"].get("network") or {}).get("start_from"))
