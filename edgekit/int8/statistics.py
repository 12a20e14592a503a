"""Variances and other statistics that something is divided by stay float, as in the norms that torch has.

What a norm divides by spans decades where samples differ in size: on one grid the variance of a quiet
sample is 0, and the sample comes out as noise, or as 0 / 0. A norm that is written by hand (mean, difference,
square, mean, root, quotient) becomes the float island that ``layer_norm`` or ``group_norm`` is.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from edgekit.graph import ops
from edgekit.graph.ops import aten

__all__ = ["float_statistics"]

_ROOTS = {aten.sqrt.default, aten.rsqrt.default, aten.reciprocal.default, aten.log.default}
_POWERS = {aten.pow.Tensor_Scalar}
_REDUCTIONS = {*ops.MEANS, aten.sum.dim_IntList, aten.mean.default, aten.sum.default}
_SQUARES = {aten.square.default, aten.abs.default, *_POWERS}
_ON_THE_WAY = {
    *ops.SUMS,
    *ops.PRODUCTS,
    *ops.CLAMPS,
    *ops.MOVES,
    *_ROOTS,
    *_POWERS,
    aten.maximum.default,
    aten.square.default,
    aten.div.Tensor,
}


def float_statistics(graph: fx.GraphModule) -> set[fx.Node]:
    """What leads from sums and means to a quotient, root or logarithm; with the squares and differences
    that these sum up, the means that are subtracted for them, and what is divided.
    """
    todo = [source for node in graph.graph.nodes for source in _divided_by(node)]
    found: set[fx.Node] = set()
    while todo:
        node = todo.pop()
        if node in found or not ops.is_float(node) or ops.is_constant(node):
            continue
        if node.target in _REDUCTIONS:
            found.add(node)
            found.update(_summed(node.args[0]))
        elif node.target in _ON_THE_WAY:
            found.add(node)
            todo += node.all_input_nodes
    return found | {one for node in graph.graph.nodes for one in _quotient(node, found)}


def _divided_by(node: fx.Node) -> list[fx.Node]:
    """What ``node`` divides by, takes the root of, or the logarithm of."""
    argument: Any = None
    if node.target is aten.div.Tensor:
        argument = node.args[1]
    elif node.target in _ROOTS or (node.target in _POWERS and float(node.args[1]) < 1):  # type: ignore[arg-type]
        argument = node.args[0]
    return [argument] if isinstance(argument, fx.Node) else []


def _quotient(node: fx.Node, found: set[fx.Node]) -> list[fx.Node]:
    """What stays float besides, where ``node`` divides by a statistic, or multiplies by the inverse of its
    root, which is the same: the inverse, whose sizes differ as much, and the difference from a mean, which
    on a grid of its own would be rounded once more than within ``group_norm``.
    """
    if node.target in ops.PRODUCTS:
        inverses = [one for one in node.all_input_nodes if _inverse(one) and found & {*one.all_input_nodes}]
        alike = [node, *inverses] if inverses else []
    else:
        alike = [node] if node.target is aten.div.Tensor and node.args[1] in found else []
    differences = [one for one in node.all_input_nodes if one.target in ops.SUMS] if alike else []
    return alike + [one for one in differences if any(_origin(part) in found for part in one.all_input_nodes)]


def _inverse(node: fx.Node) -> bool:
    if node.target in _POWERS:
        return float(node.args[1]) < 0  # type: ignore[arg-type]
    return node.target in (aten.rsqrt.default, aten.reciprocal.default)


def _summed(node: Any) -> set[fx.Node]:
    """The square (or magnitude) that is summed up, and the difference from a mean that is squared."""
    if not isinstance(node, fx.Node):
        return set()
    square = node.target in ops.PRODUCTS and len(set(node.args)) == 1
    if not square and node.target not in _SQUARES:
        return set()
    found, difference = {node}, node.args[0]
    if isinstance(difference, fx.Node) and difference.target in ops.SUMS:
        means = [_origin(one) for one in difference.all_input_nodes]
        means = [one for one in means if one.target in _REDUCTIONS]
        if means:
            found.update([difference, *means])
    return found


def _origin(node: fx.Node) -> fx.Node:
    while node.target in ops.MOVES and isinstance(node.args[0], fx.Node):
        node = node.args[0]
    return node
