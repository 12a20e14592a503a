"""How steady an int8 graph is: its answers against its own when a few of its roundings fall the other way.

Two kernels that are both right round ties, and sums of floats, differently. A deep network may make each such
step grow on its way; what it answers then says nothing about the kernel. Moving some integers by one step
shows how much of a distance the network makes of roundings alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from edgekit.execution import mode
from edgekit.int8 import ops

__all__ = ["disturbed"]


def disturbed(graph: fx.GraphModule, samples: Tensor, share: float, *, seed: int = 0) -> Tensor:
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
        result = _Disturbing(graph, share, generator).run(samples)
    answers = result[0] if isinstance(result, list | tuple) else result
    assert isinstance(answers, Tensor)
    return answers


class _Disturbing(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, share: float, generator: torch.Generator) -> None:
        super().__init__(graph)
        self.share, self.generator = share, generator

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.target is not ops.qd.quantize_per_tensor.default or ops.is_constant(n):
            return value
        low, high = n.args[3:5]
        drawn = torch.rand(value.shape, generator=self.generator)
        step = (drawn < self.share / 2).int() - (drawn > 1 - self.share / 2).int()
        return (value.int() + step).clamp(low, high).to(value.dtype)
