"""What an anchor-free head learns from: each loss by itself, and their sum for what places were given."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["distribution_focal", "score_loss"]


def distribution_focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """(M, 4): how far four distributions over whole distances are from the distances that are right.

    Cross-entropy with the two whole numbers beside each, by nearness (DFL; Li et al. 2020, arXiv 2006.04388,
    eq. 6).

    Args:
        logits: (M, 4, R), of the distances 0…R - 1.
        wanted: (M, 4), in the same unit; what is beyond the last is taken as just below it.
    """
    bins = logits.shape[2]
    wanted = wanted.clamp(0, bins - 1 - 0.01)
    lower = wanted.floor().long()
    nearness = wanted - lower
    shares = logits.log_softmax(2)
    below = shares.gather(2, lower[:, :, None])[:, :, 0]
    above = shares.gather(2, lower[:, :, None] + 1)[:, :, 0]
    return -(below * (1 - nearness) + above * nearness)


def score_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Binary cross-entropy with scores 0…1, summed over all."""
    return F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype), reduction="sum")


def within_float(values: Tensor) -> Tensor:
    """In float32 at least: sums over thousands of places have too few digits in bfloat16."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
