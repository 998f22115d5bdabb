"""python -m common.labels: changed labels are found, files are written, bad input is refused."""

import csv
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from common import labels
from common.utils.errors import UserError
from helpers.makers import CIFAR10_CLASSES, make_cifar_archive, patched_checksums
from helpers.projects import copy_project, inside, python

pytestmark = pytest.mark.xdist_group("label_check")  # one process makes what they share

CHANGED = 20  # of 400 training pictures
QUICK = ["--network.weights=tiny-imagenet", "--network.image_size=32"]
QUICK += ["--network.adapt_batch_norm=256", "--train.precision=float32"]


def write_digits(root):
    """Digits as a folder of pictures; a changed one's name says what it was: wrong3_0012.png."""
    digits, rng = load_digits(), np.random.default_rng(0)
    for half, rows in (("train", range(400)), ("test", range(400, 520))):
        for row in rows:
            label, name = digits.target[row], f"{row:04}.png"
            if half == "train" and row % (400 // CHANGED) == 7:
                label, name = (label + rng.integers(1, 10)) % 10, f"wrong{label}_{name}"
            file = root / half / f"digit{label}" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = (digits.images[row] * 15.9).astype(np.uint8)
            Image.fromarray(pixels).convert("RGB").save(file)


def read(file):
    with file.open(encoding="utf-8", newline="") as content:
        return list(csv.DictReader(content))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project that has checked a folder of digits, of which some labels were changed."""
    project = copy_project(tmp_path_factory.mktemp("labels") / "project")
    write_digits(project / "pets")
    known = [i for i, f in enumerate(files_of(project / "pets", "train")) if "wrong" in f.name]
    text = "index,why\n" + "".join(f"{index},changed\n" for index in known) + "\n# that is all\n"
    (project / "known.csv").write_text(text, encoding="utf-8")
    folder = ["--data.name=folder", "--data.root=pets", *QUICK]
    project.printed = python(
        "-m", "common.labels", "--against=known.csv", *folder, cwd=project, draws=True
    )
    (project.folder,) = project.glob("runs/*/labels")
    return project


def files_of(root, half):
    """A half's pictures in the data set's own order: by path."""
    return sorted((root / half).rglob("*.png"), key=lambda f: f.relative_to(root).as_posix())


def test_most_changed_labels_come_first_and_what_they_were_is_likely(project):
    rows = read(project.folder / "train.csv")
    found = [row for row in rows[:CHANGED] if "/wrong" in row["file"]]
    assert len(found) >= 0.8 * CHANGED
    right = [row["likely"] == f"digit{row['file'].split('/wrong')[1][0]}" for row in found]
    assert np.mean(right) > 0.8


def test_the_table_has_all_pictures_the_least_likely_label_first(project):
    rows = read(project.folder / "train.csv")
    assert list(rows[0]) == [
        *("rank", "part", "index", "file", "given", "likely"),
        *("probability_given", "probability_likely"),
    ]
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 401)]
    assert {row["part"] for row in rows} == {"train"}
    files = [
        f.relative_to(project / "pets").as_posix() for f in files_of(project / "pets", "train")
    ]
    assert sorted(int(row["index"]) for row in rows) == list(range(400))
    assert all(files[int(row["index"])] == row["file"] for row in rows)
    assert all(row["file"].split("/")[1] == row["given"] for row in rows)
    given = [float(row["probability_given"]) for row in rows]
    likely = [float(row["probability_likely"]) for row in rows]
    assert given == sorted(given) and all(map(float.__le__, given, likely))
    assert all(
        (g == p) == (r["given"] == r["likely"]) for g, p, r in zip(given, likely, rows, strict=True)
    )
    with Image.open(project.folder / "train.png") as sheet:
        assert sheet.size == (1450, 875), "ten a row"


def test_the_first_ten_the_files_and_the_precision_are_printed(project):
    rows, printed = read(project.folder / "train.csv"), project.printed
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("rank "))
    shown = [line.split()[:4] for line in lines[start + 1 : start + 11]]
    assert shown == [[r["rank"], r["index"], r["file"], r["given"]] for r in rows[:10]]
    found = sum("/wrong" in row["file"] for row in rows[:50])
    assert f"known.csv: precision at 50 {2 * found:.1f} % (" in printed
    assert f": {found} of its {CHANGED}; by chance 5.0 %" in printed
    assert f"sheet: {project.folder / 'train.png'}" in printed
    assert f"all pictures: {project.folder / 'train.csv'}" in printed
    assert "choose nothing" not in printed


def run(project, arguments, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.setattr("sys.argv", ["labels", *arguments])
    with inside(project):
        labels.main()


def test_test_pictures_keep_their_place_when_there_is_a_limit(project, monkeypatch, caplog):
    digits = ["--offline", "--data.limit=60", "--network.image_size=32", "--part=test"]
    caplog.set_level("INFO", "rungs")
    run(project, [*digits, "--train.precision=float32"], monkeypatch)
    (folder,) = project.glob("runs/digits*/labels")
    rows = read(folder / "test.csv")
    assert len(rows) == 60 and {row["part"] for row in rows} == {"test"}
    assert {row["file"] for row in rows} == {""}
    indices = [int(row["index"]) for row in rows]
    assert len(set(indices)) == 60 and max(indices) > 400, "of all 500, not of these 60"
    agree = np.mean([row["given"] == row["likely"] for row in rows])
    assert (
        agree > 0.6
        and f"digits, test: 60 pictures; the given label is the likeliest of {100 * agree:.1f} %"
        in caplog.text
    )
    assert "choose nothing by what is found" in caplog.text


@pytest.mark.parametrize("limit", [[], ["--data.limit=300"]])
def test_training_pictures_keep_their_place_when_copies_are_dropped(
    project, limit, monkeypatch, caplog, tmp_path
):
    root = shutil.copytree(project / "pets", tmp_path / "copies")
    files = [file.relative_to(root).as_posix() for file in files_of(root, "train")]
    for name in files[:200:10]:
        shutil.copy(root / name, root / name.replace("train/", "test/"))
    (tmp_path / "known.txt").write_text("399\n", encoding="utf-8")
    options = ["--data.name=folder", f"--data.root={root}", "--data.drop_copies=true", *limit]
    caplog.set_level("INFO", "rungs")
    run(project, [*options, *QUICK, f"--against={tmp_path / 'known.txt'}"], monkeypatch)
    (table,) = project.glob(f"runs/copies*{'limit' if limit else 'copies'}*/labels/train.csv")
    rows = read(table)
    assert len(rows) < (300 if limit else 400)
    assert [files[int(row["index"])] for row in rows] == [row["file"] for row in rows]
    assert "known.txt: precision at 50" in caplog.text


@pytest.mark.parametrize(
    ("level", "name", "part", "file", "key"),
    [
        ("3", "cifar10", "test", "cifar-10-batches-py/test_batch", "labels"),
        ("level4_finetune_tta", "cifar100", "train", "cifar-100-python/train", "fine_labels"),
    ],
)
def test_an_archives_pictures_are_counted_in_its_order(
    level, name, part, file, key, project, monkeypatch, tmp_path
):
    """Level 3's head reads maps, and level 4 would start from a run that is not here."""
    table = make_cifar_archive(tmp_path / name, name, per_class=6, test_per_class=5)
    options = [f"--data.name={name}", f"--data.root={tmp_path / name}", *QUICK, f"--part={part}"]
    with patched_checksums(table, name):
        run(project, [level, *options], monkeypatch)
    (folder,) = project.glob(f"runs/{name.replace('cifar', 'cifar-')}*/labels")
    rows = sorted(read(folder / f"{part}.csv"), key=lambda row: int(row["index"]))
    archived = pickle.loads((tmp_path / name / file).read_bytes())[key]
    names = CIFAR10_CLASSES if name == "cifar10" else [f"fine_{i:02}" for i in range(100)]
    assert [row["given"] for row in rows] == [names[label] for label in archived]
    assert [int(row["index"]) for row in rows] == list(range(len(archived)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "names no index"),
        ("# none\n\n", "names no index"),
        ("3\nseven\n", "line 2: expected an index from 0 to 119, not 'seven'"),
        ("120\n", "line 1: expected an index from 0 to 119, not '120'"),
        ("-1\n", "not '-1'"),
        ("9" * 5000, "not '" + "9" * 40 + "'"),
        ("file,index\na.png,3\nb.png\n", "line 3: expected an index from 0 to 119, not ''"),
        (b"\xff\xfe3", "cannot be read"),
        ('"3\n', "cannot be read"),
    ],
)
def test_known_errors_that_are_none(project, content, says, monkeypatch, tmp_path):
    file = tmp_path / "known.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    folder = ["--data.name=folder", "--data.root=pets", *QUICK, "--part=test"]
    with pytest.raises(UserError) as caught:
        run(project, [*folder, f"--against={file}"], monkeypatch)
    assert says in str(caught.value) and str(caught.value).startswith("--against: ")
    assert not (project.folder / "test.csv").exists()


def test_indices_stand_in_a_column_or_first_in_a_line(tmp_path):
    for text in ("7, horse\n 3\n\n7\n#9\n", "file,index\na,3\nb,7\n", "\ufeffindex\n3\n7\n"):
        (tmp_path / "known").write_text(text, encoding="utf-8")
        assert labels.read_indices(str(tmp_path / "known"), 8) == {3, 7}


def test_help_says_that_nothing_may_be_chosen_by_test(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["labels", "--help"])
    with pytest.raises(SystemExit) as stopped:
        labels.main()
    text = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0 and "must not be used to choose anything" in text
