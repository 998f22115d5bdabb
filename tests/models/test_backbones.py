"""Backbones: each source of weights, what is left out, and what is refused."""

import hashlib
import logging
import sys
import urllib.error
import urllib.request
from collections import OrderedDict
from unittest import mock

import pytest
import torch

from common.config import NetworkConfig
from common.models import backbones, check_network
from common.models import weights as starting_weights
from common.models.weights import BUNDLED, BUNDLED_SHA256, weights_file
from common.utils.errors import NoNetwork, UserError
from common.utils.files import file_hash
from helpers.networks import build, torchvision_network

IMAGENET = "resnet18-f37072fd.pth"  # torchvision's name of its file


@pytest.fixture(autouse=True)
def torch_home(tmp_path, monkeypatch):
    """Weights are looked for below tmp_path, and nothing can be downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    offline = mock.Mock(side_effect=urllib.error.URLError("no route to host"))
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    return tmp_path / "home"


@pytest.fixture(scope="module")
def state():
    return torchvision_network().state_dict()


def flat(backbone):
    """The stages' tensors under torchvision's names."""
    found = {}
    for name, stage in backbone.stages.items():
        for key, value in stage.state_dict().items():
            found[key if name == "stem" else f"{name}.{key}"] = value
    return found


def same(backbone, state, dtype=torch.float32):
    """All of the state dict but its classifier is in the stages, as float32, and nothing else."""
    body = {key: value for key, value in state.items() if not key.startswith("fc.")}
    found = flat(backbone)
    assert found.keys() == body.keys() and len(found) == 120
    for key, value in body.items():
        assert found[key].dtype == (torch.int64 if key.endswith("tracked") else torch.float32)
        expected = value.to(dtype).to(found[key].dtype) if value.is_floating_point() else value
        assert torch.equal(found[key], expected), key


def test_a_file_under_a_published_name_that_is_another_is_said(state, torch_home, caplog):
    place = torch_home / "hub/checkpoints" / IMAGENET
    place.parent.mkdir(parents=True)
    torch.save(state, place)
    build("imagenet")
    assert (
        f"{IMAGENET} is not the file that was published: SHA-256 {file_hash(place)}" in caplog.text
    )


def refused(weights, *words, **options):
    with pytest.raises(UserError) as caught:
        build(weights, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert [word for word in words if str(word) not in text] == [], text


# ---- where weights come from ----


def test_none_is_random_and_follows_the_seed():
    torch.manual_seed(3)
    first = build()
    torch.manual_seed(3)
    again, other = build(), build()
    key = "layer4.1.conv2.weight"
    assert torch.equal(flat(first)[key], flat(again)[key])
    assert not torch.equal(flat(first)[key], flat(other)[key])
    assert (first.weights.name, first.weights.sha256) == ("none", None)
    assert weights_file(NetworkConfig(weights="none")) is None


def test_bundled_weights_are_there_and_checked(monkeypatch, tmp_path):
    backbone = build("tiny-imagenet")
    bundled = torch.load(BUNDLED, weights_only=True)
    same(backbone, bundled)
    assert bundled["conv1.weight"].dtype == torch.float16, "half precision on disk"
    digest = hashlib.sha256(BUNDLED.read_bytes()).hexdigest()
    assert backbone.weights.sha256 == digest == BUNDLED_SHA256
    assert backbone.weights.name == "tiny-imagenet"

    copy = tmp_path / "copy.pth"
    content = bytearray(BUNDLED.read_bytes())
    monkeypatch.setattr(starting_weights, "BUNDLED", copy)
    copy.write_bytes(content)
    assert build("tiny-imagenet").weights.sha256 == digest, "a faithful copy is taken"
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    refused("tiny-imagenet", copy, "not the bundled file", "git checkout")
    copy.unlink()
    refused("tiny-imagenet", copy, "no file")


def test_imagenet_from_torch_home(torch_home, state):
    place = torch_home / "hub" / "checkpoints" / IMAGENET
    assert weights_file(NetworkConfig(weights="imagenet")) == place
    with pytest.raises(NoNetwork, match="cannot be downloaded") as caught:
        build("imagenet")
    assert str(place) in str(caught.value) and not place.exists()
    torch.save(state, place)
    backbone = build("imagenet")
    same(backbone, state)
    assert (backbone.weights.name, backbone.weights.sha256) == ("imagenet", file_hash(place))
    assert urllib.request.urlopen.call_count == 1, "what is there is not downloaded"
    place.write_bytes(place.read_bytes()[:-1000])
    refused("imagenet", place, "no file of weights")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_file_by_path(state, tmp_path, ending, dtype):
    file = tmp_path / f"mine{ending}"
    content = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    if ending == ".pth":
        torch.save(content, file)
    else:
        pytest.importorskip("safetensors.torch").save_file(content, file)
    backbone = build(file)
    same(backbone, content, dtype)
    assert (backbone.weights.name, backbone.weights.sha256) == (file.name, file_hash(file))
    assert build(file, weights_title="Mine").weights.name == "Mine"


def test_safetensors_that_is_not_installed(monkeypatch, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    refused(tmp_path / "w.safetensors", "needs safetensors", "requirements-extras.txt")


def test_home_folder_in_a_path(state, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(state, tmp_path / "w.pth")
    same(build("~/w.pth"), state)


# ---- what is left out, and what is refused ----


def test_classifier_is_left_out_and_the_log_says_so(state, tmp_path, caplog):
    caplog.set_level(logging.INFO, "rungs")
    torch.save(state, tmp_path / "w.pth")
    assert "fc" not in "".join(flat(build(tmp_path / "w.pth")))
    (message,) = [r.getMessage() for r in caplog.records if "classifier" in r.getMessage()]
    assert "w.pth" in message and "7 classes" in message and "left out" in message
    caplog.clear()
    body = {key: value for key, value in state.items() if not key.startswith("fc.")}
    torch.save(body, tmp_path / "body.pth")
    same(build(tmp_path / "body.pth"), state)
    assert "classifier" not in caplog.text, "there was none"


def test_keys_that_do_not_fit(state, tmp_path):
    file, key = tmp_path / "w.pth", "layer3.0.conv1.weight"

    def save(change):
        content = OrderedDict(state)
        change(content)
        torch.save(content, file)

    save(lambda s: s.pop(key))
    refused(file, "not for this network", f"lack '{key}'", "0 more")
    save(lambda s: (s.pop(key), s.pop("conv1.weight")))
    refused(file, "lack 'conv1.weight'", "1 more")
    save(lambda s: s.update({key: s[key][:, :100].clone()}))
    refused(file, f"misshape '{key}'", "network.arch")
    save(lambda s: s.update({"layer5.0.conv1.weight": torch.zeros(3)}))
    refused(file, "no place for 'layer5.0.conv1.weight'")
    save(lambda s: s.update({"fc.bias": torch.tensor(0.0), "fc.more": torch.zeros(3, 4)}))
    same(build(file), state)  # whatever the classifier is, it is left out


def test_counters_may_be_missing(state, tmp_path):
    """Files from before batch norm counted its batches have no num_batches_tracked."""
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "w.pth")
    same(build(tmp_path / "w.pth"), state)


def test_unknown_network():
    refused("none", "network.arch", "mean 'resnet18'", arch="resnet8")


# ---- what the config tells, before the pictures are read ----


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_weights_that_fit_are_looked_at_and_not_read(state, tmp_path, monkeypatch, ending):
    file = tmp_path / f"mine{ending}"
    if ending == ".pth":
        torch.save(state, file)
    else:
        pytest.importorskip("safetensors.torch").save_file(state, file)
    for read in ("file_hash", "_check_sums", "not_finite"):
        monkeypatch.setattr(starting_weights, read, mock.Mock(side_effect=AssertionError(read)))
    generator = torch.get_rng_state()
    for weights in ("none", "tiny-imagenet", file):
        check(weights, trainable=["layer4", "head"], taps=["layer3"])
    check("imagenet")  # to be downloaded: it is compared when it is loaded
    check("none", arch="vit_b_16", image_size=64)
    assert torch.equal(torch.get_rng_state(), generator), "nothing was drawn"
    assert urllib.request.urlopen.call_count == 0


def check(weights, **options):
    check_network(NetworkConfig(weights=str(weights), **options))


@pytest.mark.parametrize(
    ("weights", "options", "says"),
    [
        ("tiny-imagenet", {"arch": "cnn"}, "is not for this network: its weights lack 'block1"),
        ("tiny-imagenet", {"arch": {"resnet18": {"small_stem": True}}}, "misshape 'conv1.weight'"),
        ("none", {"arch": "resnet34"}, "unknown 'resnet34'; did you mean 'resnet18'"),
        ("none", {"arch": {"cnn": {"depth": 9}}}, "depth must be one of 4, 5, 6, not '9'"),
        ("none", {"arch": "vit_b_16", "image_size": 40}, "a multiple of 16, not 40"),
        ("imagenet", {"arch": "mlp"}, "there are no ImageNet weights for mlp"),
        ("none.pth", {}, "network.weights: no file none.pth"),
        (__file__, {}, "is no file of weights"),
    ],
)
def test_what_cannot_be_built_is_refused_by_its_config(weights, options, says):
    with pytest.raises(UserError) as caught:
        check(weights, **options)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_architecture_that_looks_at_its_numbers(monkeypatch):
    def curious(image_size):
        architecture = backbones.mlp(image_size)
        assert float(next(architecture.network.parameters()).detach().sum()) != 0
        return architecture

    monkeypatch.setitem(backbones.ARCHITECTURES, "curious", curious)
    check("none", arch="curious", trainable=["mine"])  # an own level may build other stages
