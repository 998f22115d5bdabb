"""What a run's report says, in the lesson's order, as plain text and tables.

Every figure comes from the run's report, or from that of the level below; nothing is measured here.
"""

import re

from common.config import named_step, yaml_files
from common.config.schema import flat
from common.evaluation.statistics import wilson_interval
from common.reports import text
from common.reports.observations import apart, fares, joined, observations
from common.reports.schema import Run
from common.reports.text import Table, percent, points, probability, span
from common.utils import paths

LISTED_CLASSES = 20  # a report lists every class up to here, else the ten that fare worst
COMPARED = {"network", "augment", "train", "test"}  # settings, with the level below's
NOT_COMPARED = {"network.weights", "network.weights_title", "train.threads", "train.device"}


def lesson(run: Run, below: Run | None) -> dict:
    """What a report says of a run and of the one below it: text, lists of text, and tables."""
    m = run.metrics
    by_class = text.recall(run)
    worst = len(run.classes) > LISTED_CLASSES
    return {
        "level": m["level"],
        "data": m["data"]["title"],
        "sentence": _sentence(m),
        "objective": objective(m["level"]),
        "left": _left(below) if below else None,
        "done": _done(m),
        "changed": _changed(m, below.metrics) if below else None,
        "network": text.network(m["network"]) if "network" in m else None,
        "results": text.results(m),
        "tta": _tta(m),
        "detail": text.detail(m["detail"]),
        "epochs": text.epochs(run.history, m["best_epoch"]),
        "classes": "The ten classes that fare worst" if worst else "Class by class",
        "recall": Table(
            ["class", "test pictures", "right", "most often taken for"],
            by_class[:10] if worst else by_class,
        ),
        "observations": observations(run),
        "limits": _limits(m),
        "frozen": _frozen(m),
        "provenance": text.provenance(m),
        "command": m["command"],
        "settings": yaml_files.write(m["settings"]),
    }


def objective(level: str) -> str | None:
    """The lesson's own words for it, from the level's README; None where there are none."""
    try:
        readme = (paths.PROJECT / level / "README.md").read_text("utf-8")
    except (OSError, ValueError):  # none there, or not in UTF-8
        return None
    found = re.search(r"\*\*Objective\.\*\* (.+?)\n\n", readme, re.S)
    return " ".join(found[1].split()) if found else None


def _sentence(m: dict) -> str:
    test = m["test"]
    right = f"{percent(test['accuracy'])} of {test['total']:,} test pictures right"
    right += f" (95 % interval {span(*wilson_interval(test['correct'], test['total']))} %)"
    if not m["below"]:
        return f"{right}; there is no level below to compare it with."
    below = m["below"]
    words = {"gain": "a gain", "loss": "a loss", "not shown": "a gain is not shown"}
    gain, low, high = map(points, (below["gain"], *below["interval"]))
    counts = f"of the pictures {below['fixed']:,} fixed and {below['broken']:,} broken"
    p = f"p = {probability(below['p_value'])}".replace("= <", "<")
    return (
        f"{right}. Over {below['level']}: {gain} points (95 % interval {low} to {high}), {counts}, "
        f"{p}: {words[below['verdict']]}."
    )


def _left(below: Run) -> str:
    """What the level below has wrong."""
    m = below.metrics
    wrong = m["test"]["total"] - m["test"]["correct"]
    said = f"{m['level']} has {wrong:,} of {m['test']['total']:,} test pictures wrong."
    worst = [fares(below, label) for label in apart(below)[0][:3]]
    return f"{said} Its worst classes are {joined(worst)}." if worst else said


