"""What the int8 graph computes in float stays float in LiteRT's converter.

The converter gives an op int8 tensors wherever what it reads was quantised and the op is one that passes on
a grid (concatenation, selection) or brings its own (sigmoid, tanh, softmax): also where the int8 graph
dequantises first, because one grid can't hold the result. And it draws the grid behind a move in front of it.
An addition in between keeps it from both.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from edgekit.graph import ops
from edgekit.graph.ops import aten
from edgekit.int8.scores import SOFTMAX

__all__ = ["keep_islands", "one_reader_each"]

_CHOOSE = {aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.masked_fill.Scalar}
_TAKEN = ops.FIXED_GRID.keys() | ops.CONCATENATIONS | SOFTMAX
# Too small to change a float32 number of a network, and not 0, which the converter would leave out.
_NOTHING = 1e-37


def keep_islands(graph: fx.GraphModule) -> int:
    """Add next to nothing to what such ops read from a dequantise op, in place, where they give floats.

    Also between two grids that follow each other, and behind recurrent layers: the converter unrolls these,
    and would put the state that goes on to the next step on the grid of what is read of it.

    Returns:
        How many additions there are.
    """
    added = 0
    for node in [one for one in graph.graph.nodes if _leaves_steps(one)]:
        with graph.graph.inserting_after(node):
            moved = graph.graph.call_function(aten.add.Tensor, (node, node))
        node.replace_all_uses_with(moved, delete_user_cb=lambda user, own=moved: user is not own)
        with graph.graph.inserting_before(moved):
            number = ops.constant_node(graph, f"{node.name}_nothing", torch.tensor(_NOTHING))
        moved.args, moved.meta = (node, number), dict(node.meta)
        added += 1
    for node in list(graph.graph.nodes):
        if not _is_taken(node):
            continue
        for source in node.all_input_nodes:
            if not ops.is_float(source) or not (_from_integers(source) or _cut_from_float(source)):
                continue
            with graph.graph.inserting_before(node):
                number = ops.constant_node(graph, f"{node.name}_nothing{added}", torch.tensor(_NOTHING))
                moved = graph.graph.call_function(aten.add.Tensor, (source, number))
            moved.meta = dict(source.meta)
            node.replace_input_with(source, moved)
            added += 1
    graph.recompile()
    return added


def one_reader_each(graph: fx.GraphModule) -> None:
    """Give each reader of a dequantise op one of its own, in place.

    Where the converter brings such an op's result into another order of axes for one reader, it forgets the
    order that the others get it in (litert-torch 0.10, ``insert_t_q_dq``).
    """
    for node in list(graph.graph.nodes):
        if node.target is not ops.qd.dequantize_per_tensor.default or len(node.users) < 2:
            continue
        for user in list(node.users)[1:]:
            with graph.graph.inserting_before(user):
                own = graph.graph.node_copy(node)
            own.meta = dict(node.meta)
            user.replace_input_with(node, own)
    graph.recompile()


def _leaves_steps(node: fx.Node) -> bool:
    """Whether a node is what a recurrent layer gives, and integers stand behind it."""
    layer = node.args[0] if node.target is operator.getitem else None
    if not isinstance(layer, fx.Node) or layer.target not in ops.RECURRENT:
        return False
    todo = [node]
    while todo:
        one = todo.pop()
        if any(user.target in ops.QUANTIZE for user in one.users):
            return True
        todo += [user for user in one.users if user.target in ops.MOVES | ops.CLAMPS]
    return False


def _is_taken(node: fx.Node) -> bool:
    if node.target is ops.qd.quantize_per_tensor.default:  # two grids in a row, which the converter refuses
        source: fx.Node = node.args[0]  # type: ignore[assignment]
        return source.target is ops.qd.dequantize_per_tensor.default or _cut_from_float(source)
    return ops.is_float(node) and (node.target in _CHOOSE or (node.target in _TAKEN and not _quantized(node)))


def _quantized(node: fx.Node) -> bool:
    """Whether integers stand behind a node, perhaps behind its clamp."""
    return all(user.target in ops.QUANTIZE | ops.CLAMPS for user in node.users)


def _cut_from_float(node: fx.Node) -> bool:
    """Whether a node is moved from floats that something else reads, too: the converter would put these on
    the grid that stands behind the move.
    """
    moved = False
    while node.target in ops.MOVES and isinstance(node.args[0], fx.Node):
        node, moved = node.args[0], True
        if len(node.users) > 1:
            break
    return moved and len(node.users) > 1 and ops.is_float(node) and node.target not in ops.DEQUANTIZE


def _from_integers(node: fx.Node) -> bool:
    while node.target in ops.MOVES and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node.target is ops.qd.dequantize_per_tensor.default
