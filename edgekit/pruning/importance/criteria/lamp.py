"""A channel's share of what is left where all weaker ones are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.pruning.importance.criteria.base import Criterion

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.pruning.importance.slices import Slice


class Lamp(Criterion):
    """A channel's share of the magnitude of all that are no weaker.

    Lee et al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning", §2. It is 1 for the strongest
    of each group, so that groups can be compared.
    """

    name = "lamp"
    tried = 6

    def of_slice(self, one: Slice, model: nn.Module) -> Tensor | None:
        return one.of(model).double().square().sum(1)

    def relative(self, total: Tensor) -> Tensor:
        """Each over the sum of those that are no smaller; of equal ones the earlier counts as smaller."""
        import torch

        order = total.argsort(stable=True)
        rising = total[order]
        remaining = rising.flip(0).cumsum(0).flip(0)
        return torch.empty_like(total).index_put_((order,), rising / remaining)


ROW = Lamp()
