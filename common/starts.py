"""The grader's checks of what a run started from, and that its frozen parts still are that."""

import torch
from torch import Tensor

from common.config import LevelConfig, NetworkConfig
from common.evidence import Evidence
from common.models import Weights, build_backbone
from common.training.checkpoint import read_checkpoint
from common.utils.paths import run_name
from common.verdicts import Finding


def check_weights(evidence: Evidence, weights: Weights) -> Finding:
    """The starting weights' file is the one that the run says it started from."""
    said = {"the report": evidence.metrics["weights"].get("sha256")}
    said["the checkpoint"] = evidence.checkpoint.get("weights")
    wrong = [f"{str(h)[:12]}... in {who}" for who, h in said.items() if h != weights.sha256]
    expected = f"{weights.name}, SHA-256 {str(weights.sha256)[:12]}..."
    return Finding("starting weights", not wrong, expected, ", ".join(wrong) or "the same")


def check_frozen(evidence: Evidence, config: LevelConfig) -> Finding:
    """What the run says it froze is, to the last bit, what it started from."""
    weights = config.network.weights
    start = [] if weights == "none" else [_pretrained(config.network)]
    missing = ""
    if level := config.network.start_from:
        folder = evidence.checkpoint_path.parent.parent
        path = folder / run_name(level, "config", config.seed) / "best.pt"
        try:
            start.append(read_checkpoint(path)["network"])
        except Exception:  # its own level's checks say what is wrong with it
            missing = f" ({level}'s checkpoint is missing or unreadable)"
    state = evidence.checkpoint["network"]
    frozen = [key for key in state if _part(key) not in config.network.trainable]
    known = [key for key in frozen if any(key in tensors for tensors in start)]
    changed = [k for k in known if not any(_same(state[k], tensors.get(k)) for tensors in start)]
    expected = "frozen tensors as in the starting weights"
    if weights == "none" and not config.network.start_from:
        return Finding("frozen parts", True, expected, "they started at random: not compared")
    stages = sorted({_part(key) for key in changed})
    seen = f"{len(changed)} of {len(known)} changed"
    seen += f", in {', '.join(stages)}{missing}" if changed else ""
    unknown = len(frozen) - len(known)
    seen += f"; {unknown} not in those weights" if unknown else ""
    return Finding("frozen parts", not changed, expected, seen)


def _pretrained(config: NetworkConfig) -> dict[str, Tensor]:
    stages = build_backbone(config).stages
    return {
        f"stages.{name}.{key}": value
        for name, stage in stages.items()
        for key, value in stage.state_dict().items()
    }


def _part(key: str) -> str:
    parts = key.split(".")
    return parts[1] if parts[0] == "stages" and len(parts) > 1 else parts[0]


def _same(tensor: Tensor, other: Tensor | None) -> bool:
    return other is not None and tensor.dtype == other.dtype and torch.equal(tensor, other)
