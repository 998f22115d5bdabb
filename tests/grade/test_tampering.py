"""The grader: what it catches, whether tampered with, broken or hostile."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.config import DataConfig
from common.data import load_splits
from common.grade import sandbox
from common.reports import restore
from common.training.checkpoint import read_checkpoint
from common.utils.errors import UserError
from helpers.handed_in import MINE, TOTAL, best, change_metrics, content_of, write
from helpers.projects import NAMES

pytestmark = pytest.mark.xdist_group("grade")  # one process has run the networks

NETWORKS = sandbox.test_logits  # as it is, whatever a test makes of it


# ---- the six kinds of tampering ----


def test_changed_metrics(copy, failures):
    def better(metrics):
        metrics["test"] |= {"correct": TOTAL - 1, "accuracy": (TOTAL - 1) / TOTAL}

    change_metrics(copy, NAMES[0], better)
    found = failures(copy)
    assert found.keys() == {NAMES[0]} and found[NAMES[0]].keys() == {"metrics.json"}
    assert f"test {TOTAL - 1} of {TOTAL}" in found[NAMES[0]]["metrics.json"]


def test_a_start_that_was_not(copy, failures):
    change_metrics(copy, NAMES[0], lambda m: m.update(adapted=5, start="elsewhere"))
    found = failures(copy)
    assert found.keys() == {NAMES[0]} and found[NAMES[0]].keys() == {"frozen parts"}
    says = "batch norm adapted on 5 pictures, by the report, instead of 192, another start"
    assert says in found[NAMES[0]]["frozen parts"]


@pytest.mark.slow
def test_changed_gains(copy, failures):
    changes = {"gain": 0.5, "p_value": 1e-9, "verdict": "loss", "fixed": 99}
    for name, (key, value) in zip([*NAMES[1:], MINE], changes.items(), strict=True):
        change_metrics(copy, name, lambda m, k=key, v=value: m["below"].update({k: v}))
    found = failures(copy)
    assert list(found) == [*NAMES[1:], MINE]
    assert all(checks.keys() == {"gain claimed"} for checks in found.values())
    assert "p_value 1e-09 instead of" in found[NAMES[2]]["gain claimed"]


def test_changed_predictions(copy, failures):
    file = copy / "runs/pets/reports" / NAMES[0] / "predictions.npz"
    with np.load(file) as saved:
        arrays = dict(saved)
    wrong = np.flatnonzero(arrays["predictions"] != arrays["labels"])[:10]
    arrays["predictions"][wrong] = arrays["labels"][wrong]
    arrays["logits"][wrong, arrays["labels"][wrong]] = 60
    assert len(wrong) == 10
    file.unlink()
    np.savez_compressed(file, **arrays)
    found = failures(copy)
    assert found.keys() == {NAMES[0]} and found[NAMES[0]].keys() == {"predictions.npz"}
    assert f"10 of {TOTAL} differ" in found[NAMES[0]]["predictions.npz"]


@pytest.mark.slow
def test_checkpoint_of_another_split(copy, pictures, failures):
    content = content_of(copy, NAMES[0])
    config = DataConfig(name="folder", root=str(pictures), split_seed=1)
    content["split"] = load_splits(config, 32).split
    content["settings"]["data"]["split_seed"] = 1
    write(best(copy, NAMES[0]), content)
    found = failures(copy)
    assert found.keys() == {NAMES[0]}
    assert "in the checkpoint" in found[NAMES[0]]["split"]
    seen = found[NAMES[0]]["checkpoint is this run's"]
    assert "data.split_seed 1 instead of 0" in seen


@pytest.mark.slow
def test_checkpoint_of_another_level(copy, failures):
    best(copy, NAMES[0]).unlink()
    shutil.copyfile(best(copy, NAMES[1]), best(copy, NAMES[0]))
    found = failures(copy)[NAMES[0]]
    assert found["checkpoint is this run's"].startswith(f"{NAMES[1]}'s checkpoint")
    assert "network.trainable ['layer4', 'head'] instead of ['head']" in str(found)
    assert "layer4" in found["frozen parts"]
    assert {"predictions.npz", "metrics.json"} <= found.keys()


@pytest.mark.slow
def test_report_without_checkpoint(copy, failures):
    best(copy, MINE).unlink()
    found = failures(copy)
    assert found.keys() == {MINE} and found[MINE].keys() == {"checkpoint"}
    assert "no such checkpoint" in found[MINE]["checkpoint"]


def test_altered_weights(copy, failures):
    content = content_of(copy, NAMES[0])
    content["network"]["stages.layer1.0.conv1.weight"][0, 0, 0, 0] += 1e-6
    content["network"]["stages.layer2.0.bn1.running_mean"] += 0.01  # that were estimated anew
    content["network"]["head.classify.weight"][0] += 0.5
    write(best(copy, NAMES[0]), content)
    found = failures(copy)[NAMES[0]]
    assert found["frozen parts"] == "2 of 120 changed, in layer1, layer2"
    assert found.keys() == {"frozen parts", "predictions.npz", "metrics.json"}


# ---- broken and hostile files ----


def test_malformed_reports(copy, failures):
    broken = {
        NAMES[0]: ("metrics.json", "{", "not JSON"),
        NAMES[1]: ("metrics.json", '{"schema": 1}', "'level' is missing"),
        NAMES[2]: ("history.json", "[]", "not a list of epochs"),
        MINE: ("predictions.npz", "PK", "unreadable"),
    }
    for name, (file, content, _) in broken.items():
        write(copy / "runs/pets/reports" / name / file, content)
    found = failures(copy)
    for name, (_, _, words) in broken.items():
        assert words in found[name]["report"]


def test_nothing_is_unpickled(copy, failures, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    content = content_of(copy, MINE)
    write(best(copy, MINE), content | {"trap": Trap()})
    file = copy / "runs/pets/reports" / NAMES[0] / "predictions.npz"
    with np.load(file) as saved:
        arrays = dict(saved) | {"classes": np.array([Trap()], dtype=object)}
    file.unlink()
    np.savez(file, **arrays)
    found = failures(copy)
    assert "not a readable checkpoint" in found[MINE]["checkpoint"]
    assert "unreadable" in found[NAMES[0]]["report"]
    assert not (tmp_path / "sprung").exists()


HOSTILE = {
    "raise ValueError('no')": "ValueError: no",
    "import os; os._exit(0)": "it ended without giving logits",
    "import time; time.sleep(600)": "it took more than 5 s",
    "print('x' * 10**6); return 'network'": "gives str, not a StagedNetwork",
}


def test_hostile_network_is_named(copy):
    checkpoint = best(copy, NAMES[0])
    settings = read_checkpoint(checkpoint)["settings"]
    config = restore.read_settings(settings, copy, None, None)
    data = load_splits(config.data, 32)
    few = replace(data, test=data.test.subset(torch.arange(4)))
    text = (copy / NAMES[0] / "run.py").read_text(encoding="utf-8")
    head = next(line for line in text.splitlines() if line.startswith("def build_network"))

    def said(number, code):
        level = copy / f"level{number}_hostile"
        level.mkdir()
        script = text.replace(head, f"{head}\n    {code}")
        (level / "run.py").write_text(script, encoding="utf-8")
        timeout = 5 if "sleep" in code else 100
        try:
            NETWORKS(level, config, checkpoint, few, timeout)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(said, range(10, 14), HOSTILE))
    for text, words in zip(texts, HOSTILE.values(), strict=True):
        assert words in text


def test_a_crash_is_one_levels_failure(copy, monkeypatch, failures):
    real = sandbox.test_logits

    def test_logits(level, *arguments):
        if level.name == NAMES[0]:
            raise UserError("it ended with status 1: no")
        return real(level, *arguments)

    monkeypatch.setattr(sandbox, "test_logits", test_logits)
    found = failures(copy)
    assert found[NAMES[0]] == {"network": "it ended with status 1: no"}
    assert NAMES[2] not in found
