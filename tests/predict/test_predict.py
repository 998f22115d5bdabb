"""Pictures of one's own: answers on the command line, and on a page that is dropped on."""

import http.client
import io
import json
import os
import re
import socket
import struct
import threading
import time

import pytest
from PIL import Image

from common.data.decode import read_picture
from common.predict import __main__
from common.predict.answers import Answers
from common.predict.places import all_runs, checkpoints
from common.predict.server import LARGEST, make_server
from common.reports.restore import pictures_of
from common.utils import paths
from common.utils.errors import UserError
from helpers.projects import NAMES, inside, python
from helpers.reports import own_runs

pytestmark = pytest.mark.xdist_group("predict")  # one process makes what they share


def ask(server, body=b"", method="POST", path="/answers", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, json.loads(text) if text.startswith("{") else text


def large(width, height):
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"hello, I am a text", 400, "not a readable picture: no known picture format"),
        (lambda: large(10_000, 5_000), 400, "10000 x 5000 pixels are more than 40 megapixels"),
        (lambda: large(300, 300)[:60], 400, "not a readable picture: "),
        (b"", 411, "an empty file"),
    ],
)
def test_what_is_no_picture_gets_a_clear_message(server, content, status, says):
    response, found = ask(server, content() if callable(content) else content)
    assert response.status == status and says in found["error"]


def test_only_this_page_may_ask(server, digit):
    body = digit.read_bytes()
    assert ask(server, body)[0].status == 200
    port = server.server_port
    assert ask(server, body, Origin=f"http://localhost:{port}")[0].status == 200
    for headers in (
        {"Host": "example.org"},
        {"Host": f"example.org:{port}"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "https://example.org"},
        {"Origin": "null"},
    ):
        response, found = ask(server, body, **headers)
        assert response.status == 403 and "and no other" in found["error"]
        assert ask(server, method="GET", path="/", **headers)[0].status == 403
    assert server.server_address[0] == "127.0.0.1"


def test_nothing_else_is_served(server):
    for path in ("/../config.py", "/common/config.py", "/answers", "/%2e%2e/Makefile"):
        assert ask(server, method="GET", path=path)[0].status == 404
    assert ask(server, b"x", path="/elsewhere")[0].status == 404
    for name in ("nothing", "..", "%2e%2e", "digits/.."):
        for method, path in (("GET", "/"), ("POST", "/answers")):
            response, found = ask(server, b"x", method=method, path=f"{path}?data={name}")
            assert response.status == 404 and "no runs" in found["error"]
    assert ask(server, method="DELETE", path="/")[0].status == 501
    response, found = ask(server, Content_Length=str(LARGEST + 1))
    assert response.status == 413 and "20 MiB" in found["error"]
    response, text = ask(server, method="GET", path="/")
    assert response.status == 200 and "default-src 'none'" in response.getheader(
        "Content-Security-Policy"
    )
    assert all(name in text for name in NAMES)


def test_who_leaves_before_the_answer_is_no_error(server, digit, capsys):
    body = digit.read_bytes()
    for size in (len(body), len(body) + 1):  # after the picture, and within it
        connection = socket.create_connection(("127.0.0.1", server.server_port))
        linger = struct.pack("ii", 1, 0)  # closed at once, by a reset
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        head = f"POST /answers HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n"
        connection.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode() + body)
        time.sleep(0.2)
        connection.close()
    assert ask(server, body)[0].status == 200
    for _ in range(50):
        if threading.active_count() <= 3:
            break
        time.sleep(0.1)
    assert capsys.readouterr().err == ""
    try:
        raise ValueError("a bug of ours")
    except ValueError:
        server.handle_error(None, ("127.0.0.1", 1))
    assert "a bug of ours" in capsys.readouterr().err


@pytest.mark.parametrize("length", ["-1", "+5", "5, 5", "0x5", "\xb2", "5" * 5000, "", "1e9"])
def test_a_length_that_is_none_is_answered(server, length):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest("POST", "/answers")
    connection.putheader("Content-Length", length.encode("latin-1"))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == (413 if len(length) > 9 else 411)
    assert json.loads(response.read())["error"]
    connection.close()


def test_a_taken_port_is_one_line(server):
    with pytest.raises(UserError, match=f"cannot use {server.server_port} .*choose another"):
        make_server(server.choices, server.server_port)
    with pytest.raises(UserError, match="--port: cannot use 70000"):
        make_server(server.choices, 70000)


def test_predict_prints_each_levels_top_three_and_saves_a_sheet(coursed, digit, tmp_path):
    sheet = tmp_path / "sheet.png"
    printed = python(
        "-m", "common.predict", digit, digit.parent, "--output", sheet, cwd=coursed, draws=True
    )
    lines = printed.splitlines()
    lines = lines[lines.index(str(digit)) :]  # after what it says of measuring
    half = (len(lines) - 1) // 2
    assert lines[half] == str(digit) and lines[1:half] == lines[half + 1 : -1]
    assert [line.split()[0] for line in lines[1:5]] == NAMES
    for line in lines[1:5]:
        shares = [float(share) for share in re.findall(r"([\d.]+) %", line)]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True) and sum(shares) <= 100.2
    assert lines[-1] == str(sheet)
    with Image.open(sheet) as image:
        assert image.width > 500


