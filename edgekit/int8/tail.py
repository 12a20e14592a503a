"""The float tail: what stands between the last layers that multiply and the output, and needs no integers.

Boxes in pixels and scores below 1 have no grid in common, a small score none on 1/256. So a last sigmoid,
tanh or long softmax, sums and products with constants (anchors, offsets, strides), concatenations, and all
that follows them up to the output, compute in float on what the layers gave in integers. It costs little: no
layer that multiplies reads it any more. A short softmax at the very end stays as it is: its grid of 1/256
loses nothing that its logits have.
"""

from __future__ import annotations

from torch import fx

from edgekit.graph import ops
from edgekit.graph.ops import aten
from edgekit.int8.scores import is_long

__all__ = ["float_tail"]

_MULTIPLY = ops.WEIGHTED | ops.MATMULS
_BEGINS = {aten.sigmoid.default, aten.tanh.default, aten.exp.default, *ops.CONCATENATIONS}


def float_tail(graph: fx.GraphModule) -> set[fx.Node]:
    """The nodes that compute in float up to the output: nothing behind them multiplies by weights."""
    free: set[fx.Node] = set()  # from here only such nodes lead on
    for node in reversed(graph.graph.nodes):
        if node.op != "call_function" or node.target in _MULTIPLY or not node.users:
            continue
        if all(user in free or user.op == "output" for user in node.users):
            free.add(node)
    found: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node in free and (_begins(node) or any(source in found for source in node.all_input_nodes)):
            found.add(node)
    return found


def _begins(node: fx.Node) -> bool:
    if node.target in ops.SUMS | ops.PRODUCTS:
        return any(ops.is_constant(operand) for operand in node.args)
    return node.target in _BEGINS or is_long(node)
