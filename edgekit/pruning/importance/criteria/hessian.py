"""What the loss changes by without a channel, to second order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.pruning.importance.criteria.base import Backward, Criterion

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.pruning.importance.slices import Slice
    from edgekit.workload import Workload


class Hessian(Criterion):
    """Sum of weight² * E[gradient²]: Optimal Brain Damage (LeCun et al. 1989, "Optimal Brain Damage").

    With the diagonal of the empirical Fisher information for that of the Hessian (Theis et al. 2018, "Faster
    gaze prediction with dense networks and Fisher pruning"): in place of gradients stand the means of the
    squares of single samples' gradients.
    """

    name = "hessian"
    tried = 3
    gradients = True

    def backward(self, workload: Workload, *, seed: int, rows: Tensor | None = None) -> Backward | None:
        from edgekit.pruning.importance.gradients import mean_squared_gradients

        return mean_squared_gradients(workload, seed=seed, rows=rows)

    def of_slice(self, one: Slice, model: nn.Module) -> Tensor | None:
        weights, squares = one.of(model, bias=True).double(), one.gradients(model, bias=True).double()
        return (weights.square() * squares).sum(1)


ROW = Hessian()