def test_predict_answers_as_the_evaluation_did(coursed, tmp_path):
    """Of the test pictures, written as files, the answers are those of predictions.npz."""
    runs = own_runs(coursed.reports)
    test, _ = pictures_of(runs[0])
    with inside(coursed):
        answers = Answers(coursed / "runs/digits")
        for i in range(4):
            file = tmp_path / f"{i}.png"
            Image.fromarray(test.images[i].numpy().transpose(1, 2, 0)).save(file)
            _, found = answers(file)
            for answer, run in zip(found, runs, strict=True):
                assert answer.level == run.level
                assert answer.top[0][0] == run.classes[run.predictions[i]]
                expected = run.probabilities[i].max()
                assert answer.top[0][1] == pytest.approx(expected, abs=0.03)


def test_a_folders_pictures_are_of_all_formats_that_are_read(tmp_path):
    suffixes = [".jpg", ".JPEG", ".png", ".tif", ".avif", ".jp2", ".ico", ".qoi", ".tga", ".pgm"]
    files = [tmp_path / f"more/a{suffix}" for suffix in suffixes]
    (tmp_path / "more").mkdir()
    for file in files:
        Image.new("L" if file.suffix == ".pgm" else "RGB", (16, 16)).save(file)
        assert read_picture(file).shape == (3, 16, 16)
    (tmp_path / "more/notes.txt").write_text("no picture")
    Image.new("RGB", (16, 16)).save(tmp_path / "more/a.pdf")
    assert __main__.list_pictures([str(tmp_path)]) == sorted(files)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "name pictures, or give --serve"),
        (["nowhere.png"], "nowhere.png: no such file or folder"),
        (["empty"], "empty: no pictures in this folder"),
        (["notes.txt"], "notes.txt: not a readable picture (no known picture format)"),
        (["bad"], "notes.png: not a readable picture (no known picture format); nor are 2 others"),
        (["notes.txt", "--runs", "empty"], "empty: no trained level here"),
        (["--serve", "--runs", "empty"], "empty: no trained level here"),
        (["--picture"], "unrecognized arguments: --picture"),
    ],
)
def test_predict_on_what_it_cannot_use(coursed, arguments, says, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "bad").mkdir()
    for name in ("notes.png", "other.png", "third.jpg"):
        (tmp_path / "bad" / name).write_text("no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["predict", *arguments])
    with inside(coursed), pytest.raises(UserError) as caught:
        __main__.main()
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_skipped_and_counted(coursed, digit, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more/a.png").write_text("no picture")
    (tmp_path / "more/b.png").write_bytes(digit.read_bytes())
    (tmp_path / "more/c.png").write_bytes(digit.read_bytes()[:60])
    sheet = tmp_path / "sheet.png"
    printed = python(
        *("-m", "common.predict", tmp_path / "more", "--output", sheet),
        *("--runs", coursed / "runs"),
        cwd=coursed,
        draws=True,
    )
    assert sum(line.startswith("  level") for line in printed.splitlines()) == 4
    assert str(tmp_path / "more/b.png") in printed.splitlines()
    assert "skipped: 2 of 3 pictures" in printed
    assert f"{tmp_path / 'more/a.png'}: not a readable picture (no known picture format)" in printed
    assert f"{tmp_path / 'more/c.png'}: not a readable picture (" in printed
    with Image.open(sheet) as image:
        assert image.width > 500


def test_data_sets_are_those_with_a_trained_level_the_latest_first(coursed, tmp_path, monkeypatch):
    with inside(coursed):
        monkeypatch.setenv("RUNGS_RUNS", str(tmp_path))
        for i, name in enumerate(["first", "last", "middle"]):
            place = tmp_path / name / NAMES[i] / "best.pt"
            place.parent.mkdir(parents=True)
            place.touch()
            (place.parent / "run.json").touch()
            os.utime(place, (0, [10, 30, 20][i]))
        (tmp_path / "other/level1_baseline").mkdir(parents=True)
        assert [place.name for place in all_runs()] == ["last", "middle", "first"]
        monkeypatch.delenv("RUNGS_RUNS")
        assert [place.name for place in all_runs(tmp_path)] == ["last", "middle", "first"]
        assert all_runs(tmp_path / "first") == [tmp_path / "first"]


def test_an_ablation_never_stands_for_its_level(tmp_path):
    ablations = f"{NAMES[0]}-without_idea", f"{NAMES[1]}-without_idea"
    for name in (*ablations, f"{NAMES[1]}-wide", NAMES[2]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
        if name != NAMES[2]:  # which is at work
            (tmp_path / name / "run.json").touch()
    found = [(level.name, place) for level, place in checkpoints(tmp_path)]
    assert found == [(NAMES[1], tmp_path / f"{NAMES[1]}-wide/best.pt")]


def test_nothing_trained_nothing_to_ask(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    with pytest.raises(UserError, match="nothing is trained yet"):
        all_runs()
