"""Strided slices of images, spelled as what XNNPACK has: LiteRT and ExecuTorch both run on it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from edgekit.graph import ops


def subsample_by_convolution(graph: fx.GraphModule) -> int:
    """Spell ``x[:, :, ::s, ::t]`` between quantised tensors as a depthwise convolution of ones, in place.

    The numbers stay the same: the integer weight is 1, its scale is 1, and input and output share one grid.
    But XNNPACK has no strided slice: it would split its work there, with a transpose at each end.

    Returns:
        How many were replaced.
    """
    replaced = 0
    for node in list(graph.graph.nodes):
        found = _subsampling(node)
        shape = ops.shape_of(node)
        if found is None or shape is None:
            continue
        source, strides = found
        channels = int(shape[1])
        with graph.graph.inserting_before(node):
            weight = unit_weight(graph, f"subsample{replaced}", channels)
            arguments: Any = (source, weight, None, strides, [0, 0], [1, 1], channels)
            convolution = graph.graph.call_function(ops.aten.conv2d.default, arguments)
        convolution.meta = dict(node.meta)
        node.replace_all_uses_with(convolution)
        replaced += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return replaced


def _subsampling(node: fx.Node) -> tuple[fx.Node, list[int]] | None:
    """(dequantised source, strides) of a strided slice over the width behind one over the height."""
    across = _stride(node, 3)
    quantized = node.args[0] if across else None
    for _ in range(2):  # the pair between the two slices; int8.unify gave it the source's grid
        if not isinstance(quantized, fx.Node) or quantized.target not in ops.QUANTIZE | ops.DEQUANTIZE:
            return None
        quantized = quantized.args[0]
    if not isinstance(quantized, fx.Node) or across is None:
        return None
    down, source = _stride(quantized, 2), quantized.args[0]
    if down is None or not isinstance(source, fx.Node) or source.target not in ops.DEQUANTIZE:
        return None
    return source, [down, across]


def _stride(node: fx.Node, dimension: int) -> int | None:
    """The step of ``x[..., ::step]`` along ``dimension`` of a 4-D tensor; None for any other node."""
    shape = ops.shape_of(node)
    if node.target is not ops.aten.slice.Tensor or shape is None or len(shape) != 4:
        return None
    values: list[Any] = [*node.args, *(None, 0, 0, None, 1)[len(node.args) :]]
    _, along, start, end, step = values
    whole = start in (0, None) and (end is None or end == sys.maxsize)
    return step if along == dimension and whole and isinstance(step, int) and step > 1 else None


def unit_weight(
    graph: fx.GraphModule, name: str, channels: int, window: Sequence[int] = (1, 1), scale: float = 1.0
) -> fx.Node:
    """A depthwise weight of ones times ``scale``, integer ones on its grid, dequantised as any weight is."""
    values = {
        "weight": torch.nn.Parameter(torch.full((channels, 1, *window), scale)),
        "scale": torch.full((channels,), scale),
        "zero_point": torch.zeros(channels, dtype=torch.int64),
    }
    nodes = [ops.constant_node(graph, f"{name}_{kind}", value) for kind, value in values.items()]
    weight, *grid = nodes
    rest: tuple[Any, ...] = (*grid, 0, -127, 127, torch.int8)
    quantized = graph.graph.call_function(ops.qd.quantize_per_channel.default, (weight, *rest))
    return graph.graph.call_function(ops.qd.dequantize_per_channel.default, (quantized, *rest))
