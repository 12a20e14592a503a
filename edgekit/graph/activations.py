"""Activations that are written out, recognised by what they compute.

Elementwise ops of one tensor that answer as a known function does give way to that function.
``0.5 * x * (1 + tanh(0.7979 * (x + 0.0447 * x ** 3)))`` spans decades on its way, for which one int8 grid
each has no digits; as one op it has a spelling in every format. Numbers decide, not names: models write
these in a dozen ways.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from edgekit.graph import ops
from edgekit.graph.ops import aten

__all__ = ["recognize_activations"]

_ONE = {
    aten.neg.default,
    aten.tanh.default,
    aten.sigmoid.default,
    aten.erf.default,
    aten.exp.default,
    aten.log1p.default,
    aten.softplus.default,
    aten.pow.Tensor_Scalar,
    aten.square.default,
    aten.clamp.default,
    aten.hardtanh.default,
    aten.relu6.default,
    aten.relu.default,
}
_TWO = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
# What a region has to hold to be worth a look: sums and products alone are none of these functions.
_CURVED = _ONE - {aten.neg.default, aten.relu.default, aten.square.default}
_MOST = 24  # ops of a region
_KNOWN: tuple[tuple[Any, dict[str, Any], Callable[[Tensor], Tensor]], ...] = (
    (aten.gelu.default, {}, functional.gelu),
    (aten.gelu.default, {"approximate": "tanh"}, lambda x: functional.gelu(x, approximate="tanh")),
    (aten.silu.default, {}, functional.silu),
    (aten.mish.default, {}, functional.mish),
    (aten.hardswish.default, {}, functional.hardswish),
)
# Between the points, and beyond, all of these are straight or as smooth as their neighbours.
_FAR = torch.tensor([40.0, 200.0, 1e3, 1e4]).double()
_POINTS = torch.cat([torch.linspace(-12, 12, 2401).double(), -_FAR, _FAR])
_NEAR = 1e-6  # constants are written with six digits and more


def recognize_activations(graph: fx.GraphModule) -> int:
    """Replace such regions in place; how many there were. Of regions inside of each other, the largest."""
    found = 0
    for node in reversed(list(graph.graph.nodes)):
        if node.target in _TWO and node.users:
            found += _replace(graph, node)
    if found:
        graph.graph.eliminate_dead_code()
        ops.refresh(graph)
    return found


def _replace(graph: fx.GraphModule, last: fx.Node) -> bool:
    inside = _inside(last)
    if not any(node.target in _CURVED for node in inside):
        return False
    order = [node for node in graph.graph.nodes if node in inside]
    starts = dict.fromkeys(one for node in order for one in node.all_input_nodes)
    for source in starts:
        nodes = _between(graph, source, last, order)
        if nodes is None:
            continue
        with torch.no_grad():
            values = _evaluated(graph, source, nodes)
        for target, options, function in _KNOWN:
            if values is not None and _alike(values, function(_POINTS)):
                with graph.graph.inserting_after(last):
                    new = graph.graph.call_function(target, (source,), dict(options))
                new.meta = dict(last.meta)
                last.replace_all_uses_with(new)
                return True
    return False


def _alike(one: Tensor, other: Tensor) -> bool:
    """Written out by differences, a function may lose digits where numbers are large."""
    return bool(((one - other).abs() < _NEAR * _POINTS.abs().clamp(min=1)).all())


def _inside(last: fx.Node) -> set[fx.Node]:
    """Elementwise ops that lead to ``last`` and to nothing else, back to the first that is none."""
    inside, todo = {last}, [last]
    while todo and len(inside) <= _MOST:
        for one in todo.pop().all_input_nodes:
            if one in inside or one.op == "get_attr" or one.target not in _ONE | _TWO:
                continue
            if all(user in inside for user in one.users):
                inside.add(one)
                todo.append(one)
    return inside


def _between(
    graph: fx.GraphModule, source: fx.Node, last: fx.Node, order: list[fx.Node]
) -> list[fx.Node] | None:
    """What stands between a tensor and ``last``, in order; None if ``last`` reads another tensor, too."""
    if not ops.is_float(source) or ops.shape_of(source) != ops.shape_of(last):
        return None
    needed, todo = {last}, [last]
    while todo:
        for one in todo.pop().all_input_nodes:
            if one is source or one in needed or _number(graph, one) is not None:
                continue
            if one not in order:
                return None
            needed.add(one)
            todo.append(one)
    return [node for node in order if node in needed]


def _number(graph: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """A constant of one number. What is learned is none, whatever it is today."""
    if node.op != "get_attr" or isinstance(ops.attribute(graph, str(node.target)), torch.nn.Parameter):
        return None
    value = ops.attribute(graph, str(node.target)).detach()
    return value.double().reshape(()) if value.numel() == 1 else None


def _evaluated(graph: fx.GraphModule, source: fx.Node, nodes: list[fx.Node]) -> Tensor | None:
    values: dict[fx.Node, Any] = {source: _POINTS}

    def of(argument: Any) -> Any:
        if not isinstance(argument, fx.Node):
            return argument
        return values[argument] if argument in values else _number(graph, argument)

    for node in nodes:
        function: Any = node.target
        values[node] = function(*map(of, node.args), **{key: of(one) for key, one in node.kwargs.items()})
    result = values[nodes[-1]]
    return result if isinstance(result, Tensor) and result.shape == _POINTS.shape else None
