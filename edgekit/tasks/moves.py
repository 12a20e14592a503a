"""Where an augmentation moved the pictures of a batch, for targets that have to go along."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Moves"]


class Moves(NamedTuple):
    """What was at (x, y) is at ``(x, y) * scale + offset``, in shares of the picture: 0…1 from left to right
    and from top to bottom. A mirrored direction has a negative scale.

    scale, offset: (N, 2), x and y.
    """

    scale: Tensor
    offset: Tensor

    @classmethod
    def none(cls, count: int) -> Moves:
        """Nothing moved in any of ``count`` pictures."""
        return cls(torch.ones(count, 2), torch.zeros(count, 2))

    def then(self, later: Moves) -> Moves:
        """Both, one after the other."""
        return Moves(self.scale * later.scale, self.offset * later.scale + later.offset)
