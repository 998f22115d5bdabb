"""The benchmark: the plain pipeline is the same recipe, and what the page and the figures say."""

import json
import os
import sys
from dataclasses import replace

import pytest
import torch

from common import levels
from common.bench import __main__, peak, startup, suite, worker
from common.bench import page as bench_page
from common.bench.plain import Ways, fit_and_test
from common.config import LevelConfig, NetworkConfig, load_config
from common.reports.figures import charts
from common.runtime import counter_seed
from common.utils.errors import UserError
from common.utils.processes import run_measured, tree_memory
from helpers.networks import CPU, quick, small_network, small_splits
from helpers.projects import NAMES


def level_run(name, pipeline, folder, start=None):
    """A pipeline on 150 digits, in this process; its answer."""
    level = levels.find_level(name)
    options = ["--offline", "--data.limit=150", "--train.precision=float32", "--train.threads=1"]
    config = load_config(level / "config.yaml", [*options, "--network.image_size=32"])
    config.train.epochs, config.train.batch_size = 2, 32
    torch.manual_seed(counter_seed(0, "start"))
    data = worker.load_data(config, 40)
    network = levels.load_module(level).build_network(config, 10)
    machine = replace(CPU, fast=config.fast)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    answer = worker.timed(pipeline, network, data, config, machine, folder)
    return answer, network.state_dict()


@pytest.mark.parametrize("name", [NAMES[0], NAMES[1], NAMES[3]])
def test_the_plain_loop_on_our_batches_ends_with_our_weights(name, tmp_path):
    """The two are the same recipe: they differ by rounding alone."""
    ours, own = level_run(name, "ours", tmp_path)
    plain, other = level_run(name, "layout", tmp_path)
    assert ours["total"] == plain["total"] == 40
    assert abs(ours["correct"] - plain["correct"]) <= 1
    assert ours["kept_bytes"] > plain["kept_bytes"] == 0
    for key, value in own.items():
        if value.dtype == torch.float32:
            # Adam's first steps turn a rounded zero gradient into a whole step of lr
            assert (value - other[key]).abs().mean() <= 2e-4 * value.abs().mean() + 1e-6, key


@pytest.mark.parametrize("pipeline", worker.PIPELINES)
def test_every_pipeline_learns(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    config = LevelConfig(train=quick(epochs=8, lr=0.02))
    network, data = small_network(["c", "head"]), small_splits()
    answer = worker.timed(pipeline, network, data, config, CPU, tmp_path)
    assert answer["total"] == len(data.test) and answer["seconds"] > 0
    assert answer["correct"] / answer["total"] > 0.5
    assert (answer["kept_bytes"] > 0) == (pipeline == "ours")


def test_the_plain_pipeline_augments_train_alone_and_averages_tta(tmp_path):
    data, config = (
        small_splits(size=32),
        LevelConfig(train=quick(epochs=1), augment=["flip", "crop"]),
    )
    config.test.tta = "flip"
    network = small_network(["c", "head"])
    correct, total = fit_and_test(network, data, config, CPU, Ways(), tmp_path)
    assert total == len(data.test) and 0 <= correct <= total
    config.augment = ["flap"]
    with pytest.raises(UserError, match="no counterpart of augment step 'flap'"):
        fit_and_test(network, data, config, CPU, Ways(), tmp_path)


def test_operations_are_those_of_the_formula():
    """ResNet-18 at 224 px: torchvision's 1.814e9 multiply-adds, less those of its classifier."""
    config = LevelConfig(network=NetworkConfig(weights="none"), train=quick())
    trunk = peak._trunk(config, CPU, 224, all_frozen=True)
    counted = peak._operations(trunk.network, 224, training=False)
    assert abs(counted / 2 - 1.814e9 + 512 * 1000) < 1e6
    trunk = peak._trunk(config, CPU, 64, all_frozen=False)
    counted = peak._operations(trunk.network, 64, training=True)
    first = 4 * 9 * 256 * 512 + 4 * 256 * 512  # its input needs no gradient: 2 of 3 products
    rest = 3 * 4 * 9 * 512 * 512 + 512 * 10
    assert counted == 2 * (2 * first + 3 * rest)


def test_shares_of_the_peak_are_shares(monkeypatch):
    monkeypatch.setattr(peak, "SIDES", (64,))
    config = LevelConfig(network=NetworkConfig(weights="none"), train=quick(batch_size=2))
    found = peak.shares(config, CPU)
    assert found["peak"] > 1e6 and all(found[key] > 0 for key in ("trunk_224", "train_64"))


def test_memory_of_a_tree_counts_its_children(tmp_path):
    script = "import subprocess, sys; x = b'1' * 60_000_000; import time; time.sleep(2.5)"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}])"
    peak_bytes = run_measured([sys.executable, "-c", child], tmp_path)
    if tree_memory(os.getpid()) is None:
        pytest.skip("no /proc here")
    assert 60e6 < peak_bytes < 200e6


