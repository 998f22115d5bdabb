"""What the page says of the levels that answer: what each has learnt, how well, and its doubts."""

from collections.abc import Sequence

from common.config.ended import run_facts
from common.data.splits import title_of
from common.evaluation.doubt import FALSE_ALARMS, SURE
from common.predict.answers import Trained
from common.reports.restore import is_of, read_settings
from common.reports.schema import read_metrics
from common.reports.text import percent, span
from common.utils import paths
from common.utils.errors import UserError
from common.utils.paths import expanded


def about(trained: Sequence[Trained]) -> dict:
    """What `drop.html` shows of a data set's levels.

    Returns:
        `levels`, a dict each of texts; `classes`, the names, with the levels that know them;
        `pending`, whether something is still to be measured.
    """
    classes: dict[tuple[str, ...], list[str]] = {}
    for one in trained:
        classes.setdefault(tuple(one.content["classes"]), []).append(one.level)
    return {
        "levels": [_facts(one) for one in trained],
        "classes": [{"names": names, "levels": known} for names, known in classes.items()],
        "pending": any(one.pending for one in trained),
    }


def metrics_of(one: Trained) -> dict | None:
    """The metrics of a level's report, beside the run or where the run says that it is."""
    places = [one.place.parents[1] / "reports" / one.level]
    if isinstance(said := (run_facts(one.place.parent) or {}).get("report"), str):
        places.append(expanded(said))
    for place in places:
        try:
            metrics = read_metrics(place)
        except (UserError, OSError, ValueError):  # none, or a damaged one
            continue
        if is_of(one.content, metrics):
            return metrics
    return None


def _facts(one: Trained) -> dict:
    m = metrics_of(one)
    facts = {
        "level": one.level,
        "classes": f"{len(one.content['classes']):,}",
        "size": f"{one.network.weights.image_size} px",
        "data": _title(one),
        "pictures": "",
        "accuracy": "not known: its report is not here",
        "sure": _sure(one),
        "far": _far(one),
    }
    if m:
        test = m["test"]
        facts["data"], facts["pictures"] = m["data"]["title"], f"{m['data']['train']:,} pictures"
        facts["accuracy"] = f"{percent(test['accuracy'])} ({span(*m['detail']['interval'])})"
        facts["accuracy"] += f" of {test['total']:,} test pictures"
    elif (
        type(share := (run_facts(one.place.parent) or {}).get("accuracy")) is float
        and 0 <= share <= 1
    ):
        facts["accuracy"] = percent(share)
    return facts


def _title(one: Trained) -> str:
    try:
        return title_of(read_settings(one.content["settings"], paths.PROJECT, None, None).data)
    except UserError:
        return one.place.parents[1].name


def _sure(one: Trained) -> str:
    if one.doubts is None:
        return _why(one)
    sure = one.doubts.sure
    if sure.threshold is None:
        return f"never: on val, no probability was right {100 * SURE:.0f} % of the time"
    return (
        f"from {percent(sure.threshold)} on: of such answers on val, {percent(sure.accuracy)} were "
        f"right; {percent(sure.share)} of {one.doubts.pictures:,} were such"
    )


def _far(one: Trained) -> str:
    doubts = one.doubts
    if doubts is None:
        return _why(one)
    if doubts.far is None:
        return "left out: this network, or so few pictures, do not give such a rule"
    text = f"{percent(doubts.alarms)} of {doubts.pictures:,} val pictures"
    if doubts.held_out is not None:
        text += f"; {percent(doubts.held_out)} of those that did not set the threshold"
    return f"{text} (at most {100 * FALSE_ALARMS:.0f} % wanted)"


def _why(one: Trained) -> str:
    return f"left out: {one.why.removesuffix('.')}" if one.why else "being measured on val ..."
