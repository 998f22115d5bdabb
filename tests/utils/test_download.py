"""Downloads: whole or not at all; and without a network, one line soon that names every file."""

import hashlib
import http.client
import io
import logging
import time
import urllib.error
import urllib.request
from unittest import mock

import pytest

from common.utils import download
from common.utils.download import Download, fetch
from common.utils.errors import NoNetwork, UserError

CONTENT = b"published" * 100_000


class Answer(io.BytesIO):
    """What urlopen gives."""

    headers = {"Content-Length": str(len(CONTENT))}


@pytest.fixture
def files(tmp_path):
    """Two of them, of one content, that are not here."""

    def file(name, algorithm):
        digest = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()[:8]}"
        place = tmp_path / name / f"{name}.bin"
        return Download(name, f"https://a.b/{name}", place, digest, "--place")

    return [file("pictures", "md5"), file("weights", "sha256")]


def served(monkeypatch, answer):
    asked = mock.Mock(side_effect=answer)
    monkeypatch.setattr(urllib.request, "urlopen", asked)
    return asked


def left(tmp_path):
    return sorted(path.name for path in tmp_path.rglob("*") if path.is_file())


def test_each_is_said_then_fetched_whole(files, monkeypatch, tmp_path, caplog):
    caplog.set_level(logging.INFO, "rungs")
    said = []

    def answer(request, timeout):
        said.append((request.full_url, caplog.messages[-1]))
        return Answer(CONTENT)

    served(monkeypatch, answer)
    fetch(files)
    assert [file.place.read_bytes() == CONTENT for file in files] == [True, True]
    assert left(tmp_path) == ["pictures.bin", "weights.bin"]
    for (url, line), file in zip(said, files, strict=True):
        assert url == file.url and line == f"{file.what}: fetching {url} to {file.place}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (urllib.error.URLError("no route to host"), "no route to host"),
        (http.client.IncompleteRead(b"half"), "IncompleteRead"),
        (lambda *_, **__: Answer(CONTENT[:-1]), "not what was published, by its md5"),
    ],
)
def test_the_first_that_fails_is_the_last_and_all_are_named(
    files, monkeypatch, tmp_path, answer, reason
):
    asked = served(monkeypatch, answer)
    with pytest.raises(NoNetwork, match="is missing and cannot be downloaded") as caught:
        fetch(files)
    assert asked.call_count == 1 and left(tmp_path) == []
    text = str(caught.value)
    assert reason in text and "\n" not in text
    assert all(str(part) in text for file in files for part in (file.what, file.url, file.place))


def test_one_that_breaks_off(files, monkeypatch, tmp_path):
    answer = Answer(CONTENT)
    answer.read = mock.Mock(side_effect=[b"half", http.client.IncompleteRead(b"")])
    served(monkeypatch, lambda *_, **__: answer)
    with pytest.raises(NoNetwork, match="IncompleteRead"):
        fetch(files)
    assert left(tmp_path) == []


def test_a_name_that_is_looked_for_in_vain(files, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "ANSWER", 0.3)
    asked = served(monkeypatch, lambda *_, **__: time.sleep(20))
    begun = time.monotonic()
    with pytest.raises(NoNetwork, match="no answer in 0.3 seconds"):
        fetch(files)
    assert time.monotonic() - begun < 10 and asked.call_count == 1


def test_a_place_that_cannot_be_written(files, monkeypatch, tmp_path):
    served(monkeypatch, lambda *_, **__: Answer(CONTENT))
    (tmp_path / "pictures").write_text("a file")
    with pytest.raises(UserError, match="cannot put pictures here .*another place with --place"):
        fetch(files)
