"""The grader: what it recomputes, and what it catches."""

import json
import logging
import os
import shutil
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms.functional import to_tensor

import common.config
from common import evidence, grade, levels, readers, replay
from common.config import DataConfig, UserError
from common.data import ImageSet, load_splits
from common.duplicates import exact_copies, near_copies
from common.evaluation import Predictions
from common.examination import Grade
from common.gains import compare_with_below
from common.verdicts import check_predictions
from makers import make_picture_folder

PROJECT = common.config.PROJECT
NAMES = ["level1_baseline", "level2_augmentation", "level3_fusion", "level4_finetune_tta"]
MINE = "level5_mine"
TINY = ["--network.weights=tiny-imagenet", "--network.image_size=32", "--audit=false"]
TINY += ["--train.precision=float32", "--train.epochs=1", "--train.lr=5e-4"]
TINY += ["--train.batch_size=32", "--data.name=folder", "--data.title=pets"]
TOTAL = 100  # test pictures
NETWORKS = replay.test_logits  # as it is, whatever a test makes of it
log = logging.getLogger("rungs")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Four classes that differ in colour, 60 pictures each to train on and 25 to test on."""
    root = tmp_path_factory.mktemp("pictures")
    return make_picture_folder(root, ["cat", "dog", "eel", "fox"], 60, TOTAL // 4)


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory, pictures):
    """A project with runs: the four levels, and level 4 again as its reader's own."""
    project = tmp_path_factory.mktemp("handed_in") / "project"
    ignored = shutil.ignore_patterns("__pycache__", "weights", "ablations")
    for name in (*NAMES, "common"):
        shutil.copytree(PROJECT / name, project / name, ignore=ignored)
    (project / "common/weights").symlink_to(PROJECT / "common/weights")
    shutil.copytree(project / NAMES[3], project / MINE)
    line = [sys.executable, "-m", "common.course", *TINY, f"--data.root={pictures}"]
    done = subprocess.run(line, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for last in project.glob("runs/*/*/last.pt"):
        last.unlink()
    for file in (project / "common").glob("*.py"):  # the grader has its own
        file.write_text("raise SystemExit('not the grader')\n", encoding="utf-8")
    return project


@pytest.fixture(scope="module")
def remembered():
    """Test logits by what they depend on: each network runs once, whatever is done to reports."""
    known, run = {}, replay.test_logits

    def test_logits(level, config, checkpoint, test, tta, timeout):
        code = (level / "run.py").read_text(encoding="utf-8")
        tensors = readers.read_checkpoint(checkpoint)["network"]
        state = repr([(name, value.double().sum().item()) for name, value in tensors.items()])
        key = level.name, code, state, repr(config.network), repr(config.test)
        if key not in known:
            known[key] = run(level, config, checkpoint, test, tta, timeout)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "test_logits", test_logits)
        yield


@pytest.fixture
def copy(handed_in, tmp_path):
    """A copy to do things to; weights are linked, so replace them, never write to them."""
    return shutil.copytree(handed_in, tmp_path / "copy", copy_function=os.link, symlinks=True)