def _done(m: dict) -> list[str]:
    """What the run did, from its settings."""
    settings = m["settings"]
    network, train = settings.get("network"), settings.get("train")
    if not network or not train:  # a report by hand
        return []
    arch = named_step(network["arch"])[0]
    taps = f", whose head reads {joined(network['taps'])}" if network["taps"] else ""
    start = f" It starts from {network['start_from']}'s best" if network["start_from"] else ""
    start += ", with a new head." if network.get("new_head") else "." if start else ""
    applied, off = _augment(m), ""
    steps = ", ".join(map(step_text, applied))
    if len(applied) < len(settings.get("augment", [])):
        off = " Flips are off: a mirrored picture is another one here."
    augment = (f"Augmentation: {steps}." if steps else "No augmentation.") + off
    how = f"{train['epochs']} epochs of {m['data']['train']:,} pictures in batches of "
    how += f"{train['batch_size']}; {train['optimizer']}, rate {train['lr']:g}"
    how += f" (the head's {train['head_lr']:g})" if train.get("head_lr") else ""
    how += f", schedule {step_text(train['schedule'])}"
    how += f", weight decay {train['weight_decay']:g}" if train["weight_decay"] else ""
    how += f", label smoothing {train['label_smoothing']:g}" if train["label_smoothing"] else ""
    test = f"Test-time augmentation: {m['tta']}." if m["tta"] != "none" else "A single test pass."
    pictures = f"{arch} on pictures of {m['image_size']} px, weights {m['weights']['name']}{taps}."
    trained = f"What trains: {', '.join(m['trainable'])}."
    return [pictures + start, trained, f"{augment} {how}.", test]


def _augment(m: dict) -> list:
    """The augmentation that was applied: without flips where a mirrored picture is another."""
    steps = m["settings"].get("augment", [])
    return [s for s in steps if m["data"].get("mirror", True) or named_step(s)[0] != "flip"]


def step_text(step: object) -> str:
    """A named step of a config in words, "rotate (degrees 10)"; anything else as it is."""
    if not isinstance(step, dict) or len(step) != 1:
        return str(step)
    ((name, options),) = step.items()
    if not isinstance(options, dict):
        return name if options is None else str(step)
    listed = ", ".join(f"{key} {value}" for key, value in options.items())
    return f"{name} ({listed})" if listed else name


def _changed(m: dict, below: dict) -> Table | None:
    """The settings that differ from the level below's, of those that bear on the network."""
    own, other = (
        flat(run["settings"]) | {"augment": _augment(run), "test.tta": run["tta"]}
        for run in (m, below)
    )
    shown = {key for key in own | other if key.split(".")[0] in COMPARED} - NOT_COMPARED
    rows = [
        [key, _value(other.get(key)), _value(own.get(key))]
        for key in sorted(shown)
        if own.get(key) != other.get(key)
    ]
    return Table(["setting", below["level"], m["level"]], rows) if rows else None


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(step_text, value)) or "none"
    return "none" if value is None else step_text(value)


def _tta(m: dict) -> str:
    if m["tta"] == "none":
        return (
            "test is a single pass, so test_single is the same: there is no test-time augmentation."
        )
    return f"test_single is a single pass; test uses test-time augmentation: {m['tta']}."


def _limits(m: dict) -> list[str]:
    """What the number does not say."""
    said = [
        f"It is one run: seed {m['seed']}, one split. The interval covers the draw of the test "
        "pictures, not what another seed or split would change.",
        "Val chose the epoch, so the accuracy on val flatters. Test chose nothing.",
    ]
    if m["tta"] != "none":
        changed = (m["test"]["correct"] - m["test_single"]["correct"]) / m["test"]["total"]
        said.append(
            f"Test-time augmentation changed it by {points(changed)} points, for more than one "
            "pass a picture."
        )
    if m["train"]["total"] < m["data"]["train"]:
        said.append(
            f"Train accuracy is that of {m['train']['total']:,} of the {m['data']['train']:,} "
            "training pictures, the same ones for every run."
        )
    if m["data"]["skipped"]:
        said.append(f"{m['data']['skipped']} unreadable pictures were left out.")
    if m["data"].get("dropped"):
        said.append(
            f"{m['data']['dropped']} training pictures were left out, as copies of val or test "
            "pictures."
        )
    said.append(
        "The test pictures come from where the training pictures come from; others may fare worse."
    )
    return said


def _frozen(m: dict) -> str:
    trained = f"{m['trained_parameters']:,} of {m['parameters']:,} parameters train"
    before, after = m["frozen"]["before"], m["frozen"]["after"]
    if not before:
        return f"{trained}; nothing was frozen."
    if before == after:
        return f"{trained}; the rest is unchanged: SHA-256 {before} before and after."
    return f"{trained}; the rest changed, and must not: SHA-256 {before} before, {after} after."
