"""The grader: what it recomputes, what it says, and what it is given to grade."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.functional import to_tensor

from common.grade import examine
from common.grade.checks import CHECKS
from helpers.handed_in import MINE, TOTAL, best, change_metrics, content_of, write
from helpers.projects import NAMES, PROJECT

pytestmark = pytest.mark.xdist_group("grade")  # one process has run the networks

# ---- nothing wrong ----


def test_clean_copy_passes(copy, run):
    before = sorted(str(f) for f in copy.rglob("*") if "__pycache__" not in f.parts)
    code, out, _ = run(copy)
    assert code == 0, out
    assert "5 of 5 levels pass" in out and "FAIL" not in out and "not run" not in out
    rows = {line.split()[0]: line for line in out.splitlines()[1:6]}
    assert list(rows) == [*NAMES, MINE]
    for name, row in rows.items():
        metrics = json.loads((copy / "runs/pets/reports" / name / "metrics.json").read_text())
        assert f"{100 * metrics['test']['accuracy']:.2f} %" in row and " pass " in row
    assert "cannot prove what a checkpoint was trained on" in out
    assert "no row for pets, tiny-imagenet, 32 px: gains and integrity only" in out
    assert f"0 of {TOTAL} differ" in out and "0 exact copies" in out
    assert sorted(str(f) for f in copy.rglob("*") if "__pycache__" not in f.parts) == before


def test_two_recipes_of_a_level_are_graded_each_by_its_own_report(copy, run):
    reports = copy / "runs/pets/reports"
    for name in (NAMES[0], f"{NAMES[0]}-wide"):
        metrics = json.loads((reports / name / "metrics.json").read_text())
        assert metrics["settings"]["train"]["lr"] == (2e-3 if "wide" in name else 5e-4)
        code, out, _ = run(copy, "--run", name)
        assert code == 0 and "FAIL" not in out, out
        assert f"{100 * metrics['test']['accuracy']:.2f} %" in out


@pytest.mark.parametrize("name", NAMES)
def test_figures_equal_an_independent_recomputation(copy, pictures, run, name):
    """By torchvision's network, its own folder of pictures, and the head written out."""
    code, out, _ = run(copy / name, "--format", "json")
    graded = json.loads(out)
    state = content_of(copy, name)["network"]
    files = sorted((pictures / "test").glob("*/*.png"))
    labels = torch.arange(TOTAL) // (TOTAL // 4)
    pixels = torch.stack([to_tensor(Image.open(file)) for file in files])
    logits = [recomputed(state, pixels)]
    if name == NAMES[3]:
        logits.append(recomputed(state, pixels.flip(3)))
    logits = torch.stack(logits).mean(0).double()
    correct = int((logits.argmax(1) == labels).sum())
    loss = float((logits.logsumexp(1) - logits[torch.arange(TOTAL), labels]).mean())
    assert code == 0 and graded["total"] == TOTAL
    assert (graded["correct"], graded["accuracy"]) == (correct, correct / TOTAL)
    assert graded["loss"] == pytest.approx(loss, rel=2e-6), "to the last digit of float32"
    _, printed, _ = run(copy / name)
    assert f"test accuracy {100 * correct / TOTAL:.2f} % ({correct} of {TOTAL}), loss " in printed


