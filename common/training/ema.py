"""Weight averaging: an exponential moving average of what trains, scored instead of it."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from common.models import StagedNetwork


class EMA:
    """The moving average of the parameters that train and of their stages' batch statistics.

    Its memory is `decay` a step; shorter at the start, (1 + steps) / (10 + steps), so that the
    random start is soon forgotten.

    Args:
        network: whose parameters are averaged.
        decay: share of the average that a step keeps; None averages nothing.
    """

    def __init__(self, network: StagedNetwork, decay: float | None):
        self.decay, self.steps = decay, 0
        state, keys = network.state_dict(), network.state_keys(network.trainable)
        numbers = [key for key in keys if state[key].is_floating_point()]
        self.live = {key: state[key] for key in (numbers if decay is not None else [])}
        self.mean = {key: value.clone() for key, value in self.live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are after a step."""
        if not self.live:
            return
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.mean.values()), list(self.live.values()), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """For the block, the network holds the average."""
        kept = {key: value.clone() for key, value in self.live.items()}
        self._put(self.mean)
        try:
            yield
        finally:
            self._put(kept)

    def state(self) -> dict[str, object]:
        """What a resumed run goes on from."""
        return {"steps": self.steps, "mean": self.mean}

    def load(self, state: dict[str, object]) -> None:
        """Go on from a saved state."""
        self.steps = state["steps"]
        for key, value in self.mean.items():
            value.copy_(state["mean"][key])

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for key, value in self.live.items():
            value.copy_(values[key])
