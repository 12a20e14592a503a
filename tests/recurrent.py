"""Networks with recurrent layers, and what they take."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["STEPS", "Steps", "draw"]

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
