"""How steady an int8 graph is: its answers against its own when a few of its roundings fall the other way.

Two kernels that are both right round ties, and sums of floats, differently. A deep network may make each such
step grow on its way; what it answers then says nothing about the kernel. Moving some integers by one step
shows how much of a distance the network makes of roundings alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from edgekit.execution import interpreted, mode
from edgekit.graph import ops
from edgekit.int8.integers import Integers
from edgekit.tensors import Tensors

__all__ = ["disturbed"]

_MANY = 0.05  # a larger share: one integer would often be drawn twice


def disturbed(graph: fx.GraphModule, samples: Tensors, share: float, *, seed: int = 0) -> Tensors:
    """The graph's answers to ``samples`` (N, …), with roundings disturbed.

    Args:
        graph: an int8 graph; it is not changed.
        samples: preprocessed inputs; all at once in memory.
        share: of the integers that each quantiser of activations gives, how many move by one step, up or
            down, within the grid. 0 … 1.
        seed: which ones.
    """
    generator = torch.Generator().manual_seed(seed)
    with mode(graph, training=False), torch.no_grad():
        return interpreted(_Disturbing(graph, share, generator), samples)


class _Disturbing(Integers):
    def __init__(self, graph: fx.GraphModule, share: float, generator: torch.Generator) -> None:
        super().__init__(graph)
        self.share, self.generator = share, generator

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.target is not ops.qd.quantize_per_tensor.default or ops.is_constant(n):
            return value
        low, high = n.args[3:5]
        moved = value.int().flatten()
        places = self._places(moved.numel())
        steps = 2 * torch.randint(2, places.shape, generator=self.generator, dtype=torch.int32) - 1
        moved[places] = (moved[places] + steps).clamp(low, high)
        return moved.reshape(value.shape).to(value.dtype)

    def _places(self, count: int) -> Tensor:
        """Which of ``count`` integers move; few are drawn without looking at all the others."""
        if self.share > _MANY:
            return (torch.rand(count, generator=self.generator) < self.share).nonzero().flatten()
        wanted = self.share * count + float(torch.rand(1, generator=self.generator))  # right on average
        return torch.randint(max(count, 1), (int(wanted) if count else 0,), generator=self.generator)
