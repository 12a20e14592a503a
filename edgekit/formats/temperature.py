"""A temperature in the last layer: its scores come divided, so that probabilities mean what they say.

No answer changes, as the largest score stays the largest; in int8 not even an integer does: weights, bias and
their grids shrink alike. Only where the file puts weights on a coarser grid than the graph's (7 bits, for
CPUs that saturate) halves may round the other way.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import fx

from edgekit.errors import ExportError
from edgekit.graph import ops

__all__ = ["fold_temperature"]

_MOVES = {
    ops.aten.flatten.using_ints,
    ops.aten.reshape.default,
    ops.aten.view.default,
    ops.aten.squeeze.dim,
    ops.aten.squeeze.dims,
    ops.aten.contiguous.default,
}


def fold_temperature(graph: fx.GraphModule, temperature: float, where: str) -> fx.GraphModule:
    """A copy whose output is divided by ``temperature`` (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", §4.2), at no cost: by the last layer's own weights.

    Args:
        graph: captured, or an int8 graph.
        temperature: above 0; above 1 makes it less sure.
        where: the file, for errors.

    Raises ExportError where the graph doesn't end with a linear layer or a convolution of its own.
    """
    graph = copy.deepcopy(graph)
    node, quantisers = _last_layer(graph, where)
    for quantiser in quantisers:
        quantiser.args = (quantiser.args[0], quantiser.args[1] / temperature, *quantiser.args[2:])
    for position, operand in enumerate(node.args[1:3], 1):
        if isinstance(operand, fx.Node):
            node.update_arg(position, _divided(graph, node, operand, temperature, where))
    ops.refresh(graph)
    return graph


def _last_layer(graph: fx.GraphModule, where: str) -> tuple[fx.Node, list[Any]]:
    """It, and the per-tensor quantisers and dequantisers between it and the output."""
    output = next(node for node in graph.graph.nodes if node.op == "output")
    results = output.args[0]
    node = results[0] if isinstance(results, list | tuple) else results
    quantisers: list[Any] = []
    while isinstance(node, fx.Node) and len(node.users) == 1:
        if node.target in ops.WEIGHTED:
            return node, quantisers
        if node.target in (ops.qd.quantize_per_tensor.default, ops.qd.dequantize_per_tensor.default):
            quantisers.append(node)
        elif node.target not in _MOVES:
            break
        node = node.args[0]
    got = node.name if isinstance(node, fx.Node) else str(node)
    raise ExportError(
        "the temperature can't be folded into the last layer",
        where=where,
        got=f"the model's output comes from {got!r}",
        expected="a linear layer or a convolution whose output nothing else reads",
        next="export without a temperature, and divide the scores by it in the app",
    )


def _divided(
    graph: fx.GraphModule, layer: fx.Node, operand: fx.Node, temperature: float, where: str
) -> fx.Node:
    """A weight or bias divided: the tensor itself, and the grid that it is put on."""
    if operand.op == "get_attr":
        value = ops.attribute(graph, str(operand.target)).detach() / temperature
        name = f"{str(operand.target).replace('.', '_')}_over_temperature"
        with graph.graph.inserting_before(layer):
            return ops.constant_node(graph, name, value)
    if operand.target in ops.QUANTIZE | ops.DEQUANTIZE:
        inner, scale, *rest = operand.args
        assert isinstance(inner, fx.Node)
        if inner.op == "get_attr" and not ops.is_float(inner):  # integers already: their grid alone
            changed: Any = inner
        else:
            changed = _divided(graph, layer, inner, temperature, where)
        finer = _divided(graph, layer, scale, temperature, where) if isinstance(scale, fx.Node) else None
        with graph.graph.inserting_before(layer):
            made = graph.graph.call_function(
                operand.target,
                (changed, finer if finer is not None else scale / temperature, *rest),  # type: ignore[operator]
            )
        return made
    raise ExportError(
        "the temperature can't be folded into the last layer",
        where=where,
        got=f"its weights come from {operand.name!r}",
        expected="parameters of its own",
    )
