"""The benchmark's page: bench.json as Markdown."""

from collections.abc import Callable, Sequence
from pathlib import Path

from common.reports.markdown import templates
from common.reports.text import duration, listing, percent

PAGE = Path(__file__).with_name("page.md")

Row = Callable[[dict], object]


def page(report: dict, picture: str = "bench.png") -> str:
    """The page of a benchmark's report."""
    parts = [_compared(report["levels"], report["image_size"], report["pictures"])]
    if report["large"]:
        large = report["large"]
        parts.append(_compared(large["levels"], large["image_size"], large["pictures"]))
    parts += [_breakdown(report), _share(report["share_of_peak"])]
    level = report["growth"]["level"]
    for what, rows in report["growth"].items():
        if what != "level":
            words = what.replace("image_size", "the pictures' side").replace("_", " ")
            parts.append(_growth(f"How {level} grows with {words}", rows))
    values = {
        "r": report,
        "picture": picture,
        "parts": parts,
        "few": f"{report['breakdown_pictures']:,}",
        "plain_type": "autocast to float16" if report["machine"]["gpu"] else "float32",
        "listing": listing,
    }
    return templates.from_string(PAGE.read_text(encoding="utf-8")).render(values)


def _part(title: str, columns: dict[str, Row], rows: Sequence[dict]) -> dict:
    cells = [[column(row) for column in columns.values()] for row in rows]
    return {"title": title, "header": list(columns), "rows": cells}


def _compared(levels: dict[str, dict], size: int, pictures: int) -> dict:
    columns: dict[str, Row] = {
        "level": lambda r: r["level"],
        "ours": lambda r: f"{r['ours_s']:.1f} s",
        "plain": lambda r: f"{r['plain_s']:.1f} s",
        "ratio": lambda r: f"{r['ratio']:.1f}",
        "pictures a second, ours": lambda r: f"{r['ours_pictures_per_second']:,.0f}",
        "test accuracy, ours": lambda r: _accuracy(r, "ours"),
        "test accuracy, plain": lambda r: _accuracy(r, "plain"),
        "peak memory, ours": lambda r: _bytes(r["ours_peak_bytes"]),
        "peak memory, plain": lambda r: _bytes(r["plain_peak_bytes"]),
        "pictures": lambda r: _bytes(r["picture_bytes"]),
        "kept": lambda r: _bytes(r["kept_bytes"]),
    }
    rows = [{"level": name} | row for name, row in levels.items()]
    return _part(f"At {size} px, {pictures:,} training pictures", columns, rows)


def _accuracy(row: dict, whose: str) -> str:
    low, high = row[f"{whose}_interval"]
    return f"{percent(row[f'{whose}_accuracy'])} ({100 * low:.1f} to {100 * high:.1f})"


def _breakdown(report: dict) -> dict:
    rows = [{"level": name} | row["breakdown"] for name, row in report["levels"].items()]
    ways = [name for name in rows[0] if name != "level"]
    columns = {"level": lambda r: r["level"]}
    columns |= {way: lambda r, way=way: f"{r[way]:.2f}" for way in ways}
    return _part("What brings it", columns, rows)


def _share(shares: dict[str, float]) -> dict:
    names = {"trunk_224": "trunk, 224 px", "train_64": "train step, 64 px"}
    rows = [(names[key], shares[key]) for key in names] + [("peak", 1.0)]
    columns: dict[str, Row] = {
        "work": lambda r: r[0],
        "share of the peak": lambda r: f"{100 * r[1]:.0f} %",
        "GFLOP/s": lambda r: f"{r[1] * shares['peak'] / 1e9:,.0f}",
    }
    return _part("Share of the machine's peak", columns, rows)


def _growth(title: str, rows: Sequence[dict]) -> dict:
    columns: dict[str, Row] = {
        "training pictures": lambda r: f"{r['pictures']:,}",
        "px": lambda r: r["image_size"],
        "time": lambda r: duration(r["s"]) if r["s"] >= 100 else f"{r['s']:.1f} s",
        "peak memory": lambda r: _bytes(r["peak_bytes"]),
    }
    return _part(title, columns, rows)


def _bytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**20:,.0f} MiB"
