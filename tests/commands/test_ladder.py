"""The four scripts, end to end: as a user runs them, and what they leave.

Without any option but one: the audit of each level is tested by itself.
"""

import ast
import json
import pickle

import numpy as np
import pytest
import torch
import torchvision
from scipy.special import logsumexp

from common.config import load_config
from common.training import checkpoint
from common.utils.files import file_hash
from helpers.makers import make_cifar_archive, write_sitecustomize
from helpers.projects import NAMES, PROJECT, copy_project, fresh_python
from helpers.reports import Reports

pytestmark = pytest.mark.xdist_group("ladder")  # one process makes what they share

TRAINS = [["head"], ["layer4", "head"], ["layer4", "head"], ["layer3", "layer4", "head"]]
REPORT = {"metrics.json", "history.json", "predictions.npz", "report.md"}
REPORT |= {"training_curves.svg", "confusion_matrix.svg"}
FIXED = {"schema", "level", "config", "seed", "data", "weights", "image_size", "trainable"}
FIXED |= {"epochs", "best_epoch", "train", "val", "test", "test_single", "frozen", "below"}
FIXED |= {"adapted", "start", "started_from", "place"}
FIXED |= {"seconds", "command", "commit", "machine", "versions"}
FURTHER = {"network", "parameters", "trained_parameters", "tta", "detail", "settings"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory, request):
    """Each run.py with no option, from another folder: CIFAR-10's format, torchvision's name."""
    place = tmp_path_factory.mktemp("plain")
    project = copy_project(place / "project")
    table = make_cifar_archive(project / "data", per_class=5, test_per_class=2)
    write_sitecustomize(place / "site", table)
    torch.manual_seed(0)
    weights = place / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    weights.parent.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    environment = {"TORCH_HOME": str(place / "torch"), "PYTHONPATH": str(place / "site")}
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    printed = [
        fresh_python(project / name / "run.py", "--audit=false", cwd=elsewhere, **environment)
        for name in (NAMES if request.config.getoption("--run-slow") else NAMES[:1])
    ]
    assert list(elsewhere.iterdir()) == [], "nothing is left where the user stands"
    reports = Reports(project / "runs/cifar-10/reports")
    reports.project, reports.weights, reports.printed = project, weights, printed
    return reports


SLOW = pytest.mark.slow  # at 224 px, minutes; the course on digits runs all four in the fast tier


@pytest.mark.parametrize("number", [1, *(pytest.param(n, marks=SLOW) for n in (2, 3, 4))])
def test_level_with_no_option(plain, number):
    name, trains = NAMES[number - 1], TRAINS[number - 1]
    m, saved = plain.metrics(name), plain.predictions(name)
    assert m.keys() == FIXED | FURTHER
    assert {file.name for file in (plain.folder / name).iterdir()} >= REPORT
    assert (m["schema"], m["level"], m["config"], m["seed"]) == (1, name, "config", 0)
    assert (m["image_size"], m["trainable"]) == (224, trains)
    assert m["weights"] == {"name": "imagenet", "sha256": file_hash(plain.weights)}
    assert m["epochs"] == [5, 3, 3, 2][number - 1] and m["seconds"] > 0
    assert m["command"] == f"python {name}/run.py --audit=false"

    classes, test_labels = archive_test_set(plain.project / "data")
    assert saved["classes"].tolist() == classes
    assert saved["labels"].tolist() == test_labels, "the official test set, in its order"
    hits = saved["predictions"] == saved["labels"]
    assert m["test"]["correct"] == hits.sum() and m["test"]["total"] == len(hits) == 20
    assert m["test"]["accuracy"] == hits.sum() / 20
    logits = saved["logits"].astype(np.float64)
    assert saved["logits"].dtype == np.float16 and logits.shape == (20, 10)
    assert (logits[np.arange(20), saved["predictions"]] == logits.max(1)).all()
    loss = (logsumexp(logits, axis=1) - logits[np.arange(20), saved["labels"]]).mean()
    assert m["test"]["loss"] == pytest.approx(loss, abs=5e-3), "up to float16's rounding"

    history = plain.history(name)
    kept = plain.project / "runs/cifar-10" / name
    assert load_config(kept / "config.yaml").settings() == m["settings"]
    assert json.loads((kept / "history.json").read_text()) == history
    accuracies = [entry["val_accuracy"] for entry in history]
    assert len(history) == m["epochs"]
    assert m["best_epoch"] == accuracies.index(max(accuracies)) + 1, "the earliest of the best"
    assert m["val"]["accuracy"] == max(accuracies) and m["val"]["total"] == 10
    assert m["train"]["total"] == 40 and m["data"]["title"] == "CIFAR-10"
    if number < 4:
        assert (m["test_single"], m["tta"]) == (m["test"], "none")
    else:
        assert m["tta"] == "flip" and m["test_single"]["loss"] != m["test"]["loss"]


