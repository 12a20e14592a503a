"""Networks with recurrent layers, and what they take."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["STEPS", "Quiet", "Steps", "draw", "powers"]

STEPS = 5


class Steps(nn.Module):
    """A linear layer for each step, recurrent layers over (N, 5, 8), and a linear layer on the last step.

    ``given``: whether the first state comes from the input, and isn't zeros; ``first``: whether the batch is
    the first axis of what the recurrent layers take.
    """

    def __init__(
        self,
        kind: type[nn.LSTM | nn.GRU],
        *,
        layers: int = 1,
        hidden: int = 16,
        given: bool = False,
        first: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.hidden, self.given, self.first = kind, hidden, given, first
        self.front = nn.Linear(8, 8)
        self.memory = kind(8, hidden, layers, batch_first=first, **settings)
        width = settings.get("proj_size") or hidden
        self.head = nn.Linear(width * (2 if settings.get("bidirectional") else 1), 6)
        self.states = layers * (2 if settings.get("bidirectional") else 1)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        steps, state = F.relu(self.front(x)), None
        if self.given:
            one = x[:, 0].repeat(1, self.hidden // 8).unsqueeze(0).repeat(self.states, 1, 1)
            state = (torch.tanh(one), one) if self.kind is nn.LSTM else torch.tanh(one)
        if not self.first:
            steps = steps.transpose(0, 1)
        steps = self.memory(steps, state)[0]
        last = steps[:, -1] if self.first else steps[-1]
        return self.head(last)


def draw(count: int, seed: int = 0) -> Tensor:
    """Inputs (N, 5, 8)."""
    return torch.randn(count, STEPS, 8, generator=torch.Generator().manual_seed(seed))


class Quiet(nn.Module):
    """Two LSTM layers right on the inputs, the quiet ones of which count: (N, 5, 8) to (N, 4)."""

    def __init__(self, *, first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = first
        self.memory, self.head = nn.LSTM(8, 8, 2, batch_first=first), nn.Linear(8, 4)
        with torch.no_grad():
            self.memory.weight_ih_l0.mul_(1e5)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        steps = self.memory(x if self.first else x.transpose(0, 1))[0]
        result: Tensor = self.head(steps[:, -1] if self.first else steps[-1])
        return result


def powers(count: int, seed: int = 0) -> Tensor:
    """A spectrum's, as it were, (N, 5, 8): a loud step, and quiet ones a hundred thousand times weaker."""
    return draw(count, seed).square() * torch.tensor([1.0, 1e-5, 1e-4, 1e-5, 1e-5])[None, :, None]
