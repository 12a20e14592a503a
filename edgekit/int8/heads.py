"""Last layers whose channels have ranges unlike each other: numbers in pixels beside shares of one.

The answers of a layer lie on one grid, which the largest channel's range decides: a channel a hundred times
as small is a few steps of it, whatever its weights were. Where nothing but the output follows, each channel
is brought to about the size of the largest by its own weights, and back behind the layer, by a product that
belongs to the float tail (``tail.py``). The factors are powers of two, so that weights keep every digit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, fx

from edgekit.graph import ops
from edgekit.graph.ops import aten
from edgekit.int8.channel_sizes import sizes_of
from edgekit.tensors import Tensors

__all__ = ["even_heads"]

_UNLIKE = 16.0  # times smaller than the largest channel: four of its eight bits are lost
_MOST = 2.0**20
_LAYERS = {aten.linear.default, aten.conv1d.default, aten.conv2d.default}
# What may stand between such a layer and the output: nothing that a float tail would make dear.
_BEHIND = (
    ops.MOVES
    | ops.CONCATENATIONS
    | ops.SUMS
    | ops.PRODUCTS
    | {aten.sigmoid.default, aten.tanh.default, aten.exp.default, aten.softmax.int}
    | {aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.unbind.int}
)


def even_heads(graph: fx.GraphModule, batches: Iterable[Tensors]) -> list[str]:
    """Bring the channels of last layers to one size, in place, and give the names of these layers' nodes.

    Args:
        graph: lowered, in float.
        batches: calibration inputs (n, …); the first 64 samples are looked at.
    """
    heads = _heads(graph)
    if not heads:
        return []
    found = []
    for head, size in sizes_of(graph, {head: _axis(head) for head in heads}, batches).items():
        sizes = size.largest
        largest = float(sizes.max())
        if not (math.isfinite(largest) and largest > 0):
            continue
        factors = torch.where(
            sizes > 0, (largest / sizes.clamp_min(largest / _MOST)).log2().floor().exp2(), 1.0
        )
        if float(factors.max()) >= _UNLIKE:
            _even(graph, head, factors)
            found.append(head.name)
    if found:
        ops.refresh(graph)
    return found


def _heads(graph: fx.GraphModule) -> list[fx.Node]:
    free: set[fx.Node] = set()
    heads = []
    read = ops.readers(graph)
    for node in reversed(graph.graph.nodes):
        leads_out = bool(node.users) and all(user in free or user.op == "output" for user in node.users)
        if not leads_out or node.op != "call_function":
            continue
        if node.target in _BEHIND or getattr(node.target, "__name__", "") == "getitem":
            free.add(node)
        elif node.target in _LAYERS and all(ops.is_own(one, read) for one in node.args[1:3]):
            heads.append(node)
    return heads[::-1]


def _axis(node: fx.Node) -> int:
    return -1 if node.target is aten.linear.default else 1


def _even(graph: fx.GraphModule, head: fx.Node, factors: Tensor) -> None:
    for operand in head.args[1:3]:
        if not isinstance(operand, fx.Node):
            continue
        value = ops.attribute(graph, str(operand.target)).detach()
        by_row = factors.to(value).reshape(-1, *[1] * (value.dim() - 1))
        # A tensor of its own: another name may stand for the same one, as an embedding's does.
        ops.set_attribute(graph, str(operand.target), torch.nn.Parameter(value * by_row))
    dims = len(ops.shape_of(head) or (1, 1))
    shape = (-1,) if _axis(head) == -1 else (1, -1, *[1] * (dims - 2))
    with graph.graph.inserting_after(head):
        constant = ops.constant_node(graph, f"{head.name}_sizes", (1 / factors).reshape(shape))
    with graph.graph.inserting_after(constant):
        back = graph.graph.call_function(aten.mul.Tensor, (head, constant))
    back.meta["nn_module_stack"] = head.meta.get("nn_module_stack")
    head.replace_all_uses_with(back, delete_user_cb=lambda user: user is not back)
