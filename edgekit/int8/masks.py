"""Masks by replacement as masks by addition: ``masked_fill`` and ``where`` between scores and a softmax.

LiteRT's converter brings what is chosen and what it is chosen from onto one int8 grid, whatever reads it:
masked positions keep weight. Sums and products with constants stay in float, and XNNPACK takes them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.graph import ops
from edgekit.graph.constants import evaluate_constant
from edgekit.graph.ops import aten
from edgekit.int8.scores import constant_number, float_scores

__all__ = ["masks_by_addition"]

# From here on down a score means "never": its weight is 0 in float32 whatever the other scores are.
_NEVER = -1e4
# Finite, so that no runtime meets infinity; it swallows any score that it is added to.
_LOWEST = -1e30


def masks_by_addition(graph: fx.GraphModule) -> int:
    """Rewrite them in place. Returns how many there were.

    ``x + (-1e30 where masked, else 0)`` where the value that is put in means minus infinity, else
    ``x * (0 where masked, else 1) + (value where masked, else 0)``; both are exact. A row that is masked as a
    whole comes out even, not as NaN.
    """
    rewritten = 0
    scores = float_scores(graph)
    for node in [one for one in graph.graph.nodes if one in scores]:
        parts = _parts(graph, node)
        if parts is None:
            continue
        kept, mask, negated, value = parts
        with graph.graph.inserting_before(node):
            new = _masked(graph, kept, _as_float(graph, node, mask, negated), value)
        new.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)
        rewritten += 1
    if rewritten:
        ops.refresh(graph)
    return rewritten


def _parts(graph: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, fx.Node, bool, float] | None:
    """What is kept, the mask, whether it tells what is kept (not what is replaced), the value put in."""
    arguments: list[Any] = list(node.args)
    if node.target in (aten.masked_fill.Scalar, aten.masked_fill.Tensor):
        kept, mask, value = arguments
        negated = False
    elif node.target in (aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf):
        mask, chosen, other = arguments
        negated = constant_number(graph, chosen) is None
        kept, value = (chosen, other) if negated else (other, chosen)
    else:
        return None
    number = constant_number(graph, value)
    if number is None or not isinstance(kept, fx.Node) or number == float("inf"):
        return None
    return kept, mask, negated, number


def _as_float(graph: fx.GraphModule, node: fx.Node, mask: fx.Node, negated: bool) -> fx.Node:
    """1 where a position is masked, else 0."""
    call = graph.graph.call_function
    if ops.is_constant(mask):
        values = evaluate_constant(graph, mask).bool()
        return ops.constant_node(graph, f"{node.name}_mask", (values ^ negated).float())
    if negated:
        mask = call(aten.logical_not.default, (mask,))
    return call(aten.to.dtype, (mask, torch.float32))


def _masked(graph: fx.GraphModule, kept: fx.Node, mask: fx.Node, value: float) -> fx.Node:
    def times(one: fx.Node, number: float, plus: float = 0.0) -> fx.Node:
        if one.op == "get_attr":
            constant = ops.attribute(graph, str(one.target)) * number + plus
            return ops.constant_node(graph, f"{one.target}_{len(graph.graph.nodes)}", constant)
        product = graph.graph.call_function(aten.mul.Tensor, (one, number))
        return graph.graph.call_function(aten.add.Tensor, (product, plus)) if plus else product

    if value > _NEVER:
        kept = graph.graph.call_function(aten.mul.Tensor, (kept, times(mask, -1.0, 1.0)))
    else:
        value = _LOWEST
    return graph.graph.call_function(aten.add.Tensor, (kept, times(mask, value)))
