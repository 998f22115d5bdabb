"""What others wrote is data: nothing is run, nothing is written elsewhere, names stay text."""

import hashlib
import html.parser
import io
import json
import os
import pickle
import re
import tarfile

import numpy as np
import pytest

from common.config import yaml_files
from common.data.cifar import read_archive
from common.utils.errors import UserError
from helpers.makers import make_cifar_archive, make_picture_folder, patched_checksums
from helpers.projects import NAMES, PROJECT, copy_project, python

pytestmark = pytest.mark.xdist_group("safety")  # one process makes what they share

# ---- configs ----


def test_yaml_builds_nothing_but_data(written):
    for tag in ("!!python/object/apply:os.system [x]", "!!python/name:os.system", "!x y"):
        with pytest.raises(UserError, match="not YAML: could not determine a constructor"):
            yaml_files.read(written(f"data: {tag}"))


# ---- archives ----


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def with_sums(root, table, contents):
    """The small archive with these files instead, and torchvision's checksums for them."""
    (archive,) = root.glob("*.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        for entry, content in contents:
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    sums = {e.name.split("/")[-1]: hashlib.md5(c).hexdigest() for e, c in contents if e.isfile()}
    lists = {
        part: [[file, sums.get(file, md5)] for file, md5 in table[part]]
        for part in ("train_list", "test_list")
    }
    meta = table["meta"] | {"md5": sums.get(table["meta"]["filename"], table["meta"]["md5"])}
    return table | lists | {"tgz_md5": hashlib.md5(archive.read_bytes()).hexdigest(), "meta": meta}


def members(root):
    (archive,) = root.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        return [(entry, tar.extractfile(entry).read()) for entry in tar]


@pytest.mark.parametrize("how", ["evil", "numpy", "text"])
def test_a_pickle_in_an_archive_makes_arrays_and_nothing_else(tmp_path, how):
    """Though its checksum is right."""
    table, mark = make_cifar_archive(tmp_path, per_class=2, test_per_class=1), tmp_path / "mark"
    bad = {"evil": pickle.dumps(Evil(mark), 2)}
    bad["numpy"] = b"cnumpy.testing._private.utils\nrundocs\n."
    bad["text"] = b"cposix\nmkdir\n(V" + str(mark).encode() + b"\ntR."
    contents = [(e, bad[how] if e.name.endswith("batch_3") else c) for e, c in members(tmp_path)]
    table = with_sums(tmp_path, table, contents)
    with patched_checksums(table), pytest.raises(UserError, match="calls .*: nothing was run"):
        read_archive("cifar10", tmp_path)
    assert not mark.exists()
    pickle.loads(bad["evil"])
    assert mark.exists(), "else this test could not fail"


def test_pickles_of_pythons_and_numpys_old_and_new_are_read(tmp_path):
    table = make_cifar_archive(tmp_path, per_class=2, test_per_class=1)
    with patched_checksums(table):
        first = read_archive("cifar10", tmp_path)
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    contents = [(entry, content.replace(new, old)) for entry, content in members(tmp_path)]
    assert any(old in content for _, content in contents)
    with patched_checksums(with_sums(tmp_path, table, contents)):
        again = read_archive("cifar10", tmp_path)
    assert again.images.source.equal(first.images.source)
    assert again.images.labels.equal(first.images.labels)


def test_an_archive_writes_nowhere_else(tmp_path):
    root = tmp_path / "deep/data"
    table = make_cifar_archive(root, per_class=2, test_per_class=1)
    folder, traps = "cifar-10-batches-py", []
    for name in ("../escaped", f"{folder}/../../escaped", str(tmp_path / "escaped")):
        traps.append((tarfile.TarInfo(name), b"x"))
    for kind, name in ((tarfile.SYMTYPE, "soft"), (tarfile.LNKTYPE, "hard")):
        traps.append((tarfile.TarInfo(f"{folder}/{name}"), b""))
        traps[-1][0].type, traps[-1][0].linkname = kind, "/etc/passwd"
    traps.append((tarfile.TarInfo(f"{folder}/device"), b""))
    traps[-1][0].type = tarfile.CHRTYPE
    table = with_sums(root, table, traps + members(root))
    with patched_checksums(table):
        assert len(read_archive("cifar10", root).images) == 30
    known = {file for file, _ in table["train_list"] + table["test_list"]} | {"batches.meta"}
    assert {file.name for file in (root / folder).iterdir()} == known
    assert {file.name for file in root.iterdir()} == {folder, "cifar-10-python.tar.gz"}
    assert [file.name for file in tmp_path.rglob("*escaped*")] == []


# ---- names stay text ----

CLASSES = ["<script>alert(1)<|script>", "a|b `c` [d](javascript:alert(1))", "<img src=x onerror=1>"]
TITLE = "\"quoted\" 'pets' | </script><script>alert(2)</script>\n# heading\n```\n<b>"


class Page(html.parser.HTMLParser):
    """A page's elements with their attributes, scripts' contents and text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.words, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open = [*self.open, tag] if tag in ("script", "style") else self.open

    def handle_endtag(self, tag):
        self.open = self.open[:-1] if self.open[-1:] == [tag] else self.open

    def handle_data(self, data):
        (self.scripts if self.open == ["script"] else self.words).append(data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The reports of a level on pictures whose classes and title are made to break a page."""
    place = tmp_path_factory.mktemp("hostile")
    project = copy_project(place / "project", "--train.epochs=1")
    make_picture_folder(place / "pets", CLASSES, per_class=10, test_per_class=4)
    options = [f"--data.root={place / 'pets'}", "--data.name=folder", "--network.weights=none"]
    options += ["--network.image_size=32", "--train.epochs=1", "--audit=false", "--reports=out"]
    options += [f"--data.title={TITLE}"]
    python(f"{NAMES[0]}/run.py", *options, cwd=project)
    python("-m", "common.site", "out", cwd=project)
    return project / "out"


def test_the_page_shows_names_as_text(hostile):
    page = Page((hostile / "index.html").read_text(encoding="utf-8"))
    assert [kind for tag, kind in page.elements if tag == "script"] == [
        {"type": "application/json", "id": "gallery"},
        {},
    ]
    assert json.loads(page.scripts[0])["classes"] == sorted(CLASSES)
    assert (
        page.scripts[1].strip()
        == (PROJECT / "common/reports/templates/page.js").read_text("utf-8").strip()
    )
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    assert all(a["src"].startswith("data:") for _, a in page.elements if a.get("src"))
    links = [a["href"] for tag, a in page.elements if tag == "a"]
    assert links and all(re.match(r"#|level", link) for link in links)
    text = " ".join(" ".join(page.words).split())
    assert all(name in text for name in CLASSES) and " ".join(TITLE.split()) in text


@pytest.mark.parametrize("name", ["README.md", f"{NAMES[0]}/report.md"])
def test_markdown_shows_names_as_text(hostile, name):
    text = (hostile / name).read_text(encoding="utf-8")
    fences = re.findall(r"^(```+)[a-z]*\n(.*?)^\1$", text, re.M | re.S)
    assert len(fences) == (2 if name != "README.md" else 1)
    for fence, inside in fences:
        assert fence not in inside
        text = text.replace(f"{inside}{fence}\n", "")
    assert set(re.findall(r"</?[a-z]+", text)) <= {"<details", "<summary", "</summary", "</details"}
    assert not re.search(r"^# heading|(?<!\\)\]\(javascript|^```\n<b>", text, re.M)
    assert "&lt;/script&gt;&lt;script&gt;alert(2)&lt;/script&gt; # heading" in text.replace(
        "\\", ""
    )
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, "a name has cut a row"


def test_names_come_back_from_a_report(hostile):
    with np.load(hostile / NAMES[0] / "predictions.npz", allow_pickle=False) as saved:
        assert saved["classes"].tolist() == sorted(CLASSES)
    metrics = json.loads((hostile / NAMES[0] / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["data"]["title"] == metrics["settings"]["data"]["title"] == TITLE
