"""Ops that are several in one, as sums and products: later passes, exporters and runtimes know these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from edgekit.graph import ops
from edgekit.graph.ops import aten

__all__ = ["COMPOUNDS"]

_MOST_PARTS = 8  # of a stack that are summed one after the other


def _scaled(graph: fx.Graph, value: Any, factor: Any) -> Any:
    return value if factor == 1 else graph.call_function(aten.mul.Tensor, (value, factor))


def _addcmul(graph: fx.Graph, node: fx.Node) -> fx.Node:
    start, one, other = node.args[:3]
    product = graph.call_function(aten.mul.Tensor, (one, other))
    return graph.call_function(aten.add.Tensor, (start, _scaled(graph, product, node.kwargs.get("value", 1))))


def _addcdiv(graph: fx.Graph, node: fx.Node) -> fx.Node:
    start, one, other = node.args[:3]
    ratio = graph.call_function(aten.div.Tensor, (one, other))
    return graph.call_function(aten.add.Tensor, (start, _scaled(graph, ratio, node.kwargs.get("value", 1))))


def _lerp(graph: fx.Graph, node: fx.Node) -> fx.Node:
    start, end, share = node.args
    way = graph.call_function(aten.sub.Tensor, (end, start))
    return graph.call_function(aten.add.Tensor, (start, graph.call_function(aten.mul.Tensor, (way, share))))


def _rsub(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """``rsub(a, b)`` is b - a."""
    taken, start = node.args[:2]
    alpha: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1)
    return graph.call_function(
        aten.add.Tensor, (graph.call_function(aten.mul.Tensor, (taken, -alpha)), start)
    )


def _over_a_stack(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """The mean or sum of stacked tensors over the axis that they were stacked along (answers of several
    heads): each part keeps a grid of its own, and nothing is put together to be taken apart.
    """
    stack = node.args[0]
    if not (isinstance(stack, fx.Node) and stack.target is aten.stack.default and len(stack.users) == 1):
        return None
    parts: list[fx.Node] = list(stack.args[0])  # type: ignore[arg-type]
    shape = ops.shape_of(parts[0])
    if shape is None or len(parts) > _MOST_PARTS or not ops.is_float(parts[0]):
        return None
    axis: int = stack.args[1] if len(stack.args) > 1 else stack.kwargs.get("dim", 0)  # type: ignore[assignment]
    dims: list[int] = list(node.args[1] or ())  # type: ignore[arg-type]
    rank = len(shape) + 1
    if [dim % rank for dim in dims] != [axis % rank]:
        return None
    total = parts[0]
    for part in parts[1:]:
        total = graph.call_function(aten.add.Tensor, (total, part))
    if node.target is aten.mean.dim:
        total = graph.call_function(aten.mul.Tensor, (total, 1 / len(parts)))
    keeps = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    return graph.call_function(aten.unsqueeze.default, (total, axis)) if keeps else total


COMPOUNDS: dict[Any, Callable[[fx.Graph, fx.Node], fx.Node | None]] = {
    aten.mean.dim: _over_a_stack,
    aten.sum.dim_IntList: _over_a_stack,
    aten.addcmul.default: _addcmul,
    aten.addcdiv.default: _addcdiv,
    aten.lerp.Scalar: _lerp,
    aten.lerp.Tensor: _lerp,
    aten.rsub.Scalar: _rsub,
    aten.rsub.Tensor: _rsub,
}
