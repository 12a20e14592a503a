"""What is inside an int8 graph (``int8_graph.pt2``), the file that the qat stage leaves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.formats.summary import by_size, dtype_totals, grid
from edgekit.graph import ops
from edgekit.int8 import storage
from edgekit.int8.prediction import op_name
from edgekit.memory import graph_arena
from edgekit.tensors import each

__all__ = ["read"]


def read(path: Path) -> dict[str, Any]:
    """Ops, scales, tensors and arena of an int8 graph, as JSON. Weights in it are float, beside their scales.

    Raises WeightsError if the file is damaged.
    """
    graph = storage.load(path)
    nodes = [node for node in graph.graph.nodes if node.op == "call_function"]
    constants = [_constant(graph, node) for node in graph.graph.nodes if node.op == "get_attr"]
    constants = list({row["name"]: row for row in constants}.values())
    example = ops.zeros_for(graph)
    values = graph_arena.record(graph, example)
    quantized = {node for node in nodes if node.target in ops.QUANTIZE | ops.DEQUANTIZE}
    quantized |= {node for node in nodes if node.users and set(node.users) <= quantized}

    def item_size(node: fx.Node, tensor: Tensor) -> int:
        return 1 if node in quantized else tensor.element_size()

    activations = [row for node in nodes if (row := _activation(node))]
    return {
        "versions": {"torch": torch.__version__},
        "metadata": {},
        "inputs": [{"name": name, **_port(one)} for name, one in each(example, "input")],
        "outputs": [{"name": name, **_port(values[one.name])} for name, one in ops.results(graph).items()],
        "operators": dict(Counter(op_name(node) for node in nodes).most_common()),
        "constant_dtypes": dtype_totals(constants),
        "activation_dtypes": dict(Counter(row["dtype"] for row in activations)),
        "float_weights": [],
        "integer_weights": {
            "tensors": sum("scale" in row for row in constants),
            "bytes": sum(row["bytes"] // 4 for row in constants if "scale" in row),
        },
        "arena": graph_arena.measure(graph, values, item_size).describe(),
        "tensors": by_size(constants, path.stat().st_size),
        "activations": activations,
    }


def _port(value: Tensor) -> dict[str, Any]:
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}


def _constant(graph: fx.GraphModule, node: fx.Node) -> dict[str, Any]:
    name = str(node.target)
    value = ops.attribute(graph, name)
    row = {"name": name, **_port(value), "bytes": value.numel() * value.element_size(), "role": "constant"}
    row["used_by"] = next((op_name(user) for user in node.users), "")
    for user in node.users:
        if user.target is ops.qd.quantize_per_channel.default and user.args[0] is node:
            scale, zero = (ops.attribute(graph, str(argument.target)) for argument in user.args[1:3])  # type: ignore[union-attr]
            axis = user.args[3] if isinstance(user.args[3], int) else None
            row |= {"role": "weight", **grid(scale.detach().numpy(), zero.numpy(), axis)}
    return row


def _activation(node: fx.Node) -> dict[str, Any] | None:
    if node.target is not ops.qd.quantize_per_tensor.default:
        return None
    value, scale, zero, _, _, dtype = node.args[:6]
    name = value.name if isinstance(value, fx.Node) else node.name
    return {"name": name, "dtype": str(dtype).removeprefix("torch."), **grid(scale, zero)}
