"""One picture file of every kind becomes upright RGB."""

import struct
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from common.data.decode import UnreadablePicture, read_picture
from helpers.projects import PROJECT

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def pixel(array, y, x):
    return tuple(array[:, y, x].tolist())


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, WHITE),
        ("I;16", 257 * 100, (100, 100, 100)),
        ("I", 65535, WHITE),
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (9, 9, 9, 0), WHITE),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (0, 0), WHITE),
        ("CMYK", (0, 255, 255, 0), RED),
    ],
)
def test_modes_become_rgb(tmp_path, mode, colour, expected):
    file = tmp_path / ("picture.tif" if mode in ("CMYK", "I") else "picture.png")
    Image.new(mode, (3, 2), colour).save(file)
    assert Image.open(file).mode == mode or mode == "I"
    array = read_picture(file)
    assert array.dtype == np.uint8 and array.shape == (3, 2, 3)
    assert pixel(array, 1, 2) == expected
    assert pixel(read_picture(file, 2), 0, 0) == expected


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.gif")
    image.save(tmp_path / "clear.png", transparency=1)
    plain, clear = read_picture(tmp_path / "plain.gif"), read_picture(tmp_path / "clear.png")
    assert (pixel(plain, 0, 0), pixel(plain, 0, 1)) == (RED, BLUE)
    assert (pixel(clear, 0, 0), pixel(clear, 0, 1)) == (RED, WHITE)


def test_cmyk_jpeg(tmp_path):
    Image.new("CMYK", (16, 16), (255, 0, 255, 0)).save(tmp_path / "green.jpg", quality=100)
    assert np.abs(read_picture(tmp_path / "green.jpg")[:, 8, 8] - np.array(GREEN)).max() < 8


@pytest.mark.parametrize(("orientation", "corner"), [(1, "tl"), (3, "br"), (6, "tr"), (8, "bl")])
def test_exif_orientation(tmp_path, orientation, corner):
    image = Image.new("RGB", (6, 4), WHITE)
    image.putpixel((0, 0), RED)  # where it lies in the file; shown, it moves to the corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    array = read_picture(tmp_path / "turned.png")
    assert array.shape == ((3, 6, 4) if orientation in (6, 8) else (3, 4, 6))
    y, x = (-1 if "b" in corner else 0), (-1 if "r" in corner else 0)
    assert pixel(array, y, x) == RED and (array != 255).any(0).sum() == 1


def test_centre_crop_then_antialiased_resize(tmp_path):
    image = Image.new("RGB", (8, 4), RED)
    image.paste(BLUE, (2, 0, 6, 4))
    image.save(tmp_path / "wide.png")
    array = read_picture(tmp_path / "wide.png", 4)
    assert array.shape == (3, 4, 4)
    assert (array == np.array(BLUE).reshape(3, 1, 1)).all(), "the red margins are cut off"
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    grey = read_picture(tmp_path / "board.png", 8)
    assert np.abs(grey - 127.5).max() < 16, "aliasing would give black or white"
    assert (read_picture(tmp_path / "board.png", 64)[0] == board).all()


def test_a_picture_that_is_a_program_is_not_run(tmp_path, monkeypatch):
    """Pillow would give EPS, whatever the file's name, to Ghostscript."""
    Image.new("RGB", (4, 4), RED).save(tmp_path / "red.eps")
    (tmp_path / "red.eps").rename(tmp_path / "red.png")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", mock.Mock(side_effect=AssertionError))
    for size in (None, 2):
        with pytest.raises(UnreadablePicture, match="no known picture format"):
            read_picture(tmp_path / "red.png", size)
    with Image.open(tmp_path / "red.png") as image, pytest.raises(AssertionError):
        image.load()


def test_a_program_inside_a_picture_is_not_run(tmp_path, monkeypatch):
    """Pillow opens what an IPTC file holds as a picture of any format, EPS, too."""
    Image.new("RGB", (4, 4), RED).save(tmp_path / "red.eps")

    def field(record, number, content):
        return struct.pack(">BBBH", 28, record, number, len(content)) + content

    header = (60, b"\1\0"), (20, b"\0\4"), (30, b"\0\4"), (120, b"\5")
    content = b"".join(field(3, *part) for part in header)
    content += field(8, 10, (tmp_path / "red.eps").read_bytes())
    (tmp_path / "red.jpg").write_bytes(content)
    run = mock.Mock(side_effect=AssertionError("it was run"))
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    with pytest.raises(UnreadablePicture, match="no known picture format"):
        read_picture(tmp_path / "red.jpg")
    with Image.open(tmp_path / "red.jpg") as image, pytest.raises(AssertionError):
        image.load()


@pytest.mark.slow
def test_what_pillow_warns_of_is_no_news(tmp_path):
    """In a process of its own, for pytest sets filters of its own."""
    exif = Image.Exif()
    exif[0x10E] = "a description of some length"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    place = content.index(b"Exif") + 16
    content[place + 4 : place + 8] = b"\0\0\xff\xff"  # more text than there is
    (tmp_path / "a.jpg").write_bytes(content)
    script = "import sys; from pathlib import Path; from common.data.decode import read_picture"
    script += "\nif len(sys.argv) > 2: import warnings; warnings.resetwarnings()"
    script += "\nprint(read_picture(Path(sys.argv[1])).shape)"
    command = [sys.executable, "-c", script, tmp_path / "a.jpg"]
    for more, quiet in ([], True), (["loud"], False):
        done = subprocess.run([*command, *more], cwd=PROJECT, capture_output=True, text=True)
        assert done.stdout == "(3, 8, 8)\n" and (done.stderr == "") == quiet, done.stderr


def test_unreadable_files(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no picture")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-900])
    for name in ("text.png", "cut.jpg", "missing.png"):
        with pytest.raises(UnreadablePicture):
            read_picture(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadablePicture, match="bomb"):
        read_picture(tmp_path / "whole.jpg", 8)