def recomputed(state, pixels):
    """Logits of pictures in [0, 1] from a checkpoint's weights, apart from our code."""
    network = torchvision.models.resnet18(num_classes=1)
    plain = {key.removeprefix("stages.").removeprefix("stem."): v for key, v in state.items()}
    missing, _ = network.load_state_dict(plain, strict=False)
    assert missing == ["fc.weight", "fc.bias"]
    maps = {}
    for layer in ("layer2", "layer3", "layer4"):
        getattr(network, layer).register_forward_hook(lambda m, i, o, n=layer: maps.update({n: o}))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = torch.nn.functional.interpolate(pixels, (32, 32), mode="bilinear")
    with torch.inference_mode():
        network.eval()((pixels - mean) / deviation)

        def normalised(x, name):
            several = slice(None), *[None] * (x.ndim - 2)
            mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
            return (x - mean[several]) / (variance[several] + 1e-5).sqrt()

        head, read = "head", [maps["layer4"].mean((2, 3))]

        def normed(x, name):
            scale, shift = (state[f"{name}.{k}"][:, None, None] for k in ("weight", "bias"))
            return normalised(x, name) * scale + shift

        def block(x, name):  # a ResNet's that halves the map
            weights = (state[f"{name}.{k}.weight"] for k in ("conv1", "conv2", "downsample.0"))
            first, second, beside = weights
            y = normed(torch.conv2d(x, first, stride=2, padding=1), f"{name}.bn1").relu()
            y = normed(torch.conv2d(y, second, padding=1), f"{name}.bn2")
            return (y + normed(torch.conv2d(x, beside, stride=2), f"{name}.downsample.1")).relu()

        if "head.blocks.0.0.conv1.weight" in state:
            head, x = "head.classifier", block(maps["layer2"], "head.blocks.0.0")
            x = block((x + maps["layer3"]) / 2, "head.blocks.1.0")
            read = [y for m in (x, maps["layer4"]) for y in (m.mean((2, 3)), m.amax((2, 3)))]
        read = normalised(torch.cat(read, 1), f"{head}.normalise")
        return read @ state[f"{head}.classify.weight"].T + state[f"{head}.classify.bias"]


def test_json_has_the_recomputed_gain(copy, run):
    _, out, _ = run(copy, "--format", "json")
    graded = {level["level"]: level for level in json.loads(out)["levels"]}
    rights = {}
    for name in graded:
        with np.load(copy / "runs/pets/reports" / name / "predictions.npz") as saved:
            rights[name] = saved["labels"] == saved["predictions"]
    assert graded[NAMES[0]]["below"] is None
    for below, name in zip([*NAMES], [*NAMES[1:], MINE], strict=True):
        gain, new, old = graded[name]["below"], rights[name], rights[below]
        assert gain["level"] == below
        assert gain["fixed"] == (new & ~old).sum() and gain["broken"] == (old & ~new).sum()
        assert gain["gain"] == (gain["fixed"] - gain["broken"]) / TOTAL
        low, high = gain["interval"]
        assert low < gain["gain"] < high
    assert graded[NAMES[1]]["below"]["verdict"] == "gain"
    assert graded[MINE]["below"]["verdict"] == "not shown", "the same recipe as level 4's"
    assert graded[MINE]["passed"]