def test_a_run_that_fails_says_why(tmp_path):
    fail = "import sys; print('error: no such thing', file=sys.stderr); sys.exit(%d)"
    with pytest.raises(UserError, match="^no such thing"):
        run_measured([sys.executable, "-c", fail % 2], tmp_path)
    with pytest.raises(RuntimeError, match="no such thing"):
        run_measured([sys.executable, "-c", fail % 1], tmp_path)


def test_the_page_says_what_was_measured(tmp_path, monkeypatch):
    """The command's own path, with runs that answer at once."""
    seconds = dict(zip(worker.PIPELINES, (60.0, 48.0, 40.0, 20.0, 10.0, 5.0), strict=True))
    asked = []

    def answer(self, level, pipeline, pictures, size, *options):
        asked.append((level.name, pipeline, pictures, size, *options))
        return {
            "seconds": seconds[pipeline],
            "pictures_per_second": 1000.0,
            "accuracy": 0.8,
            "interval": [0.78, 0.82],
            "peak_bytes": 2**30 if pipeline == "ours" else 2**31,
            "picture_bytes": 3 * 2**20,
            "kept_bytes": 5 * 2**20,
        }

    monkeypatch.setattr(suite.Bench, "run", answer)
    shares = {"peak": 1e12, "trunk_224": 0.75, "train_64": 0.5}
    monkeypatch.setattr(peak, "shares", lambda *_: shares)
    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--offline", f"--reports={tmp_path}"])
    __main__.main()
    report = json.loads((tmp_path / "bench.json").read_text())
    assert list(report["levels"]) == NAMES and report["share_of_peak"] == shares
    level = report["levels"][NAMES[1]]
    assert level["ratio"] == 12 and level["peak_memory_ratio"] == 0.5 and level["within_interval"]
    names = ["data path", "layout", "precision", "folding", "keeping"]
    assert list(level["breakdown"]) == names
    assert list(level["breakdown"].values()) == [60 / 48, 1.2, 2, 2, 2]
    assert all(asked[i][1:] == ("ours", 2000, 64) for i in range(0, 8, 2))
    assert all(asked[i][1:] == ("plain", 2000, 64) for i in range(1, 8, 2))
    long = "--train.epochs", "10"
    kept = [a for a in asked if a[4:] == long]
    assert kept == [(NAMES[1], p, 2000, 64, *long) for p in ("ours", "plain")]
    page = (tmp_path / "bench.md").read_text()
    row = "| level2_augmentation | 5.0 s | 60.0 s | 12.0 | 1,000 | 80.0 % (78.0 to 82.0) |"
    assert page.count(row) == 2
    assert "## At 64 px, 2,000 training pictures, 10 epochs, of which ours keeps 2 views" in page
    assert "| trunk, 224 px | 75 % | 750 |" in page
    assert (tmp_path / "bench.svg").stat().st_size > 5000
    report["large"] = {"image_size": 224, "pictures": 2000, "levels": report["levels"]}
    assert "## At 224 px, 2,000 training pictures" in bench_page.page(report)
    assert len(charts.speed(report).axes) == 3


@pytest.mark.slow
def test_the_start_is_measured(monkeypatch):
    monkeypatch.setattr(startup, "PICTURES", 60)
    monkeypatch.setattr(startup, "REPEATS", 1)
    lines = startup.measure(["--offline", "--train.epochs=1", "--network.image_size=32"])
    seconds = [float(line.split(" s ")[0]) for line in lines.splitlines()]
    assert len(seconds) == 8 and all(s > 0 for s in seconds)
    assert seconds[5] == pytest.approx(seconds[6] + seconds[7], abs=0.02)


def test_a_command_that_ends_with_an_error_is_timed_too():
    assert startup._seconds(["-c", "import sys; sys.exit(2)"]) > 0