def archive_test_set(data):
    """Class names and test labels, by pickle alone."""
    folder = data / "cifar-10-batches-py"
    names = pickle.loads((folder / "batches.meta").read_bytes())["label_names"]
    return names, pickle.loads((folder / "test_batch").read_bytes())["labels"]


@pytest.mark.parametrize("name", NAMES)
def test_a_level_is_audited_before_it_trains(name):
    """In its main; what the audit does is tested elsewhere."""
    tree = ast.parse((PROJECT / name / "run.py").read_text(encoding="utf-8"))
    (main,) = (node for node in tree.body if getattr(node, "name", "") == "main")
    calls = [ast.unparse(node) for node in ast.walk(main) if isinstance(node, ast.Call)]
    calls.sort(key=ast.unparse(main).index)
    audits = [i for i, call in enumerate(calls) if call == "run.audit(build_network)"]
    trains = [i for i, call in enumerate(calls) if call.startswith("fit(")]
    assert len(audits) == 1 and trains and audits[0] < trains[0]


@SLOW
def test_frozen_means_frozen(plain):
    hashes = [plain.metrics(name)["frozen"] for name in NAMES]
    assert all(h["before"] == h["after"] and len(h["before"]) == 64 for h in hashes)
    assert hashes[1] == hashes[2] != hashes[3], "levels 2 and 3 freeze the same, level 4 less"
    start = torch.load(plain.weights, weights_only=True)
    for name, trains in zip(NAMES, TRAINS, strict=True):
        best = checkpoint.read_checkpoint(plain.folder.parent / name / "best.pt")["network"]
        for key, value in start.items():
            part = key.split(".")[0]
            if part != "fc":
                own = f"stages.{key}" if part.startswith("layer") else f"stages.stem.{key}"
                changed = own in best and not torch.equal(best[own].float(), value)
                assert changed == (part in trains), (name, key)


@SLOW
def test_gains_and_the_ladder_page(plain):
    assert plain.metrics(NAMES[0])["below"] is None
    for below, name in zip(NAMES, NAMES[1:], strict=False):
        plain.check_gain(name, below)
    same = [{k: plain.metrics(n)["data"][k] for k in ("fingerprint", "split")} for n in NAMES]
    assert same[0] == same[1] == same[2] == same[3], "the same pictures, the same split"
    rows = plain.rows()
    assert list(rows) == NAMES
    for name, row in rows.items():
        accuracy = plain.metrics(name)["test"]["accuracy"]
        assert f"{100 * accuracy:.1f}" in " ".join(row), row


@SLOW
def test_level_4_starts_from_level_3s_best(plain, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(plain.weights.parents[2]))
    place = plain.folder.parent / NAMES[2] / "best.pt"
    network = load_config(plain.project / NAMES[2] / "config.yaml").network
    best = checkpoint.completed(checkpoint.read_checkpoint(place), network, place)
    assert f"runs/cifar-10/level3_fusion/best.pt, epoch {best['epoch']}" in (plain.printed[3])
    assert plain.metrics(NAMES[2])["best_epoch"] == best["epoch"]
    own = checkpoint.read_checkpoint(plain.folder.parent / NAMES[3] / "best.pt")
    assert (best["start"], own["start"]) == (None, checkpoint.digest(best["network"]))
