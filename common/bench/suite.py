"""What the benchmark measures: runs in processes of their own, and the report over them."""

import json
import logging
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from common import levels
from common.bench import page, peak
from common.bench.worker import PIPELINES, load_data
from common.config import LevelConfig, load_config
from common.evaluation.statistics import wilson_interval
from common.models import input_size
from common.reports.figures import charts
from common.reports.figures.style import svg
from common.runtime import provenance, start_runtime
from common.utils import paths
from common.utils.files import check_writable, write_together
from common.utils.paths import expanded
from common.utils.processes import run_measured

log = logging.getLogger("rungs")

WHOLE, FEW = 12_500, 2_000  # training pictures, a fifth of them val; test has as many as val
LONG = 10  # epochs: where a level keeps augmented views of each picture, they come again and again
LARGE = 224  # px, at which the levels are compared once more
GROWTH = {"pictures": (5_000, 10_000, 20_000, 50_000), "image_size": (64, 96, 128, 160, 224)}


@dataclass
class Bench:
    """Runs of the benchmark, with the options of the command line.

    Attributes:
        arguments: a level's options, as on its own command line.
        folder: for checkpoints and answers.
        best: level -> the checkpoint that our own latest run of it left.
    """

    arguments: list[str]
    folder: Path
    best: dict[str, Path] = field(default_factory=dict)

    def config(self, level: Path) -> LevelConfig:
        """A level's configuration."""
        return load_config(level / "config.yaml", self.arguments, prog="python -m common.bench")

    def run(self, level: Path, pipeline: str, pictures: int, size: int, *options: str) -> dict:
        """One pipeline on so many training pictures: seconds, accuracy, interval, peak memory."""
        folder = self.folder / f"{level.name}-{pipeline.replace(' ', '-')}"
        folder.mkdir(exist_ok=True)
        start = self.best.get(self.config(level).network.start_from)
        more = ["--data.limit", str(pictures), "--network.image_size", str(size), *options]
        request = {
            "level": str(level),
            "arguments": [*self.arguments, *more],
            "pipeline": pipeline,
            "start": str(start) if start else None,
            "test": pictures // 5,
            "folder": str(folder),
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "common.bench.worker", str(folder / "request.json")]
        memory = run_measured(command, paths.PROJECT)
        answer = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
        if pipeline == "ours" and not options:
            self.best[level.name] = folder / "best.pt"
        correct, total = answer["correct"], answer["total"]
        answer |= {"accuracy": correct / total, "interval": list(wilson_interval(correct, total))}
        log.info(
            "%s, %s, %d pictures, %d px: %.1f s, test accuracy %.1f %%",
            *(level.name, pipeline, pictures, size, answer["seconds"], 100 * answer["accuracy"]),
        )
        return answer | {"peak_bytes": memory}

    def compare(self, pictures: int, size: int) -> dict[str, dict]:
        """Each level by ours and by the plain pipeline, in turn."""
        return {level.name: self.versus(level, pictures, size) for level in levels.find_levels()}

    def versus(self, level: Path, pictures: int, size: int, *options: str) -> dict:
        """A level, with further options, by ours and by the plain pipeline."""
        ours, plain = (self.run(level, p, pictures, size, *options) for p in ("ours", "plain"))
        low, high = plain["interval"]
        memory = None
        if ours["peak_bytes"] and plain["peak_bytes"]:
            memory = ours["peak_bytes"] / plain["peak_bytes"]
        return {
            "ratio": plain["seconds"] / ours["seconds"],
            **{f"ours_{key}": value for key, value in _shown(ours).items()},
            **{f"plain_{key}": value for key, value in _shown(plain).items()},
            "within_interval": low <= ours["accuracy"] <= high
            and ours["interval"][0] <= plain["accuracy"] <= ours["interval"][1],
            "peak_memory_ratio": memory,
            "picture_bytes": ours["picture_bytes"],
            "kept_bytes": ours["kept_bytes"],
        }

    def breakdown(self, level: Path, pictures: int, size: int) -> dict[str, float]:
        """How much faster each way makes it, given those before it; their product is the ratio."""
        seconds = [self.run(level, p, pictures, size)["seconds"] for p in PIPELINES]
        names = [*PIPELINES[1:-1], "keeping"]
        return {n: a / b for n, a, b in zip(names, seconds[:-1], seconds[1:], strict=True)}

    def growth(self, level: Path, size: int, quick: bool) -> dict[str, list[dict]]:
        """Time and memory of our run of a level over the pictures' number and size."""
        most = len(load_data(self.config(level), 1).train) * 5 // 4
        counts = [n for n in GROWTH["pictures"] if n <= (FEW if quick else most)] or [FEW]
        runs = {"pictures": [(n, size) for n in counts]}
        runs["image_size"] = [(FEW, s) for s in GROWTH["image_size"] if s <= (96 if quick else 999)]
        return {
            name: [
                {"pictures": n, "image_size": s} | _shown(self.run(level, "ours", n, s))
                for n, s in pairs
            ]
            for name, pairs in runs.items()
        }


def _shown(answer: dict) -> dict:
    shown = "pictures_per_second", "accuracy", "interval", "peak_bytes"
    return {"s": answer["seconds"]} | {key: answer[key] for key in shown}


def measure(options: list[str], quick: bool) -> None:
    """Run it all with these options of a level, and write the report."""
    found = levels.find_levels()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(options, Path(folder))
        config = bench.config(found[0])
        machine, size = start_runtime(config.train, config.fast), input_size(config.network)
        place = expanded(config.reports or paths.PROJECT / "reports")
        check_writable(place, "choose another with --reports")
        data, gpu = load_data(config, 1), machine.device.type == "cuda"
        pictures = WHOLE if not gpu else len(data.train) + len(data.val)
        pictures = FEW if quick else pictures
        size = LARGE if gpu and not quick else size
        small = min(pictures, FEW)
        shares = peak.shares(config, machine)
        report = {
            "schema": 1,
            "data": data.title,
            "weights": config.network.weights_title or config.network.weights,
            "image_size": size,
            "pictures": pictures,
            "levels": bench.compare(pictures, size),
            "breakdown_pictures": small,
            "share_of_peak": shares,
            "large": None,
            "long": None,
            "growth": None,
            **provenance(machine),
        }
        for level in found:
            report["levels"][level.name]["breakdown"] = bench.breakdown(level, small, size)
        if not quick and size != LARGE:
            report["large"] = {"image_size": LARGE, "pictures": FEW}
            report["large"]["levels"] = bench.compare(FEW, LARGE)
        middle = found[min(1, len(found) - 1)]
        views = bench.config(middle).train.views
        report["long"] = {"epochs": LONG, "views": views, "level": middle.name}
        report["long"] |= bench.versus(middle, pictures, size, "--train.epochs", str(LONG))
        report["growth"] = {"level": middle.name, **bench.growth(middle, size, quick)}
    stem = "bench_gpu" if gpu else "bench"
    text = json.dumps(report, indent=2, ensure_ascii=False)
    page_text, picture = page.page(report, f"{stem}.svg"), svg(charts.speed(report))
    files = {".json": text + "\n", ".md": page_text, ".svg": picture}
    files = {place / f"{stem}{suffix}": content for suffix, content in files.items()}
    write_together(files, instead_of=[place / f"{stem}.png"])  # of an earlier one
    log.info("%s", place / f"{stem}.md")
