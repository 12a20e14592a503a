"""Recurrent layers with int8 weights: a pair behind every matrix, one scale for each of its rows.

The layers stay whole in the graph (``aten.lstm``, ``aten.gru``): their steps, states and what they read are
float there. Kernels that multiply on integers quantise inputs and states as they come, with a scale for each
step, which no grid that was found beforehand is as good as.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import fx

from edgekit.graph import ops

__all__ = ["matrices", "quantize_recurrent"]


def matrices(node: fx.Node) -> list[fx.Node]:
    """What a recurrent layer multiplies with, layer by layer and direction by direction; biases left out.

    (gates * hidden, inputs), (gates * hidden, hidden), and of an LSTM with a projection (projected, hidden).
    """
    given = node.args[2]
    assert isinstance(given, list | tuple)
    return [one for one in given if isinstance(one, fx.Node) and len(ops.shape_of(one) or ()) == 2]


def quantize_recurrent(graph: fx.GraphModule, kept: Collection[str] = ()) -> int:
    """Put a pair behind the matrices of recurrent layers, in place; ``fit_weight_scales`` finds their scales.

    Args:
        graph: with the quantisers of all other layers.
        kept: names of nodes that stay in float.

    Returns:
        How many pairs there are. A matrix that several layers read has one.
    """
    pairs: dict[str, fx.Node] = {}
    for node in list(graph.graph.nodes):
        if node.target not in ops.RECURRENT or node.name in kept:
            continue
        for weight in matrices(node):
            # What is computed has no name to learn by, and what another layer reads has its pair already.
            if weight.op != "get_attr" or any(user.target not in ops.RECURRENT for user in weight.users):
                continue
            name = str(weight.target)
            if name not in pairs:
                pairs[name] = _pair(graph, weight)
            node.replace_input_with(weight, pairs[name])
    graph.graph.lint()
    graph.recompile()
    return len(pairs)


def _pair(graph: fx.GraphModule, weight: fx.Node) -> fx.Node:
    name, rows = str(weight.target), int(ops.attribute(graph, str(weight.target)).shape[0])
    value = weight.meta.get("val")
    with graph.graph.inserting_after(weight):
        scale = ops.constant_node(graph, f"{name}_scale", torch.ones(rows))
    with graph.graph.inserting_after(scale):
        zero = ops.constant_node(graph, f"{name}_zero_point", torch.zeros(rows, dtype=torch.int64))
    grid = (scale, zero, 0, -127, 127, torch.int8)
    with graph.graph.inserting_after(zero):
        quantize = graph.graph.call_function(ops.qd.quantize_per_channel.default, (weight, *grid))
    with graph.graph.inserting_after(quantize):
        back = graph.graph.call_function(ops.qd.dequantize_per_channel.default, (quantize, *grid))
    back.meta = {"val": value}
    if isinstance(value, torch.Tensor):
        quantize.meta = {"val": value.to(torch.int8)}
    return back
