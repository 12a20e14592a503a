"""What the loss changes by without a channel, to first order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.pruning.importance.criteria.base import Backward, Criterion

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.pruning.importance.slices import Slice
    from edgekit.workload import Workload


class Taylor(Criterion):
    """Sum of |weight * gradient|, the first-order change of the loss.

    After Molchanov et al. 2019, §3.1, with absolute values where they square, as in torch-pruning. The
    gradients are those of the mean loss.
    """

    name = "taylor"
    tried = 2
    gradients = True

    def backward(self, workload: Workload, *, seed: int, rows: Tensor | None = None) -> Backward | None:
        from edgekit.pruning.importance.gradients import mean_gradients

        return mean_gradients(workload, seed=seed, rows=rows)

    def of_slice(self, one: Slice, model: nn.Module) -> Tensor | None:
        weights, gradients = one.of(model, bias=True).double(), one.gradients(model, bias=True).double()
        return (weights * gradients).abs().sum(1)


ROW = Taylor()
