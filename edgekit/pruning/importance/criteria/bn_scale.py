"""The scale that batch norm gives a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.pruning.importance.criteria.base import Criterion

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.pruning.importance.slices import Slice


class BatchNormScale(Criterion):
    """Sum of batch norm's |scale| (Liu et al. 2017, "Network Slimming", §3)."""

    name = "bn_scale"
    tried = 4

    def of_slice(self, one: Slice, model: nn.Module) -> Tensor | None:
        from torch.nn.modules.batchnorm import _BatchNorm

        if one.side.bare or not isinstance(model.get_submodule(one.side.layer), _BatchNorm):
            return None
        return one.of(model).double().abs().sum(1)


ROW = BatchNormScale()
