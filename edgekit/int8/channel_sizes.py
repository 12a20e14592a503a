"""How loud each channel of a tensor is, on the first calibration samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.execution import first, interpreted
from edgekit.tensors import Tensors

__all__ = ["Size", "sizes_of"]

_SAMPLES = 64


@dataclass
class Size:
    """By channel (C,): the largest value, the smallest, and the mean square over ``count`` values."""

    high: Tensor
    low: Tensor
    square: Tensor
    count: int

    @classmethod
    def of(cls, value: Tensor, axis: int) -> Size:
        """``axis``: of the channels."""
        rows = value.detach().float().movedim(axis, 0).flatten(1)
        return cls(rows.amax(1).cpu(), rows.amin(1).cpu(), rows.square().mean(1).cpu(), rows.shape[1])

    def add(self, other: Size) -> None:
        """Take in what was seen in another batch."""
        self.high, self.low = torch.maximum(self.high, other.high), torch.minimum(self.low, other.low)
        total = self.count + other.count
        self.square = (self.square * self.count + other.square * other.count) / total
        self.count = total

    @property
    def largest(self) -> Tensor:
        """Absolute value, (C,)."""
        return torch.maximum(self.high.abs(), self.low.abs())


def sizes_of(
    graph: fx.GraphModule, axes: Mapping[fx.Node, int], batches: Iterable[Tensors]
) -> dict[fx.Node, Size]:
    """The size of what these nodes make.

    Args:
        graph: in float.
        axes: where each node's result has its channels.
        batches: inputs (n, …), of which the first 64 samples are looked at.
    """
    watch = _Watch(graph, axes)
    with torch.no_grad():
        for batch in first(batches, _SAMPLES):
            interpreted(watch, batch)
    return watch.sizes


class _Watch(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, axes: Mapping[fx.Node, int]) -> None:
        super().__init__(graph)
        self.axes, self.sizes = axes, dict[fx.Node, Size]()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.axes:
            size = Size.of(value, self.axes[n])
            if n in self.sizes:
                self.sizes[n].add(size)
            else:
                self.sizes[n] = size
        return value
