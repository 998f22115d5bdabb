"""Networks as an ordered dict of named stages, with their weights.

To add a network, add a function to `ARCHITECTURES` that builds torchvision's module, one that cuts
it into stages, and the name of its classifier's parameters.
"""

import http.client
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from common.config import NetworkConfig, NoNetwork, UserError, nearest
from common.runtime import file_hash

log = logging.getLogger("rungs")

NAMED = ("imagenet", "tiny-imagenet", "none")
BUNDLED = Path(__file__).parent / "weights" / "resnet18_tiny_imagenet.pth"
BUNDLED_SHA256 = "0faebba08bb6fab62f1ca3c07da964869dfcb0cc9c24eda7330748ad667b0ae6"


@dataclass(frozen=True)
class Weights:
    """The starting weights, and the pixels they were trained on.

    `mean` and `deviation` are those of RGB in [0, 1]; `image_size` in pixels.
    """

    name: str
    sha256: str | None
    image_size: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass
class Backbone:
    """Stages with their weights loaded, and what a head must know of them."""

    stages: OrderedDict[str, nn.Module]
    channels: dict[str, int]  # of each stage's output
    weights: Weights


@dataclass(frozen=True)
class Architecture:
    """How to build a network, cut it into stages, and where its published weights are."""

    build: Callable[[], nn.Module]
    cut: Callable[[nn.Module], OrderedDict[str, nn.Module]]
    channels: dict[str, int]
    classifier: str  # the prefix of the classifier's keys in a state dict
    imagenet: torchvision.models.WeightsEnum


def _cut_resnet(network: nn.Module) -> OrderedDict[str, nn.Module]:
    names = ("conv1", "bn1", "relu", "maxpool")
    stem = nn.Sequential(OrderedDict((name, getattr(network, name)) for name in names))
    layers = {f"layer{i}": getattr(network, f"layer{i}") for i in (1, 2, 3, 4)}
    return OrderedDict(stem=stem, **layers)


ARCHITECTURES = {
    "resnet18": Architecture(
        build=torchvision.models.resnet18,
        cut=_cut_resnet,
        channels={"stem": 64, "layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512},
        classifier="fc.",
        imagenet=torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
    )
}


def build(config: NetworkConfig) -> Backbone:
    """The configured network's stages, with the configured weights. Its classifier is left out.

    Raises:
        UserError: an unknown network, or weights that are unreadable or another network's.
        NoNetwork: weights that must be downloaded, and cannot be.
    """
    architecture = _architecture(config)
    network = architecture.build()
    if config.weights == "imagenet":
        _download(architecture, weights_place(config))
    weights = describe_weights(config)
    if config.weights != "none":
        _load(network, _read(weights_place(config)), architecture, config.weights)
    return Backbone(architecture.cut(network), architecture.channels, weights)


def image_size(config: NetworkConfig) -> int:
    """Side in pixels of the network's input: configured, else what suits the weights."""
    return config.image_size or {"tiny-imagenet": 64, "none": 32}.get(config.weights, 224)


def describe_weights(config: NetworkConfig) -> Weights:
    """Name, hash and input of the configured weights, which must be there already."""
    path = weights_place(config)
    if path is not None and not path.is_file():
        raise UserError(f"network.weights: no file {path}; or imagenet, tiny-imagenet, none")
    sha256 = file_hash(path) if path else None
    if config.weights == "tiny-imagenet" and sha256 != BUNDLED_SHA256:
        raise UserError(f"{path}: not the bundled file any more; restore it with git checkout")
    name = config.weights if config.weights in NAMED else path.name
    return Weights(config.weights_title or name, sha256, image_size(config))


def weights_place(config: NetworkConfig) -> Path | None:
    """Where the weights' file is, or goes when it is downloaded; None for `none`."""
    if config.weights == "none":
        return None
    if config.weights == "tiny-imagenet":
        return BUNDLED
    if config.weights == "imagenet":
        url = _architecture(config).imagenet.url
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    return Path(config.weights).expanduser()


def _architecture(config: NetworkConfig) -> Architecture:
    if config.arch not in ARCHITECTURES:
        raise UserError(
            f"network.arch: unknown '{config.arch}'{nearest(config.arch, ARCHITECTURES)}"
        )
    return ARCHITECTURES[config.arch]


def _download(architecture: Architecture, path: Path) -> None:
    if path.is_file():
        return
    log.info("downloading ImageNet weights to %s", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = path.stem.rsplit("-", 1)[1]  # of the file's SHA-256, in torchvision's names
        torch.hub.download_url_to_file(architecture.imagenet.url, str(path), prefix)
    except (OSError, RuntimeError, http.client.HTTPException) as error:  # URLError is an OSError
        raise NoNetwork(f"cannot download the ImageNet weights to {path} ({error})") from error


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        with warnings.catch_warnings(action="ignore"):  # of other pickles, which are refused
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # a file that is no state dict fails in a dozen ways
        raise UserError(
            f"network.weights: {path} is no file of weights: it is damaged, or holds more than "
            "tensors (nothing in it was run); choose a .pth or .safetensors file of a state dict"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"network.weights: {path} is not a state dict, a mapping of names to tensors"
        )
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        hint = "pip install -r requirements-extras.txt"
        raise UserError(f"network.weights: {path} needs safetensors: {hint}") from error
    return load_file(path)


def _load(
    network: nn.Module, state: dict[str, Tensor], architecture: Architecture, name: str
) -> None:
    """Load all but the classifier, which every level builds anew."""
    own = network.state_dict()
    classifier = [key for key in state if key.startswith(architecture.classifier)]
    if classifier:
        classes = max(state[key].shape[:1].numel() for key in classifier)
        log.info("weights %s: their classifier of %d classes is left out", name, classes)
    body = {key: value for key, value in state.items() if key not in classifier}
    wanted = {key for key in own if not key.startswith(architecture.classifier)}
    optional = {key for key in wanted if key.endswith("num_batches_tracked")}
    wrong = sorted(key for key in body.keys() & wanted if body[key].shape != own[key].shape)
    missing, unknown = sorted(wanted - body.keys() - optional), sorted(body.keys() - wanted)
    for what, keys in (("lack", missing), ("have no place for", unknown), ("misshape", wrong)):
        if keys:
            raise UserError(
                f"network.weights: {name} is not for this network: its weights {what} '{keys[0]}'"
                f" and {len(keys) - 1} more; choose weights of the same network.arch"
            )
    network.load_state_dict(body, strict=False)
