"""Nothing to download: one line that says where the files belong, and nothing half-written."""

import http.client
import os
import socket
import subprocess
import sys
import time
import urllib.request

from common.utils import download
from helpers.refusals import LEVELS, one_line

URLOPEN = urllib.request.urlopen  # the tests' project has none


def shell(tmp_path, *command):
    """A command as a process of its own, from another folder."""
    environment = os.environ | {"TORCH_HOME": str(tmp_path / "torch")}
    environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        **{"env": environment, "cwd": tmp_path, "capture_output": True, "text": True},
    )
    return done.returncode, done.stderr


def test_in_a_process_no_network(tmp_path):
    """A real connection that is refused, not a patched one."""
    root = tmp_path / "archives"
    code, text = shell(tmp_path, LEVELS[2] / "run.py", "--data.root", root)
    weights = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    one_line(code, text, root / "cifar-10-python.tar.gz", weights, "--offline")
    assert list(root.iterdir()) == [], "nothing half-written"


def test_no_network(refused, project, tmp_path):
    archive = project / "data/cifar-10-python.tar.gz"
    weights = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    refused(1, [], "CIFAR-10", "no route to host", "--offline", archive, weights)
    text = refused(1, ["--data.name=digits"], "ImageNet weights", "--offline", weights)
    assert str(archive) not in text, "digits need no archive"
    text = refused(1, ["--network.weights=tiny-imagenet"], "--offline", archive)
    assert "resnet18_tiny_imagenet.pth" not in text, "the bundled file is there"
    assert not weights.exists()


def test_download_of_weights_that_breaks_off(refused, monkeypatch, tmp_path):
    def breaks_off(*_, **__):
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr(urllib.request, "urlopen", breaks_off)
    weights = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    refused(1, ["--data.name=digits"], "cannot be downloaded", weights, "--offline")
    assert not weights.exists()


def test_names_that_are_looked_for_in_vain(run, monkeypatch, project, tmp_path):
    """What is fetched is said first; one attempt, of some seconds, and all files are named."""
    monkeypatch.setattr(urllib.request, "urlopen", URLOPEN)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(30))
    monkeypatch.setattr(download, "ANSWER", 1)
    begun = time.monotonic()
    code, said, text = run(3)
    assert time.monotonic() - begun < 20
    archive = project / "data/cifar-10-python.tar.gz"
    weights = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    one_line(code, text, archive, weights, "toronto.edu", "pytorch.org", "no answer in 1 seconds")
    assert said.count("fetching") == 1 and "fetching https://www.cs.toronto.edu" in said
