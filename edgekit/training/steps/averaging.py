"""The running average of the weights over the steps of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Exponential moving average of everything in a model's state.

    Averaging: Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging".

    After step t (from 1): average = d * average + (1 - d) * weights, d = min(decay, (1 + t) / (10 + t)), so
    that the first, poor weights are soon forgotten. Batch norm's running statistics are averaged along, as
    they belong to the weights that they were collected with; counters are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.values = {name: value.detach().clone() for name, value in _tensors(model).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in _tensors(self.model).items():
            if value.is_floating_point():
                self.values[name].lerp_(value, 1 - decay)
            else:
                self.values[name].copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights for a while, afterwards its own again, bit for bit."""
        own = {name: value.detach().clone() for name, value in _tensors(self.model).items()}
        self.apply()
        try:
            yield
        finally:
            _put(own, self.model)

    def apply(self) -> None:
        """The model takes the averaged weights."""
        _put(self.values, self.model)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint; shapes are those of the model, which are checked with the model's own state."""
        self.steps = state["steps"]
        for name, value in self.values.items():
            value.copy_(state["values"][name])


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of the state, not copied."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


@torch.no_grad()
def _put(values: dict[str, Tensor], model: nn.Module) -> None:
    for name, value in _tensors(model).items():
        value.copy_(values[name])
