"""The benchmark's page: bench.json as Markdown."""

from pathlib import Path

from common.reports.markdown import templates
from common.reports.text import duration, listing, percent

PAGE = Path(__file__).with_name("page.md")


def page(report: dict, picture: str = "bench.svg") -> str:
    """The page of a benchmark's report."""
    template = templates.from_string(PAGE.read_text(encoding="utf-8"))
    words = {"accuracy": _accuracy, "listing": listing, "memory": _memory, "seconds": _seconds}
    return template.render(r=report, picture=picture, **words)


def _accuracy(fraction: float, interval: list[float]) -> str:
    low, high = interval
    return f"{percent(fraction)} ({100 * low:.1f} to {100 * high:.1f})"


def _seconds(count: float) -> str:
    return duration(count) if count >= 100 else f"{count:.1f} s"


def _memory(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**20:,.0f} MiB"
