"""What a criterion of importance is to the rest: how much each channel of a group counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from edgekit.pruning.coupling.found import Group
    from edgekit.pruning.importance.slices import Slice
    from edgekit.workload import Workload

__all__ = ["Backward", "Criterion"]

# Puts gradients on the model that it is given.
Backward: TypeAlias = "Callable[[nn.Module], None]"


class Criterion:
    """One row of the table of criteria.

    Most define ``of_slice`` alone: what one side of one layer adds to a channel's score.
    """

    name: ClassVar[str]
    """In recipes, on the command line and in plans."""
    tried: ClassVar[int | None] = None
    """Its place among those that ``importance: auto`` tries; None: only if it is asked for by name."""
    gradients: ClassVar[bool] = False
    """Whether it can't do without what ``backward`` gives."""

    def backward(self, workload: Workload, *, seed: int, rows: Tensor | None = None) -> Backward | None:
        """What puts gradients on a model, before scores are asked for; None if none are needed.

        Args:
            workload: whose training samples are asked, without augmentation.
            seed: of what is drawn.
            rows: of the training samples; all if None.
        """
        return None

    def scores(self, group: Group, model: nn.Module, generator: Generator) -> Tensor | None:
        """(channels,) float64: how much each channel of a group counts, more is better.

        None where it says nothing: nothing to measure, numbers that aren't finite, or all of them 0.
        ``generator`` is for what is drawn.
        """
        import torch

        from edgekit.pruning.importance.slices import slices

        each = [values for one in slices(group) if (values := self.of_slice(one, model)) is not None]
        total = torch.stack(each).sum(0) if each else torch.zeros(group.channels, dtype=torch.float64)
        if not (bool(torch.isfinite(total).all()) and float(total.sum()) > 0):
            return None
        return self.relative(total)

    def of_slice(self, one: Slice, model: nn.Module) -> Tensor | None:
        """(channels,) float64: what one side of a layer adds; None if it doesn't count for this criterion."""
        raise NotImplementedError

    def relative(self, total: Tensor) -> Tensor:
        """(channels,): the sums over all sides, to be compared between groups: their mean is 1."""
        return total / total.mean()
