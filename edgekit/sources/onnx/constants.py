"""What reads no input: computed once, and kept as a number of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.sources.onnx.nodes import Node, Refused, is_host
from edgekit.sources.onnx.shapes import HOST, MOST
from edgekit.sources.onnx.table import known

__all__ = ["arguments", "compute", "computed"]

_GROWING = {
    "Expand",
    "Tile",
    "Pad",
    "Resize",
    "Upsample",
    "ConstantOfShape",
    "Range",
}  # beyond what they are given


def computed(nodes: Sequence[Node], constants: dict[str, Any]) -> list[Node]:
    """The nodes that an input has a part in; what the others give joins ``constants``. Raises Refused."""
    left = []
    for node in nodes:
        if node.op == "Constant":
            constants[node.outputs[0]] = _constant(node)
        elif all(not name or name in constants for name in node.inputs):
            given = [constants[name] if name else None for name in node.inputs]
            made = compute(node, given)
            values = made if isinstance(made, tuple) else (made,)
            for name, value in zip(node.outputs, values, strict=False):
                constants[name] = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
        else:
            left.append(node)
    return left


def compute(node: Node, given: Sequence[Any]) -> Any:
    """What a node gives, as sizes where it is given nothing but sizes. Raises Refused."""
    sizes = all(one is None or is_host(one) for one in given)
    # As many numbers as there are samples are no array, but a tensor of the graph.
    per_sample = node.op in _GROWING and any(is_host(one) and one.dtype == object for one in given)
    if node.op in HOST and sizes and not per_sample:
        small = sum(one.size for one in given if one is not None) <= MOST
        if small or node.op not in known():
            made = HOST[node.op](node, *given)
            return tuple(map(_settled, made)) if isinstance(made, tuple) else _settled(made)
    if node.op in ("Shape", "Size") and given:
        shape = HOST["Shape"](node, given[0])
        return shape if node.op == "Shape" else np.array(np.prod(shape, dtype=object))
    if node.op in _GROWING and sizes and not per_sample:
        raise Refused("more numbers than a constant should be made of")
    with torch.no_grad():
        return known()[node.op].call(node, *arguments(node, given))


def _settled(value: Any) -> Any:
    """Plain numbers, where no symbol is left among them."""
    array = np.asarray(value)
    if array.dtype != object or any(not isinstance(one, int | float) for one in array.reshape(-1).tolist()):
        return array
    whole = all(isinstance(one, int) for one in array.reshape(-1).tolist())
    return array.astype(np.int64 if whole else np.float32)


def arguments(node: Node, given: Sequence[Any]) -> list[Any]:
    """Arrays as tensors, but for those that say how."""
    host = known()[node.op].host
    return [
        torch.from_numpy(np.array(one)) if place not in host and is_host(one) and one.dtype != object else one
        for place, one in enumerate(given)
    ]


def _constant(node: Node) -> Any:
    for key in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if (value := node.get(key)) is not None:
            kind = np.float32 if "float" in key else np.int64 if "int" in key else None
            return np.asarray(value, dtype=kind)
    raise Refused("a constant that is no number")
