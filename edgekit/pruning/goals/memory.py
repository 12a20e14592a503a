"""Peak activation memory while channels leave: every step of the graph, not only the highest one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from edgekit.pruning.coupling.found import Found, Group
from edgekit.pruning.goals.costs import Widths
from edgekit.pruning.goals.shipped import Shipped
from edgekit.tensors import Tensors

__all__ = ["PeakMemory"]

Levels = npt.NDArray[np.float64]


class PeakMemory:
    """A ``Cost`` in bytes: the peak over all steps, of which what is above the goal has to go in every one.

    What is missing is the sum of these excesses: the peak alone would say of no single group that cutting it
    helps, where several steps are equally high. Levels fall by equal amounts with each channel of a group.
    """

    def __init__(self, levels: Levels, slopes: dict[str, Levels]) -> None:
        self.levels, self.slopes = levels, slopes
        self.whole = float(levels.max(initial=0.0))

    @classmethod
    def of(cls, model: nn.Module, example: Tensors, found: Found, shipped: Shipped) -> PeakMemory:
        """Each group is cut once, alone, to see what that saves in which step. Raises CaptureError."""
        levels = _levels(model, example, shipped)
        slopes = {}
        for done, group in enumerate(found.groups, 1):
            gone = max(1, group.channels // 2)
            small = found.plan({group.name: list(range(gone))}).applied_to(model)
            after = _levels(small, example, shipped)
            if after.shape == levels.shape:
                slopes[group.name] = (levels - after) / gone
            else:
                shipped.tell(f"what {group.name} does to memory isn't known: the graph changes with its cut")
            shipped.tell("memory of each group's channels", done, len(found.groups))
        return cls(levels, slopes)

    def missing(self, widths: Widths, highest: float) -> float:
        """See Cost."""
        return float(np.maximum(self._left(widths) - highest, 0.0).sum())

    def saving(self, widths: Widths, group: Group, count: int, highest: float) -> float:
        """See Cost. Negative only where a step would rise above ``highest`` again."""
        before = self.missing(widths, highest)
        kept, widths.kept[group.name] = widths.kept[group.name], count
        after = self.missing(widths, highest)
        widths.kept[group.name] = kept
        return before - after

    def now(self, widths: Widths) -> float:
        """See Cost."""
        return float(self._left(widths).max(initial=0.0))

    def spare(self, widths: Widths, highest: float) -> float:
        """See Cost. None in excesses: as soon as giving channels back makes one, it is too much."""
        return 0.0

    def correct(self, widths: Widths, measured: float) -> None:
        """See Cost."""
        if (estimated := self.now(widths)) > 0:
            self.levels = self.levels * (measured / estimated)
            self.slopes = {name: slope * (measured / estimated) for name, slope in self.slopes.items()}

    def _left(self, widths: Widths) -> Levels:
        left = self.levels.copy()
        for group in widths.groups:
            if group.name in self.slopes:
                left -= self.slopes[group.name] * (group.channels - widths.kept[group.name])
        return left


def _levels(model: nn.Module, example: Tensors, shipped: Shipped) -> Levels:
    return np.array(shipped.arena(model, example).levels, dtype=np.float64)
