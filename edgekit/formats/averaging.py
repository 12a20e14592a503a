"""Average poolings of an int8 graph, spelled as what runtimes have fast kernels for.

ONNX Runtime's QLinearAveragePool and LiteRT's int8 AVERAGE_POOL_2D take 6 to 20 times as long as the float
ones between the same layers (benchmarks/op_costs.py); both runtimes have fast depthwise convolutions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from edgekit.formats.subsampling import unit_weight
from edgekit.graph import ops
from edgekit.graph.ops import aten

__all__ = ["average_by_convolution"]

_POOLS: dict[Any, int] = {aten.avg_pool1d.default: 1, aten.avg_pool2d.default: 2}
_CONVOLUTIONS = {1: aten.conv1d.default, 2: aten.conv2d.default}
_CONVOLVE = {1: F.conv1d, 2: F.conv2d}
_NAMES = ("window", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")


def average_by_convolution(graph: fx.GraphModule) -> int:
    """Spell average poolings between quantised tensors as depthwise convolutions of ones, in place.

    The numbers stay the same: the integer weights are 1, their scale is 1 / places, and input and output
    share one grid. Where windows at the border count fewer places no convolution is the same; there the sums
    are computed in float, divided by the number of places, and rounded as before.

    Returns:
        How many were respelled.
    """
    respelled = 0
    for node in list(graph.graph.nodes):
        pool = _Pool.of(node)
        if pool is None or not _is_between_integers(node):
            continue
        with graph.graph.inserting_before(node):
            new = pool.on_integers(graph, f"average{respelled}")
            if new is None:
                new = pool.in_float(graph, f"average{respelled}")
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)
        respelled += 1
    if respelled:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return respelled


def _is_between_integers(node: fx.Node) -> bool:
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    if source.target is not ops.qd.dequantize_per_tensor.default:
        return False
    return all(user.target is ops.qd.quantize_per_tensor.default for user in node.users)


@dataclass(frozen=True)
class _Pool:
    """An average pooling of known size."""

    node: fx.Node
    channels: int
    size: list[int]
    window: list[int]
    stride: list[int]
    padding: list[int]
    counts_padding: bool
    divisor: int | None

    @classmethod
    def of(cls, node: fx.Node) -> _Pool | None:
        if node.target not in _POOLS:
            return None
        dims, shape = _POOLS[node.target], ops.shape_of(node.args[0])
        if shape is None or len(shape) != dims + 2 or not all(isinstance(size, int) for size in shape[1:]):
            return None
        values: list[Any] = [*node.args[1:], *([], 0, False, True, None)[len(node.args) - 2 :]]
        for index, name in enumerate(_NAMES):
            values[index] = node.kwargs.get(name, values[index])
        window, stride, padding = (ops.for_each_axis(value, dims) for value in values[:3])
        if values[3]:  # windows that reach beyond the edge; int8.lower has taken most of them apart
            return None
        return cls(node, int(shape[1]), list(shape[2:]), window, stride or window, padding, *values[4:])

    def on_integers(self, graph: fx.GraphModule, name: str) -> fx.Node | None:
        """One convolution; None where windows are divided by different numbers."""
        if any(self.padding) and not self.counts_padding and self.divisor is None:
            return None
        scale = 1 / (self.divisor or math.prod(self.window))
        return self._convolved(graph, unit_weight(graph, name, self.channels, self.window, scale))

    def in_float(self, graph: fx.GraphModule, name: str) -> fx.Node:
        """A convolution with float weights, and a product with what each window is divided by."""
        weight = torch.ones(self.channels, 1, *self.window)
        places = _CONVOLVE[len(self.size)](
            torch.ones(1, 1, *self.size), weight[:1], stride=self.stride, padding=self.padding
        )
        ones = ops.constant_node(graph, f"{name}_ones", torch.nn.Parameter(weight, requires_grad=False))
        # Without an axis for the batch: LiteRT's converter mistakes the order of constants of four.
        shares = ops.constant_node(graph, f"{name}_shares", 1 / places[0])
        summed = self._convolved(graph, ones)
        summed.meta = dict(self.node.meta)
        return graph.graph.call_function(aten.mul.Tensor, (summed, shares))

    def _convolved(self, graph: fx.GraphModule, weight: fx.Node) -> fx.Node:
        still = [1] * len(self.size)
        arguments: Any = (self.node.args[0], weight, None, self.stride, self.padding, still, self.channels)
        return graph.graph.call_function(_CONVOLUTIONS[len(self.size)], arguments)
