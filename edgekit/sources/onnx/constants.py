"""What reads no input: computed once, and kept as a number of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekit.sources.onnx.nodes import Node, Refused, is_host
from edgekit.sources.onnx.shapes import HOST, MOST
from edgekit.sources.onnx.table import known

__all__ = ["arguments", "compute", "computed", "told_by"]

_GROWING = {
    "Expand",
    "Tile",
    "Pad",
    "Resize",
    "Upsample",
    "ConstantOfShape",
    "Range",
}  # beyond what they are given
_BOUNDED = {"ConstantOfShape", "Range"}  # by themselves
_ALL = 16  # times as many numbers, of all nodes that no input has a part in


def computed(nodes: Sequence[Node], constants: dict[str, Any]) -> list[Node]:
    """The nodes that an input has a part in; what the others give joins ``constants``.

    Raises Refused: one can't be computed, or gives far more numbers than the file has. What a node gives is
    foreseen before it is made: a few nodes that double a row would fill any memory.
    """
    for node in nodes:
        if node.op == "Constant":
            constants[node.outputs[0]] = _constant(node)
    most = max(MOST, sum(one.size for one in constants.values()))
    left, total = [], 0
    for node in nodes:
        if node.op == "Constant":
            continue
        if not all(not name or name in constants for name in node.inputs):
            left.append(node)
            continue
        given = [constants[name] if name else None for name in node.inputs]
        with told_by(node):
            count = _foreseen(node, given)
            total += count
            if count > most or total > _ALL * most:
                raise Refused(f"{count:,} numbers that no input has a part in")
            made = compute(node, given)
            values = made if isinstance(made, tuple) else (made,)
            for name, value in zip(node.outputs, values, strict=False):
                constants[name] = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return left


@contextmanager
def told_by(node: Node) -> Iterator[None]:
    """Whatever NumPy and torch can't compute is Refused, with the node."""
    try:
        yield
    except Refused as error:
        raise Refused(f"{node.told()}: {error}") from error
    except (ArithmeticError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if torch.compiler.is_exporting():
            raise  # torch asks again in another way
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise Refused(f"{node.told()}: {text}") from error


def _foreseen(node: Node, given: Sequence[Any]) -> int:
    """How many numbers a node gives, or a few more, without making them."""
    if node.op not in known() or node.op in _BOUNDED:
        return 0
    there = [one for one in given if one is not None]
    if node.op == "Gather":
        data, places = there
        return int(data.size // max(1, data.shape[node.get("axis", 0)]) * places.size)
    host = known()[node.op].host
    only_shapes = [
        one
        if one is None or place in host
        else torch.from_numpy(np.empty(0, one.dtype)).new_empty(one.shape, device="meta")
        for place, one in enumerate(given)
    ]
    try:
        made = known()[node.op].call(node, *only_shapes)
    except (ArithmeticError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        # It looks at a number, as where a power is one for all, or fails in any case.
        try:
            return int(np.prod(np.broadcast_shapes(*(one.shape for one in there)), dtype=object))
        except ValueError:
            return max((int(one.size) for one in there), default=0)
    return sum(one.numel() for one in (made if isinstance(made, tuple | list) else (made,)))


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