def test_formats_parse(copy, run, tmp_path):
    best(copy, MINE).unlink()
    code, _, _ = run(copy, "--format", "gradescope", "--output", tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert code == 1 and results.keys() == {"output", "tests"}
    keys = {"name", "score", "max_score", "status", "output"}
    assert all(test.keys() == keys for test in results["tests"])
    assert all((t["status"] == "passed") == (t["score"] == 1) for t in results["tests"])
    failed = [t["name"] for t in results["tests"] if t["status"] == "failed"]
    assert len(results["tests"]) == 5 * len(CHECKS)
    assert all(name.startswith(MINE) for name in failed) and f"{MINE}: checkpoint" in failed

    code, out, _ = run(copy, "--format", "junit")
    root = ElementTree.fromstring(out)
    suites = {suite.get("name"): suite for suite in root}
    assert code == 1 and list(suites) == [*NAMES, MINE]
    assert [suite.get("failures") for suite in root] == ["0", "0", "0", "0", "1"]
    assert len(suites[MINE].findall("testcase/failure")) == 1
    skipped = suites[MINE].findall("testcase/skipped")
    assert len(skipped) == int(suites[MINE].get("skipped")) > 5


# ---- benchmarks, gains, what is graded ----


def set_bar(project, name, row):
    file = project / name / "config.yaml"
    text = file.read_text(encoding="utf-8").split("benchmarks:")[0]
    write(file, f"{text}benchmarks:\n- {{{row}}}\n")


@pytest.mark.slow
def test_benchmark_of_an_added_level(copy, run, failures):
    set_bar(copy, MINE, "data: pets, weights: tiny-imagenet, image_size: 32, accuracy: 1")
    code, out, _ = run(copy)
    assert code == 0 and "expected at least 1 %" in out
    set_bar(copy, MINE, "data: pets, weights: tiny-imagenet, image_size: 32, accuracy: 100.1")
    found = failures(copy)
    assert found.keys() == {MINE} and found[MINE].keys() == {"benchmark"}
    set_bar(copy, NAMES[0], "data: pets, weights: tiny-imagenet, image_size: 32, accuracy: 100.1")
    assert NAMES[0] not in failures(copy), "the bars are this checkout's where it has the level"


def test_a_title_does_not_lower_the_bar(copy, failures):
    change_metrics(copy, MINE, lambda m: m["data"].update(title="CIFAR-10"))
    shutil.copytree(copy / "runs/pets" / MINE, copy / "runs/cifar-10" / MINE)
    assert "data.title CIFAR-10 instead of pets" in failures(copy)[MINE]["metrics.json"]


def test_a_missing_level_fails(copy, failures):
    shutil.rmtree(copy / NAMES[3])
    assert "no level4_finetune_tta/run.py" in failures(copy)[NAMES[3]]["report"]


def test_reports_folder_is_chosen_by_its_checkpoints(copy, run):
    shutil.copytree(copy / "runs/pets/reports", copy / "reports")
    for metrics in (copy / "reports").glob("*/metrics.json"):
        content = json.loads(metrics.read_text(encoding="utf-8"))
        content["place"] = content["data"]["title"] = "elsewhere"
        write(metrics, json.dumps(content))
    code, out, _ = run(copy)
    assert code == 0 and f"Graded: the reports in {copy}/runs/pets/reports" in out
    assert f"Other reports (--reports chooses): {copy}/reports" in out
    code, out, _ = run(copy, "--reports", "reports")
    assert code == 1 and out.count("no such checkpoint") == 5


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["/nowhere"], "/nowhere: no project to grade"),
        ([str(PROJECT / "tests")], "no project to grade"),
        (["--formt", "json"], "unrecognized arguments: --formt; did you mean '--format'?"),
        (["--format", "yaml"], "invalid choice"),
        (["--timeout", "-1"], "must be above 0"),
        (["{copy}", "--reports", "none"], "--reports: no folder"),
        (["{empty}"], "no saved weights"),
    ],
)
def test_bad_input(copy, run, arguments, words):
    shutil.copytree(copy / MINE, copy / "elsewhere" / MINE)
    places = {"{copy}": copy, "{empty}": copy / "elsewhere" / MINE}
    code, out, err = run(*[places.get(a, a) for a in arguments])
    assert code == 2 and out == "" and err.count("\n") == 1
    assert err.startswith("error: ") and words in err


@pytest.mark.slow
def test_data_root_says_where_the_pictures_are(copy, pictures, run, failures):
    elsewhere = shutil.copytree(pictures, copy.parent / "here")
    for file in copy.glob("runs/pets/reports/*/metrics.json"):
        change_metrics(
            copy, file.parent.name, lambda m: m["settings"]["data"].update(root="/nowhere/pets")
        )
    assert all("--data-root says where" in f["data"] for f in failures(copy).values())
    code, out, _ = run(copy, "--data-root", elsewhere)
    assert code == 0, out
    (elsewhere / "train/cat/000.png").unlink()
    assert all(
        "in the report" in f["data"] for f in failures(copy, "--data-root", elsewhere).values()
    )


def test_paths_are_where_the_command_was_typed(copy, run, monkeypatch):
    """Networks and repeated runs are processes with other working folders."""
    found = []
    monkeypatch.setattr(examine, "score_level", lambda _, grader: found.append(grader) or ({}, []))
    monkeypatch.chdir(copy.parent)
    run(copy / MINE, "--weights", "w.pth", "--data-root", "~/pets", "--format", "json")
    run(copy / MINE, "--format", "json")
    places = [(grader.weights, grader.data_root) for grader in found]
    assert places == [(str(copy.parent / "w.pth"), str(Path.home() / "pets")), (None, None)]


@pytest.mark.slow
def test_retrain_repeats_the_run(copy, run):
    code, out, _ = run(copy, "--retrain")
    assert code == 0, out
    assert out.count(f"trained again: expected the same predictions; seen 0 of {TOTAL} differ") == 5
