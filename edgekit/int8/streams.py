"""Sums, means and concatenations that only norms read stay float: the residual stream of a transformer.

A norm computes in float and makes every token as large as any other: a token that is small beside the rest (a
class token, a quiet place) would reach it as rounding noise of a grid that the large ones need. Nothing is
gained by integers there: the sum would be quantised only to be dequantised. So is the mean over all places in
front of the last norm. Tokens that are cut out of a stream (the class token for its own layers) get a grid of
their own behind the cut.
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
_CUTS = {aten.slice.Tensor, aten.select.int, aten.narrow.default, aten.index_select.default}
_PARTS = ops.SUMS | ops.MEANS | ops.CONCATENATIONS | ops.MOVES


def _is_part(node: fx.Node) -> bool:
    """Scaling by constants (layer scale) is one."""
    scaled = node.target in ops.PRODUCTS and any(map(ops.is_constant, node.args))
    return scaled or node.target in _PARTS


def float_streams(graph: fx.GraphModule) -> set[fx.Node]:
    """Sums, means, concatenations, and moves between them, all of whose readers are norms, such nodes or
    cuts; of those that hang together one at least is read by a norm.
    """
    found: set[fx.Node] = set()
    for node in reversed(graph.graph.nodes):
        if not _is_part(node) or not node.users or not ops.is_float(node):
            continue
        if all(user.target in _NORMS or user in found or user.target in _CUTS for user in node.users):
            found.add(node)
    found = _read_by_norms(found)
    # A move of what a layer gave in integers stays a move of integers.
    kept: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node in found and (node.target not in ops.MOVES or any(s in kept for s in node.all_input_nodes)):
            kept.add(node)
    return kept


def _read_by_norms(nodes: set[fx.Node]) -> set[fx.Node]:
    """Those that hang together, directly or over others, with one that a norm reads."""
    todo = [node for node in nodes if any(user.target in _NORMS for user in node.users)]
    reached = set(todo)
    while todo:
        node = todo.pop()
        for beside in (*node.all_input_nodes, *node.users):
            if beside in nodes and beside not in reached:
                reached.add(beside)
                todo.append(beside)
    return reached
