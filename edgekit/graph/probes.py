"""Looking into a graph: the same computation with the tensors between its layers as further outputs."""

from __future__ import annotations

import copy

import torch
from torch import fx

from edgekit.graph import ops


def quantized_tensors(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """Name of what makes it -> the dequantise node that reads it, for every quantised tensor, in order.

    A layer goes by the name of its weight ("stem.conv"), any other op by that of its node.
    """
    found: dict[str, fx.Node] = {}
    for node in graph.graph.nodes:
        if node.target is not ops.qd.quantize_per_tensor.default or ops.is_constant(node.args[0]):
            continue
        if node.args[0].op == "placeholder":  # the input is no layer
            continue
        reader = next((user for user in node.users if user.target in ops.DEQUANTIZE), None)
        if reader is not None:
            name = layer_name(node.args[0])
            found[name if name not in found else f"{name} ({node.name})"] = reader
    return found


def layer_name(node: object) -> str:
    """What a person calls the layer that ``node`` computes."""
    if not isinstance(node, fx.Node):
        return str(node)
    if node.target in ops.WEIGHTED:
        weight = node.args[1]
        while isinstance(weight, fx.Node) and weight.op != "get_attr" and weight.args:
            weight = weight.args[0]
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            return str(weight.target).removesuffix("weight").rstrip("._") or node.name
    return node.name


def with_probes(graph: fx.GraphModule) -> tuple[fx.GraphModule, list[str]]:
    """A copy that returns its outputs and then every quantised tensor (dequantised); and their names."""
    graph = copy.deepcopy(graph)
    tensors = quantized_tensors(graph)
    output = next(node for node in graph.graph.nodes if node.op == "output")
    output.args = ((*ops.results(graph).values(), *tensors.values()),)
    graph.graph.set_codegen(torch.fx.graph.CodeGen())
    graph.recompile()
    return graph, list(tensors)
