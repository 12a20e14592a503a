"""The size of a channel's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.pruning.importance.criteria.base import Criterion

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.pruning.importance.slices import Slice


class Magnitude(Criterion):
    """Squared L2 norm over all coupled weights (DepGraph, Fang et al. 2023, §3.3)."""

    name = "magnitude"
    tried = 1

    def of_slice(self, one: Slice, model: nn.Module) -> Tensor | None:
        return one.of(model).double().square().sum(1)


ROW = Magnitude()
