"""What pages are made of: figures in words, cells, and the tables of a run's report; plain text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.metrics import confusion_matrix

from common.evaluation.statistics import BINS, wilson_interval
from common.reports.schema import Run


@dataclass(frozen=True)
class Cell:
    """A table's cell.

    Attributes:
        text: as it is read.
        value: what it is sorted by.
        href: what it links to.
    """

    text: str
    value: float | str | None = None
    href: str | None = None

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.text)


class Table(NamedTuple):
    """A header and rows of cells, plain texts or `Cell`s."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]


def table_of(rows: Sequence[dict[str, str | Cell]]) -> Table:
    """Rows, each by column, as a table; columns in which nothing stands are left out.

    A row may lack columns of the longest one, which has all of them.
    """
    names = [name for name in max(rows, key=len, default={}) if any(row.get(name) for row in rows)]
    return Table(names, [[row.get(name, "") for name in names] for row in rows])


def probability(p: float) -> str:
    """A p-value: three decimals, or "< 0.001"; four near 0.05, so that it is seen on which side."""
    return "< 0.001" if p < 0.001 else f"{p:.4f}" if 0.0495 <= p < 0.0505 else f"{p:.3f}"


def percent(fraction: float) -> str:
    """0.831 as "83.1 %"."""
    return f"{100 * fraction:.1f} %"


def span(low: float, high: float) -> str:
    """The ends of an interval of fractions in percent: "80.2 to 84.9"."""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def duration(seconds: float) -> str:
    """12.3 as "12 s", 200 as "3 min 20 s", 3725 as "1 h 02 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def listing(mapping: dict) -> str:
    """ "cores 2, device cpu": a dict on one line, without what is not there."""
    return ", ".join(
        f"{key.replace('_gib', ' GiB')} {value}"
        for key, value in mapping.items()
        if value is not None
    )


def points(difference: float) -> str:
    """A difference of two fractions in signed percentage points; 0.021 gives "+2.1".

    What one decimal would round away gets two: 0.0002 gives "+0.02".
    """
    if difference == 0:
        return "0.0"
    text = f"{100 * difference:+.1f}"
    return text if float(text) else f"{100 * difference:+.2f}"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> str:
    """A table for a terminal: plain text, columns padded to their widest cell."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in lines
    )


def facts(m: dict) -> dict[str, str]:
    """What reports of one ladder should share."""
    return {
        "data": m["data"]["title"],
        "fingerprint": m["data"]["fingerprint"],
        "split": m["data"]["split"],
        "weights": m["weights"]["name"],
        "weights' SHA-256": m["weights"]["sha256"] or "none",
        "image size": f"{m['image_size']} px",
    }


def benchmark(m: dict) -> float | None:
    """The accuracy, a fraction, that the run's own config holds such a run to; None: nothing."""
    own = m["data"]["title"], m["weights"]["name"], m["image_size"]
    for row in m["settings"].get("benchmarks", []):
        if (row["data"], row["weights"], row["image_size"]) == own:
            return row["accuracy"] / 100
    return None


def gain_text(gain: dict) -> str:
    """A gain with its interval in percentage points: "+2.1 (+1.3 to +2.9)"."""
    low, high = map(points, gain["interval"])
    return f"{points(gain['gain'])} ({low} to {high})"


def gain_cells(gain: dict | None, name: str = "gain, points") -> dict[str, str]:
    """The cells that a comparison, if there is one, fills; its "level" says over which level."""
    if not gain:
        return {}
    over = f" over {gain['level'].split('_')[0]}" if "level" in gain else ""
    return {
        name: gain_text(gain) + over,
        "fixed / broken": f"{gain['fixed']:,} / {gain['broken']:,}",
        "p": probability(gain["p_value"]),
        "verdict": gain["verdict"],
    }


