"""What is drawn at random: the same for the same seed, whatever was drawn before."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["shuffled"]


def shuffled(count: int, seed: int) -> Tensor:
    """The positions 0 … count - 1, (count,), in an order that ``seed`` alone decides."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))
