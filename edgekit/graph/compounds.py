"""Ops that are several in one, as sums and products: later passes, exporters and runtimes know these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from edgekit.graph.ops import aten

__all__ = ["COMPOUNDS"]


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


COMPOUNDS: dict[Any, Callable[[fx.Graph, fx.Node], fx.Node]] = {
    aten.addcmul.default: _addcmul,
    aten.addcdiv.default: _addcdiv,
    aten.lerp.Scalar: _lerp,
    aten.lerp.Tensor: _lerp,
    aten.rsub.Scalar: _rsub,
    aten.rsub.Tensor: _rsub,
}