def results(m: dict) -> Table:
    """Accuracy and loss on each part of the pictures."""
    rows = []
    for name in ("train", "val", "test", "test_single"):
        part = m[name]
        ends = span(*wilson_interval(part["correct"], part["total"]))
        seen = f"{part['correct']:,} of {part['total']:,}"
        rows.append([name, percent(part["accuracy"]), ends, seen, f"{part['loss']:.4f}"])
    return Table(["on", "accuracy", "95 % interval", "right", "loss"], rows)


def detail(d: dict) -> Table:
    """What else is said of the test score; the temperature comes from val."""
    rows = [
        ["macro F1", f"{d['macro_f1']:.4f}", ""],
        *([["top-5 accuracy", percent(d["top5"]), ""]] if d["top5"] is not None else []),
        ["negative log-likelihood", f"{d['nll']:.4f}", f"{d['nll_scaled']:.4f}"],
        [f"expected calibration error ({BINS} bins)", f"{d['ece']:.4f}", f"{d['ece_scaled']:.4f}"],
    ]
    scaled = f"at temperature {d['temperature']:.2f}, fitted on val"
    return Table(["on test", "as it is", scaled], rows)


def network(stages: list[dict]) -> Table:
    """The stages and the head, as `summary.network_rows` gives them, and all together."""
    rows = []
    for stage in stages:
        total, trained = stage["parameters"], stage["trained_parameters"]
        some = "trains" if trained == total else f"{trained:,} parameters train"
        cells = [stage["name"], " × ".join(map(str, stage["output"]))]
        cells += [f"{total:,}", f"{stage['multiply_adds']:,}"]
        rows.append([*cells, some if stage["trains"] else "frozen"])
    sums = [f"{sum(row[key] for row in stages):,}" for key in ("parameters", "multiply_adds")]
    rows.append(["all", "", *sums, f"{sum(row['trained_parameters'] for row in stages):,} train"])
    header = ["stage", "output", "parameters", "multiply-adds a picture", "what trains"]
    return Table(header, rows)


def epochs(history: list[dict], best_epoch: int) -> Table:
    """What each epoch measured."""
    header = ["epoch", "rate", "train loss", "train accuracy", "val loss", "val accuracy", "time"]
    rows = []
    for epoch in history:
        chosen = " (chosen)" if epoch["epoch"] == best_epoch else ""
        row = [f"{epoch['epoch']}{chosen}", f"{epoch['lr']:g}"]
        for part in ("train", "val"):
            row += [f"{epoch[f'{part}_loss']:.4f}", percent(epoch[f"{part}_accuracy"])]
        row.append(f"{duration(epoch['seconds'])} ({epoch['pictures_per_second']:,.0f} pictures/s)")
        rows.append(row)
    return Table(header, rows)


def recall(run: Run) -> list[list[str]]:
    """A row a class that has test pictures, the worst first."""
    classes = run.classes
    counts = confusion_matrix(run.labels, run.predictions, labels=range(len(classes)))
    totals, right = counts.sum(1), counts.diagonal().copy()
    np.fill_diagonal(counts, 0)
    rows = []
    for i in np.argsort(right / totals.clip(1), kind="stable"):
        j = counts[i].argmax()
        mistake = f"{classes[j]} ({counts[i, j]})" if counts[i, j] else ""
        if totals[i]:
            rows.append([classes[i], str(totals[i]), percent(right[i] / totals[i]), mistake])
    return rows


def provenance(m: dict) -> Table:
    """What a run was made from, where and when."""
    data = m["data"]
    counts = f"{data['train']:,} train, {data['val']:,} val, {data['test']:,} test"
    rows = [
        ["commit", m["commit"] or "unknown"],
        *(list(fact) for fact in facts(m).items()),
        ["pictures", f"{counts}; {data['classes']} classes"],
        ["seed", str(m["seed"])],
        ["config", m["config"]],
        ["time", duration(m["seconds"])],
        ["machine", listing(m["machine"])],
        ["versions", listing(m["versions"])],
    ]
    return Table(["what", "value"], rows)
