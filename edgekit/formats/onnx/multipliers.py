"""Depthwise convolutions with several kernels for each channel, as ONNX Runtime has a fast kernel for them.

It takes them for convolutions in groups: 9 times as long in int8, and twice in fp32, as a depthwise one of
channels that are repeated first (benchmarks/op_costs.py).
"""

from __future__ import annotations

from typing import Any

from torch import fx

from edgekit.graph import ops
from edgekit.graph.depthwise import multiplier
from edgekit.graph.ops import aten

__all__ = ["repeat_channels"]


def repeat_channels(graph: fx.GraphModule) -> int:
    """Repeat each channel in front of such a convolution, in place; the same numbers, weights and all.

    Returns:
        How many there were.
    """
    found = 0
    for node in list(graph.graph.nodes):
        times = multiplier(node)
        if times > 1:
            with graph.graph.inserting_before(node):
                source, groups = _repeated(graph, node.args[0], times)
            rest = [*node.args[2:], *(None, 1, 0, 1, 1)[len(node.args) - 2 :]]
            node.args = (source, node.args[1], *rest[:4], groups)
            found += 1
    if found:
        graph.recompile()
    return found


def _repeated(graph: fx.GraphModule, source: Any, times: int) -> tuple[fx.Node, int]:
    shape = ops.shape_of(source)
    assert shape is not None
    channels, places = int(shape[1]), [int(size) for size in shape[2:]]
    value: Any = source
    for op, argument in (
        (aten.unsqueeze.default, 2),
        (aten.expand.default, [-1, -1, times, *([-1] * len(places))]),
        (aten.reshape.default, [-1, channels * times, *places]),
    ):
        value = graph.graph.call_function(op, (value, argument))
        if source.target is ops.qd.dequantize_per_tensor.default:  # integers are moved as integers
            for step in (ops.qd.quantize_per_tensor.default, ops.qd.dequantize_per_tensor.default):
                value = graph.graph.call_function(step, (value, *source.args[1:]))
    return value, channels * times
