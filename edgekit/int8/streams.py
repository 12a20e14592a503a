"""Sums, means and concatenations that only norms read stay float: the residual stream of a transformer.

A norm computes in float and makes every token as large as any other: a token that is small beside the rest (a
class token, a quiet place) would reach it as rounding noise of a grid that the large ones need. Nothing is
gained by integers there: the sum would be quantised only to be dequantised. So is the mean over all places in
front of the last norm.
"""

from __future__ import annotations

from torch import fx

from edgekit.graph import ops
from edgekit.graph.ops import aten

__all__ = ["float_streams"]

_NORMS = {
    aten.layer_norm.default,
    aten.group_norm.default,
    aten.instance_norm.default,
    aten.rms_norm.default,
    aten.native_layer_norm.default,
    aten.native_group_norm.default,
}
_PARTS = ops.SUMS | ops.MEANS | ops.CONCATENATIONS | ops.MOVES


def float_streams(graph: fx.GraphModule) -> set[fx.Node]:
    """Sums, means, concatenations, and moves between them, all of whose readers are norms or such nodes."""
    found: set[fx.Node] = set()
    for node in reversed(graph.graph.nodes):
        if node.target not in _PARTS or not node.users or not ops.is_float(node):
            continue
        if all(user.target in _NORMS or user in found for user in node.users):
            found.add(node)
    # A move of what a layer gave in integers stays a move of integers.
    kept: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node in found and (node.target not in ops.MOVES or any(s in kept for s in node.all_input_nodes)):
            kept.add(node)
    return kept