@pytest.fixture
def run(monkeypatch, capsys, remembered):
    """A function: the command line -> exit status, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["grade", *map(str, arguments)])
        monkeypatch.setattr(log, "handlers", [])
        threads, code = torch.get_num_threads(), 0
        try:
            levels.command(grade.main)
        except SystemExit as stopped:
            code = stopped.code
        torch.set_num_threads(threads)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def failures(run):
    """A function: grade a copy that must fail -> {level: {check: what was seen}}."""

    def failures(project, *arguments):
        code, out, _ = run(project, "--format", "json", *arguments)
        assert code == 1
        graded = json.loads(out)
        assert graded["passed"] is False
        return {
            level["level"]: {
                c["check"]: c["seen"] for c in level["checks"] if c["outcome"] == "failed"
            }
            for level in graded["levels"]
            if not level["passed"]
        }

    return failures


def write(file, content):
    """Replace a file, and leave the one it was linked to."""
    file.unlink()
    if isinstance(content, str):
        file.write_text(content, encoding="utf-8")
    else:
        torch.save(content, file)


def change_metrics(project, name, change):
    file = project / "runs/pets/reports" / name / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8"))
    change(metrics)
    write(file, json.dumps(metrics))


def best(project, name):
    return project / "runs/pets" / name / "best.pt"


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


@pytest.mark.parametrize("name", NAMES[:2])
def test_figures_equal_an_independent_recomputation(copy, pictures, run, name):
    code, out, _ = run(copy / name, "--format", "json")
    graded = json.loads(out)
    network = torchvision.models.resnet18(num_classes=4)
    state = torch.load(best(copy, name), weights_only=True)["network"]
    plain = {}
    for key, value in state.items():
        key = key.removeprefix("stages.").removeprefix("stem.")
        plain[key.replace("head.classify.", "fc.")] = value
    network.load_state_dict(plain)
    network.eval()
    files = sorted((pictures / "test").glob("*/*.png"))
    labels = torch.arange(TOTAL) // (TOTAL // 4)
    pixels = torch.stack([to_tensor(Image.open(file)) for file in files])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = torch.nn.functional.interpolate(pixels, (32, 32), mode="bilinear")
    with torch.inference_mode():
        logits = network((pixels - mean) / deviation).double()
    correct = int((logits.argmax(1) == labels).sum())
    loss = float((logits.logsumexp(1) - logits[torch.arange(TOTAL), labels]).mean())
    assert code == 0 and graded["total"] == TOTAL
    assert (graded["correct"], graded["accuracy"]) == (correct, correct / TOTAL)
    assert graded["loss"] == pytest.approx(loss, rel=2e-6), "to the last digit of float32"
    _, printed, _ = run(copy / name)
    assert f"test accuracy {100 * correct / TOTAL:.2f} % ({correct} of {TOTAL}), loss " in printed


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
    assert len(results["tests"]) == 5 * len(grade.CHECKS)
    assert all(name.startswith(MINE) for name in failed) and f"{MINE}: checkpoint" in failed

    code, out, _ = run(copy, "--format", "junit")
    root = ElementTree.fromstring(out)
    suites = {suite.get("name"): suite for suite in root}
    assert code == 1 and list(suites) == [*NAMES, MINE]
    assert [suite.get("failures") for suite in root] == ["0", "0", "0", "0", "1"]
    assert len(suites[MINE].findall("testcase/failure")) == 1
    skipped = suites[MINE].findall("testcase/skipped")
    assert len(skipped) == int(suites[MINE].get("skipped")) > 5


# ---- the six kinds of tampering ----


def test_changed_metrics(copy, failures):
    def better(metrics):
        metrics["test"] |= {"correct": TOTAL - 1, "accuracy": (TOTAL - 1) / TOTAL}

    change_metrics(copy, NAMES[0], better)
    found = failures(copy)
    assert found.keys() == {NAMES[0]} and found[NAMES[0]].keys() == {"metrics.json"}
    assert f"test {TOTAL - 1} of {TOTAL}" in found[NAMES[0]]["metrics.json"]


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


def test_checkpoint_of_another_split(copy, pictures, failures):
    content = torch.load(best(copy, NAMES[0]), weights_only=True)
    config = DataConfig(name="folder", root=str(pictures), split_seed=1)
    content["split"] = load_splits(config, 32).split
    content["settings"]["data"]["split_seed"] = 1
    write(best(copy, NAMES[0]), content)
    found = failures(copy)
    assert found.keys() == {NAMES[0]}
    assert "in the checkpoint" in found[NAMES[0]]["split"]
    seen = found[NAMES[0]]["checkpoint is this run's"]
    assert "data.split_seed 1 instead of 0" in seen


def test_checkpoint_of_another_level(copy, failures):
    best(copy, NAMES[0]).unlink()
    shutil.copyfile(best(copy, NAMES[1]), best(copy, NAMES[0]))
    found = failures(copy)[NAMES[0]]
    assert found["checkpoint is this run's"].startswith(f"{NAMES[1]}'s checkpoint")
    assert "network.trainable ['layer4', 'head'] instead of ['head']" in str(found)
    assert "layer4" in found["frozen parts"]
    assert {"predictions.npz", "metrics.json"} <= found.keys()


def test_report_without_checkpoint(copy, failures):
    best(copy, MINE).unlink()
    found = failures(copy)
    assert found.keys() == {MINE} and found[MINE].keys() == {"checkpoint"}
    assert "no such checkpoint" in found[MINE]["checkpoint"]


def test_altered_weights(copy, failures):
    content = torch.load(best(copy, NAMES[0]), weights_only=True)
    content["network"]["stages.layer1.0.bn1.running_mean"] += 1e-6
    content["network"]["head.classify.weight"][0] += 0.5
    write(best(copy, NAMES[0]), content)
    found = failures(copy)[NAMES[0]]
    assert found["frozen parts"] == "1 of 120 changed, in layer1"
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

    content = torch.load(best(copy, MINE), weights_only=True)
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
    settings = readers.read_checkpoint(checkpoint)["settings"]
    config = readers.read_settings(settings, copy, None, None)
    few = load_splits(config.data, 32).test.subset(torch.arange(4))
    text = (copy / NAMES[0] / "run.py").read_text(encoding="utf-8")
    head = next(line for line in text.splitlines() if line.startswith("def build_network"))

    def said(number, code):
        level = copy / f"level{number}_hostile"
        level.mkdir()
        script = text.replace(head, f"{head}\n    {code}")
        (level / "run.py").write_text(script, encoding="utf-8")
        timeout = 5 if "sleep" in code else 100
        try:
            NETWORKS(level, config, checkpoint, few, "none", timeout)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(said, range(10, 14), HOSTILE))
    for text, words in zip(texts, HOSTILE.values(), strict=True):
        assert words in text


def test_a_crash_is_one_levels_failure(copy, monkeypatch, failures):
    real = replay.test_logits

    def test_logits(level, *arguments):
        if level.name == NAMES[0]:
            raise UserError("it ended with status 1: no")
        return real(level, *arguments)

    monkeypatch.setattr(replay, "test_logits", test_logits)
    found = failures(copy)
    assert found[NAMES[0]] == {"network": "it ended with status 1: no"}
    assert NAMES[2] not in found


# ---- benchmarks, gains, what is graded ----


def set_bar(project, name, row):
    file = project / name / "config.yaml"
    text = file.read_text(encoding="utf-8").split("benchmarks:")[0]
    write(file, f"{text}benchmarks:\n- {{{row}}}\n")


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
        content["data"]["title"] = "elsewhere"
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


def image_set(pixels):
    count = len(pixels)
    labels = torch.zeros(count, dtype=torch.int64)
    return ImageSet(pixels, torch.arange(count), labels, ("a",))


def test_duplicates_are_counted():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.randint(256, (60, 3, 4, 4), generator=generator).float()
    pictures = torch.nn.functional.interpolate(smooth, (32, 32), mode="bicubic").clamp(10, 240)
    train = pictures[:40].round().to(torch.uint8)
    test = pictures[40:].round().to(torch.uint8)
    assert exact_copies(image_set(test), [image_set(train)]) == 0
    assert near_copies(image_set(test), [image_set(train)]) == 0
    test[3], test[7] = train[11], train[12]
    test[9] = train[13] // 2 + 20  # darker and flatter
    assert exact_copies(image_set(test), [image_set(train[:10]), image_set(train[10:])]) == 2
    assert near_copies(image_set(test), [image_set(train)]) == 3


def test_another_machine_may_differ_a_little():
    logits = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    test = Predictions(logits, torch.zeros(1000, dtype=torch.int64))
    for changed, same, passed in (
        (0, True, True),
        (1, True, False),
        (2, False, True),
        (3, False, False),
    ):
        saved = {"labels": test.labels.numpy(), "logits": logits.clone().numpy()}
        saved["logits"][:changed] = -saved["logits"][:changed]
        saved["predictions"] = saved["logits"].argmax(1)
        finding = check_predictions(saved, test, test, same)
        assert finding.passed == passed and f"{changed} of 1000 differ" in finding.seen


def test_a_loss_fails_and_not_shown_is_no_gain(tmp_path):
    labels = torch.zeros(200, dtype=torch.int64)
    found = []
    for level, count in zip(NAMES, [100, 50, 48, 90], strict=True):
        logits = torch.zeros(200, 2)
        logits[:, 0], logits[:count, 1] = 1, 2
        data = types.SimpleNamespace(fingerprint="f", split="s")
        own = evidence.Evidence(tmp_path, level, tmp_path, metrics={"below": None})
        found.append(Grade(own, data=data, predictions=Predictions(logits, labels)))
    compare_with_below(found)
    gains = [{f.check: f for f in grade.findings}["gain"] for grade in found]
    assert [gain.passed for gain in gains] == [True, True, True, False]
    words = [gain.seen.split(":")[0] for gain in gains[1:]]
    assert words == ["gain", "not shown", "loss"]


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


@pytest.mark.slow
def test_retrain_repeats_the_run(copy, run):
    code, out, _ = run(copy, "--retrain")
    assert code == 0, out
    assert out.count(f"trained again: expected the same predictions; seen 0 of {TOTAL} differ") == 5
