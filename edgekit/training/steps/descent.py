"""One step downhill: gradients, their limit, the optimizer, and the scale that float16 needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Descent"]


class Descent:
    """Takes a loss and moves the weights.

    In float16 gradients below 6e-8 would vanish: the loss is scaled up, and the gradients down again
    (Micikevicius et al. 2018, "Mixed Precision Training", §3.2); a step whose gradients overflow is left out
    and the scale halved. The scale belongs to the training's state.

    Args:
        clip: highest norm of all gradients together; None for no limit.
    """

    def __init__(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter], clip: float | None) -> None:
        self.optimizer, self.parameters, self.clip = optimizer, parameters, clip
        self.scaler: torch.amp.GradScaler | None = None
        self.kept: dict[str, Any] = {}

    def scale_for(self, precision: str, device: torch.device) -> None:
        """Before the first step: whether the loss has to be scaled."""
        if precision == "float16":
            self.scaler = torch.amp.GradScaler(device.type)
            if self.kept:
                self.scaler.load_state_dict(self.kept)

    def step(self, loss: Tensor) -> None:
        """``loss``: a scalar with a graph behind it, wherever it lies."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.scaler is None:
            loss.backward()
            self._limit()
            self.optimizer.step()
            return
        own = next((p.device for p in self.parameters), loss.device)
        self.scaler.scale(loss.to(own)).backward()
        self.scaler.unscale_(self.optimizer)
        self._limit()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _limit(self) -> None:
        if self.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return self.kept if self.scaler is None else dict(self.scaler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint, or of the epoch that a training goes back to."""
        self.kept = state
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
