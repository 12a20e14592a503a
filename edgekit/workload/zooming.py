"""Pictures shown smaller or larger, at another place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.tasks.moves import Moves

__all__ = ["zoomed"]


def zoomed(images: Tensor, amount: float, generator: torch.Generator) -> tuple[Tensor, Moves]:
    """Images (N, C, H, W) of any type, each by a factor of 1 / (1 + amount) … 1 + amount (its logarithm is
    uniform), where a larger one shows a random part and a smaller one stands at a random place among zeros;
    bilinear.
    """
    draws = torch.rand((3, len(images)), generator=generator)
    factor = torch.exp((2 * draws[0] - 1) * math.log1p(amount))[:, None]
    start = draws[1:].T * (1 - 1 / factor)  # in shares of the picture: below 0 where it becomes smaller
    moves = Moves(factor.expand(-1, 2), -start * factor)
    # Normalised coordinates run from -1 to 1, sampled at scale * x + offset.
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / factor[:, 0]
    theta[:, :, 2] = 2 * start + 1 / factor - 1
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    shown = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (shown if images.is_floating_point() else shown.round()).to(images.dtype), moves
