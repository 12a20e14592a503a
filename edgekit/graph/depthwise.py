"""Depthwise convolutions with large kernels, as the sum of several with small ones.

XNNPACK, which LiteRT runs on, has kernels for depthwise convolutions of up to 25 taps. A larger one takes 3
to 16 times as long, and nothing tells: it is delegated all the same. A sum over all taps is the sum of the
sums over parts of them, each of which has a fast kernel.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from torch import fx

from edgekit.graph import ops
from edgekit.graph.constants import evaluate_constant
from edgekit.graph.ops import aten

__all__ = ["MOST_TAPS", "is_large_depthwise", "multiplier", "parts", "split_large_kernels"]

MOST_TAPS = 25
_CONVOLUTIONS = {aten.conv1d.default: 1, aten.conv2d.default: 2}


def split_large_kernels(graph: fx.GraphModule) -> int:
    """Spell depthwise convolutions of more than ``MOST_TAPS`` taps as sums of smaller ones, in place.

    In an int8 graph the parts compute in float, on the integers' values, and their sum alone is rounded: a
    grid for each partial sum would cost precision (2 dB), and is no faster.

    Returns:
        How many were replaced.
    """
    replaced = 0
    for node in list(graph.graph.nodes):
        if is_large_depthwise(node):
            with graph.graph.inserting_before(node):
                summed = _summed(graph, node, f"{node.name}_part")
            summed.meta = dict(node.meta)
            node.replace_all_uses_with(summed)
            graph.graph.erase_node(node)
            replaced += 1
    if replaced:
        ops.refresh(graph)
    return replaced


def parts(kernel: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Blocks of at most ``MOST_TAPS`` taps that cover a kernel, cut along its first side where that does."""
    *outer, last = kernel
    inner = min(last, MOST_TAPS)
    rows = MOST_TAPS // inner
    sides = [[slice(at, min(at + rows, size)) for at in range(0, size, rows)] for size in outer]
    sides.append([slice(at, min(at + inner, last)) for at in range(0, last, inner)])
    return list(itertools.product(*sides))


def is_large_depthwise(node: fx.Node) -> bool:
    """Whether a node is a depthwise convolution of more than ``MOST_TAPS`` taps, with constant weights."""
    if node.target not in _CONVOLUTIONS or not ops.is_constant(node.args[1]):
        return False
    if len(node.args) > 2 and node.args[2] is not None and not ops.is_constant(node.args[2]):
        return False
    weight = ops.shape_of(node.args[1])
    groups = node.args[6] if len(node.args) > 6 else 1
    if weight is None or groups == 1:
        return False
    return int(weight[1]) == 1 and math.prod(map(int, weight[2:])) > MOST_TAPS


def multiplier(node: fx.Node) -> int:
    """Kernels for each channel of a depthwise convolution; 1 for anything else."""
    if node.target not in _CONVOLUTIONS or node.kwargs:
        return 1
    before, weight = ops.shape_of(node.args[0]), ops.shape_of(node.args[1])
    groups = node.args[6] if len(node.args) > 6 else 1
    if before is None or weight is None or groups == 1 or int(weight[1]) != 1:
        return 1
    known = len(before) == len(weight) and all(isinstance(size, int) for size in before[1:])
    return int(weight[0]) // int(before[1]) if known and before[1] == groups else 1


def _summed(graph: fx.GraphModule, node: fx.Node, stem: str) -> fx.Node:
    dims = _CONVOLUTIONS[node.target]  # type: ignore[index]
    values: list[Any] = [*node.args, *(None, 1, 0, 1, 1)[len(node.args) - 2 :]]
    source, weight_node, bias_node, *rest = values
    stride, padding, dilation = (ops.for_each_axis(value, dims) for value in rest[:3])
    weight = evaluate_constant(graph, weight_node)
    bias = None if bias_node is None else evaluate_constant(graph, bias_node)
    out = ops.shape_of(node)
    assert out is not None
    if any(padding):
        around = [size for pad in reversed(padding) for size in (pad, pad)]
        source = graph.graph.call_function(aten.constant_pad_nd.default, (source, around, 0.0))
    total: fx.Node | None = None
    for index, block in enumerate(parts(tuple(weight.shape[2:]))):
        window = source
        for axis, (side, step, apart, size) in enumerate(zip(block, stride, dilation, out[2:], strict=True)):
            start = side.start * apart
            taps = side.stop - side.start
            end = start + (int(size) - 1) * step + (taps - 1) * apart + 1
            window = graph.graph.call_function(aten.slice.Tensor, (window, axis + 2, start, end))
        part = weight[(slice(None), slice(None), *block)].contiguous()
        arguments: Any = (
            window,
            ops.constant_node(graph, f"{stem}{index}", part),
            None if bias is None or index else ops.constant_node(graph, f"{stem}_bias", bias),
            stride,
            [0] * dims,
            dilation,
            node.args[6],
        )
        convolution = graph.graph.call_function(node.target, arguments)  # type: ignore[arg-type]
        total = (
            convolution if total is None else graph.graph.call_function(aten.add.Tensor, (total, convolution))
        )
    assert total is not None
    return total
