"""Arithmetic on sizes, with NumPy: exporters write out how each shape follows from the input's.

The number of samples is a symbol while the graph is captured, and an object of an array here. Numbers of the
file that no input has a part in go the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekit.sources.onnx.nodes import Node, Refused, number, numbers

__all__ = ["HOST", "MOST", "shape_of", "torch_type"]

MOST = 1 << 22  # numbers that are computed here at once

Array = NDArray[Any]

# TensorProto's types. Halves and doubles are computed in single precision.
_TYPES = {
    1: (np.float32, torch.float32),
    2: (np.uint8, torch.uint8),
    3: (np.int8, torch.int8),
    5: (np.int16, torch.int16),
    6: (np.int32, torch.int32),
    7: (np.int64, torch.int64),
    9: (np.bool_, torch.bool),
    10: (np.float32, torch.float32),
    11: (np.float32, torch.float32),
}


def torch_type(code: int) -> torch.dtype:
    """Of a type's number in ONNX. Raises Refused."""
    if code not in _TYPES:
        raise Refused(f"a type of numbers that isn't known here ({code})")
    return _TYPES[code][1]


def _bounded(count: Any) -> None:
    if int(count) > MOST:
        raise Refused(f"{int(count):,} numbers that no input has a part in")


def shape_of(node: Node, value: Any) -> Array:
    """The sizes of a tensor, from ``start`` to ``end``."""
    sizes = list(value.shape)[node.get("start", 0) : node.get("end")]
    symbolic = any(isinstance(one, torch.SymInt) for one in sizes)
    if not symbolic:
        return np.array(sizes, dtype=np.int64)
    found = np.empty(len(sizes), dtype=object)
    found[:] = sizes
    return found


def _gather(node: Node, data: Array, places: Array) -> Array:
    return np.asarray(np.take(data, places.astype(np.int64), axis=node.get("axis", 0)))


def _concat(node: Node, *parts: Array) -> Array:
    return np.concatenate(parts, axis=node.get("axis", 0))


def _slice(node: Node, data: Array, *given: Array | None) -> Array:
    starts, ends, axes, steps = sliced(node, data.ndim, given)
    where: list[slice] = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        where[axis] = slice(start, end, step)
    return data[tuple(where)]


def sliced(
    node: Node, dims: int, given: tuple[Any, ...]
) -> tuple[list[Any], list[Any], list[int], list[int]]:
    """starts, ends, axes and steps of a Slice; an end beyond everything is None."""
    starts, ends, axes, steps = [*given, None, None, None, None][:4]
    first = node.listed("starts", starts) or []
    last = node.listed("ends", ends) or []
    places = node.listed("axes", axes) or list(range(len(first)))
    widths = node.listed("steps", steps) or [1] * len(first)
    last = [
        None if isinstance(one, int) and (one >= 2**31 - 1 or (width < 0 and one < -(2**30))) else one
        for one, width in zip(last, widths, strict=True)
    ]
    return first, last, [axis % dims for axis in places], widths


def _squeeze(node: Node, data: Array, axes: Array | None = None) -> Array:
    listed = node.listed("axes", axes)
    return (
        data.reshape(())
        if listed is None and data.size == 1
        else np.squeeze(data, None if listed is None else tuple(listed))
    )


def _unsqueeze(node: Node, data: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(data, tuple(node.listed("axes", axes) or ()))


def _reshape(node: Node, data: Array, shape: Array) -> Array:
    wanted = [data.shape[place] if one == 0 else one for place, one in enumerate(numbers(shape))]
    return data.reshape(wanted)


def _flatten(node: Node, data: Array) -> Array:
    axis = node.get("axis", 1)
    axis += data.ndim if axis < 0 else 0
    return data.reshape(math.prod(data.shape[:axis]), math.prod(data.shape[axis:]))


def _cast(node: Node, data: Array) -> Array:
    kind = _TYPES.get(node.get("to"), (None,))[0]
    if kind is None:
        raise Refused(f"a type of numbers that isn't known here ({node.get('to')})")
    return data if data.dtype == object else data.astype(kind)


def _divided(node: Node, one: Array, other: Array) -> Array:
    whole = all(each.dtype == object or each.dtype.kind in "iu" for each in (one, other))
    return one // other if whole else one / other


def _filled(node: Node, shape: Array) -> Array:
    wanted = numbers(shape)
    _bounded(np.prod([1, *wanted], dtype=object))
    value = np.asarray(node.get("value", np.zeros(1, np.float32))).reshape(-1)
    return np.full(wanted, value[0], dtype=value.dtype)


def _expand(node: Node, data: Array, shape: Array) -> Array:
    wanted = np.broadcast_shapes(data.shape, tuple(numbers(shape)))
    _bounded(np.prod([1, *wanted], dtype=object))
    return np.broadcast_to(data, wanted)


def _range(node: Node, start: Array, limit: Array, step: Array) -> Array:
    first, last, width = number(start), number(limit), number(step)
    if width == 0:
        raise Refused("a row of numbers in steps of 0")
    _bounded(max(0, (last - first) / width))
    return np.arange(first, last, width, dtype=start.dtype)


def _split(node: Node, data: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    axis = node.get("axis", 0)
    parts = node.listed("split", sizes)
    if parts is None:
        return tuple(np.array_split(data, len(node.outputs), axis))
    return tuple(np.split(data, np.cumsum(parts)[:-1].tolist(), axis))


def _reduced(function: Callable[..., Any]) -> Callable[..., Array]:
    def reduced(node: Node, data: Array, axes: Array | None = None) -> Array:
        listed = node.listed("axes", axes)
        where = None if listed is None else tuple(listed)
        return np.asarray(function(data, axis=where, keepdims=bool(node.get("keepdims", 1))))

    return reduced


def _of_all(function: Callable[..., Any]) -> Callable[..., Array]:
    return lambda node, *given: np.asarray(function(*given))


HOST: dict[str, Callable[..., Any]] = {
    "Identity": lambda node, data: data,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Cast": _cast,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Range": _range,
    "Split": _split,
    "Transpose": lambda node, data: np.transpose(data, node.get("perm")),
    "Add": _of_all(np.add),
    "Sub": _of_all(np.subtract),
    "Mul": _of_all(np.multiply),
    "Div": _divided,
    "Mod": _of_all(np.mod),
    "Pow": _of_all(np.power),
    "Neg": _of_all(np.negative),
    "Abs": _of_all(np.abs),
    "Sqrt": _of_all(np.sqrt),
    "Reciprocal": _of_all(np.reciprocal),
    "Floor": _of_all(np.floor),
    "Ceil": _of_all(np.ceil),
    "Equal": _of_all(np.equal),
    "Greater": _of_all(np.greater),
    "Less": _of_all(np.less),
    "Not": _of_all(np.logical_not),
    "And": _of_all(np.logical_and),
    "Or": _of_all(np.logical_or),
    "Where": _of_all(np.where),
    "Min": lambda node, *given: np.asarray(reduce(np.minimum, given)),
    "Max": lambda node, *given: np.asarray(reduce(np.maximum, given)),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "Size": lambda node, data: np.array(data.size, dtype=np.int64),
    "Shape": shape_of,
}
