"""What the tests of answers share: a browser, a page on 127.0.0.1, a picture."""

import numpy as np
import pytest
from PIL import Image

from common.predict.choices import Choices
from helpers.browser import browser
from helpers.projects import inside
from helpers.serving import measured, served


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def server(coursed):
    with inside(coursed), served(Choices([coursed / "runs/digits"])) as made:
        made.answers = measured(made.choices, "digits")
        yield made


@pytest.fixture(scope="session")
def digit(tmp_path_factory):
    file = tmp_path_factory.mktemp("digit") / "five.png"
    pixels = np.zeros((40, 40), np.uint8)
    pixels[5:35, 18:24] = 255
    Image.fromarray(pixels).save(file)
    return file
