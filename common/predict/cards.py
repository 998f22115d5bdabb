"""What the page shows of a picture: how it came, how the networks see it, each level's answer."""

import io
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from common.data.decode import read_whole
from common.predict.answers import Answer, Answers, check_size, verdict
from common.reports.figures.galleries import overlay
from common.reports.gallery import uri, webp

SHOWN = 224  # px of an answer's picture
DROPPED = 480  # px, at most, of the picture as it was dropped
FEW = 10  # classes, all of which are shown at once
FIRST = 5  # shown of more


def cards(answers: Answers, content: bytes) -> dict:
    """What drop.js shows of a picture, which is given as a file's bytes.

    Raises:
        UnreadablePicture: it is none.
    """
    with tempfile.NamedTemporaryFile(prefix="rungs-") as file:
        file.write(content)
        file.flush()
        place = Path(file.name)
        size = check_size(place)
        picture, found = answers(place)
        dropped = read_whole(place, DROPPED)
    return {
        "dropped": {"picture": webp(dropped.transpose(1, 2, 0)), "size": size},
        "inputs": _inputs(found),
        "levels": [_card(answer, picture) for answer in found],
        "verdict": verdict(found),
    }


def _card(answer: Answer, picture: np.ndarray) -> dict:
    """A level's answer."""
    first = len(answer.shares) if len(answer.shares) <= FEW else FIRST
    return {
        "level": answer.level,
        "first": answer.shares[:first],
        "others": answer.shares[first:],
        "picture": webp(overlay(picture, answer.places, SHOWN)),
        "sure": answer.sure,
        "far": answer.far,
    }


def _inputs(found: list[Answer]) -> list[dict]:
    """What the networks were given, each with the levels that saw it so."""
    seen: dict[bytes, dict] = {}
    for answer in found:
        pixels = answer.input.transpose(1, 2, 0)
        one = {"picture": uri(_png(pixels), "png"), "side": len(pixels), "levels": []}
        seen.setdefault(pixels.tobytes(), one)["levels"].append(answer.level)
    return list(seen.values())


def _png(pixels: np.ndarray) -> bytes:
    """Pixels, uint8 (h, w, 3), each as it is."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
