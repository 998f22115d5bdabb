"""Bad files of weights, and nothing to download: one line on stderr that says what to do."""

import http.client
import pickle
from pathlib import Path

import pytest
import torch
import torchvision

from refusals import TINY

# ---- weights ----


class Evil:
    """Unpickled, it writes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_the_evil_pickle_works(tmp_path):
    """Else the test below could not fail."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["random", "text", "empty", "pickle", "torch"])
def test_file_that_is_no_weights(refused, tmp_path, kind, ending):
    file, mark = tmp_path / f"weights{ending}", tmp_path / "mark"
    if kind == "torch":
        torch.save({"conv1.weight": Evil(mark)}, file)
    else:
        contents = {"random": torch.randint(256, (999,)).byte().numpy().tobytes(), "empty": b""}
        contents |= {"text": b"my weights", "pickle": pickle.dumps(Evil(mark))}
        file.write_bytes(contents[kind])
    refused(1, [*TINY, f"--network.weights={file}"], "network.weights", file, "no file of weights")
    assert not mark.exists(), "something in the file was run"


def test_weights_that_are_no_state_dict(refused, tmp_path):
    for content in (torch.zeros(3), {"state_dict": {"conv1.weight": torch.zeros(3)}}, [1]):
        torch.save(content, tmp_path / "w.pth")
        words = ["network.weights", tmp_path / "w.pth", "not a state dict"]
        refused(1, [*TINY, f"--network.weights={tmp_path / 'w.pth'}"], *words)


def test_weights_that_are_not_there(refused, tmp_path):
    refused(1, [*TINY, "--network.weights=imagnet"], "no file imagnet", "imagenet, tiny-imagenet")
    refused(1, [*TINY, f"--network.weights={tmp_path}"], f"no file {tmp_path}")


@pytest.mark.parametrize("other", ["resnet34", "resnet50", "mobilenet_v3_small"])
def test_weights_of_another_architecture(refused, tmp_path, other):
    with torch.device("meta"):  # its names and shapes, without its millions of random numbers
        state = torchvision.models.get_model(other).state_dict()
    state = {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}
    torch.save(state, tmp_path / f"{other}.pth")  # a stretched number is saved as one number
    file = tmp_path / f"{other}.pth"
    words = ["network.weights", file, "not for this network", "network.arch"]
    refused(1, [*TINY, f"--network.weights={file}"], *words)


# ---- no network ----


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

    monkeypatch.setattr(torch.hub, "urlopen", breaks_off)
    weights = tmp_path / "torch/hub/checkpoints/resnet18-f37072fd.pth"
    refused(1, ["--data.name=digits"], "cannot download", weights, "--offline")
    assert not weights.exists()
