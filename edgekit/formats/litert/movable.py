"""Ops of a LiteRT file that compute the same, whatever order the axes of their tensors stand in.

``rewrite`` gives such an op the parameters that it has once its tensors are brought into another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgekit.formats.litert import tflite_edit

__all__ = ["Movable", "movable", "rewrite", "trailing_axes"]

# One number at a time, of one tensor or of several that are broadcast.
_ELEMENTWISE = {
    *("ABS", "CAST", "CEIL", "COS", "DEQUANTIZE", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU"),
    *("LOG", "LOGICAL_NOT", "LOGISTIC", "NEG", "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT"),
    *("SIGN", "SIN", "SQRT", "SQUARE", "TANH"),
    *("ADD", "DIV", "EQUAL", "FLOOR_DIV", "FLOOR_MOD", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"),
    *("LOGICAL_AND", "LOGICAL_OR", "MAXIMUM", "MINIMUM", "MUL", "NOT_EQUAL", "POW", "SELECT_V2"),
    *("SQUARED_DIFFERENCE", "SUB"),
}
_REDUCTIONS = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"})
# Constants with a number for each axis, by their places among the inputs.
_FOR_EACH_AXIS = {
    "PAD": (1,),
    "PADV2": (1,),
    "MIRROR_PAD": (1,),
    "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
    "TILE": (1,),
}
_MASKS = ("beginMask", "endMask")  # a bit for each axis
_OTHER_MASKS = ("ellipsisMask", "newAxisMask", "shrinkAxisMask")  # they change the number of axes
_WHOLE: dict[int, type[np.generic]] = {schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}
_NUMPY: dict[int, type[np.generic]] = {
    **_WHOLE,
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.BOOL: np.bool_,
}


@dataclass(frozen=True)
class Movable:
    """Which of an op's tensors take part: those that are computed, its constants, and what it gives.

    ``outputs`` is empty where what is given has no axes to be moved: a reduction that takes them away.
    """

    inputs: tuple[int, ...]
    constants: tuple[int, ...]
    outputs: tuple[int, ...]


def movable(model: Any, graph: Any, operator: Any, kind: str, order: Sequence[int]) -> Movable | None:
    """What has to be brought into ``order`` for the op to compute as before; None for one that can't move.

    Tensors are indexes into ``graph.tensors``, all of as many axes as ``order`` has.
    """
    inputs, outputs = [int(one) for one in operator.inputs], [int(one) for one in operator.outputs]
    axes = len(order)

    def of_rank(index: int) -> bool:
        return len(_shape(graph, index)) == axes and not _by_channel(graph.tensors[index])

    if kind in _ELEMENTWISE:
        computed = [one for one in inputs if not is_constant(model, graph, one)]
        fixed = [one for one in inputs if is_constant(model, graph, one) and _size(graph, one) > 1]
        if not all(map(of_rank, [*computed, *outputs])):
            return None
        if any(
            _by_channel(graph.tensors[one])
            or graph.tensors[one].type not in _NUMPY
            or len(_shape(graph, one)) > axes
            for one in fixed
        ):
            return None
        return Movable(tuple(computed), tuple(fixed), tuple(outputs))
    if kind in _FOR_EACH_AXIS:
        places = _FOR_EACH_AXIS[kind]
        if not all(_are_whole(model, graph, inputs[place]) for place in places):
            return None
        if any(getattr(operator.builtinOptions, mask, 0) for mask in _OTHER_MASKS):
            return None
        return _one_of(inputs[0], outputs, of_rank)
    if kind == "CONCATENATION":
        # A constant part isn't worth the trouble.
        if any(is_constant(model, graph, one) for one in inputs) or not all(
            map(of_rank, [*inputs, *outputs])
        ):
            return None
        return Movable(tuple(inputs), (), tuple(outputs))
    if kind in ("SPLIT", "SPLIT_V"):
        data, axis = (inputs[1], inputs[0]) if kind == "SPLIT" else (inputs[0], inputs[2])
        return _one_of(data, outputs, of_rank) if _are_whole(model, graph, axis) else None
    if kind in _REDUCTIONS:
        if not _are_whole(model, graph, inputs[1]) or not of_rank(inputs[0]):
            return None
        if operator.builtinOptions.keepDims:
            return _one_of(inputs[0], outputs, of_rank)
        gone = _reduced(model, graph, operator)
        kept = [axis for axis in order if axis not in gone]
        return Movable((inputs[0],), (), ()) if kept == sorted(kept) else None
    return None


def _one_of(data: int, outputs: list[int], of_rank: Any) -> Movable | None:
    return Movable((data,), (), tuple(outputs)) if all(map(of_rank, [data, *outputs])) else None


def rewrite(model: Any, graph: Any, operator: Any, kind: str, order: Sequence[int]) -> None:
    """Give the op the parameters for tensors in ``order``, in place; the tensors are the caller's to move."""
    inputs = [int(one) for one in operator.inputs]
    for place in _FOR_EACH_AXIS.get(kind, ()):
        values = whole(model, graph, inputs[place])
        inputs[place] = _new_whole(model, graph, inputs[place], values[list(order)])
    if kind == "STRIDED_SLICE":
        for mask in _MASKS:
            bits = getattr(operator.builtinOptions, mask)
            moved = sum(1 << new for new, old in enumerate(order) if bits >> old & 1)
            setattr(operator.builtinOptions, mask, moved)
    if kind == "CONCATENATION":
        operator.builtinOptions.axis = list(order).index(operator.builtinOptions.axis % len(order))
    if kind in ("SPLIT", "SPLIT_V"):
        place = 0 if kind == "SPLIT" else 2
        axis = int(whole(model, graph, inputs[place]).reshape(-1)[0]) % len(order)
        shape = _shape(graph, inputs[place])
        inputs[place] = _new_whole(
            model, graph, inputs[place], np.full(shape, list(order).index(axis), np.int64)
        )
    if kind in _REDUCTIONS:
        axes = sorted(list(order).index(axis) for axis in _reduced(model, graph, operator))
        inputs[1] = _new_whole(model, graph, inputs[1], np.array(axes))
    operator.inputs = inputs


