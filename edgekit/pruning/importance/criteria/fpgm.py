"""How far a channel's filter is from all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.pruning.importance.criteria.base import Criterion

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.pruning.importance.slices import Slice


class GeometricMedian(Criterion):
    """Sum of distances to the other channels' weights.

    Those near the geometric median can be replaced by the others (He et al. 2019, "Filter Pruning via
    Geometric Median", §3).
    """

    name = "fpgm"
    tried = 5

    def of_slice(self, one: Slice, model: nn.Module) -> Tensor | None:
        import torch
        from torch import nn
        from torch.nn.modules.conv import _ConvNd

        from edgekit.pruning.plans import recurrent

        layer = None if one.side.bare else model.get_submodule(one.side.layer)
        if not isinstance(layer, (_ConvNd, nn.Linear, *recurrent.KINDS)):
            return None
        weights = one.of(model).double()
        return torch.cdist(weights, weights).sum(1)


ROW = GeometricMedian()