def trailing_axes(model: Any, graph: Any, operator: Any, kind: str, order: Sequence[int]) -> bool | None:
    """Whether what a reduction sums lies side by side once its tensor is in ``order``; None for other ops."""
    if kind not in _REDUCTIONS:
        return None
    axes = {list(order).index(axis) for axis in _reduced(model, graph, operator)}
    return axes == set(range(len(order) - len(axes), len(order)))


def moved_constant(model: Any, graph: Any, index: int, order: Sequence[int]) -> int:
    """A constant operand in ``order``, axes of 1 put in front of it first: the index of a new tensor."""
    tensor = graph.tensors[index]
    shape = _shape(graph, index)
    full = (1,) * (len(order) - len(shape)) + shape
    values = tflite_edit.constant(model, tensor, _NUMPY[tensor.type]).reshape(full).transpose(order)
    return tflite_edit.add_constant(model, values, tensor.name, tensor.quantization)


def is_constant(model: Any, graph: Any, index: int) -> bool:
    """Whether a tensor's numbers stand in the file."""
    data = model.buffers[graph.tensors[index].buffer].data
    return data is not None and len(data) > 0


def whole(model: Any, graph: Any, index: int) -> NDArray[Any]:
    """The whole numbers of a constant, in its shape."""
    tensor = graph.tensors[index]
    return tflite_edit.constant(model, tensor, _WHOLE[tensor.type]).reshape(_shape(graph, index))


def _reduced(model: Any, graph: Any, operator: Any) -> set[int]:
    axes = len(_shape(graph, int(operator.inputs[0])))
    return {int(axis) % axes for axis in whole(model, graph, int(operator.inputs[1])).reshape(-1)}


def _are_whole(model: Any, graph: Any, index: int) -> bool:
    return graph.tensors[index].type in _WHOLE and is_constant(model, graph, index)


def _new_whole(model: Any, graph: Any, like: int, values: NDArray[Any]) -> int:
    tensor = graph.tensors[like]
    values = values.astype(_WHOLE[tensor.type])
    return tflite_edit.add_constant(model, values, tensor.name, tensor.quantization)


def _shape(graph: Any, index: int) -> tuple[int, ...]:
    shape = graph.tensors[index].shape
    return () if shape is None else tuple(int(one) for one in shape)


def _size(graph: Any, index: int) -> int:
    return int(np.prod(_shape(graph, index), dtype=np.int64))


def _by_channel(tensor: Any) -> bool:
    grid = tensor.quantization
    return grid is not None and grid.scale is not None and len(grid.scale) > 1
