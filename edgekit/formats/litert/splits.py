"""The slices that a tensor is cut into, as one SPLIT: unrolled steps of recurrent layers cut their gates so.

Bit for bit the same, with fewer ops, each of which costs some 60 bytes and a moment at every step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.movable import is_constant, whole
from edgekit.formats.litert.wiring import Wiring

__all__ = ["split_at_once"]

_MOST = 4  # parts that XNNPACK takes


def split_at_once(model: Any) -> int:
    """Respell the slices of float tensors that are equal parts of the whole, in place; how many tensors."""
    file = Wiring(model)
    axes: dict[int, int] = {}
    done = 0
    for tensor, readers in list(file.readers.items()):
        slices = [one for one in readers if file.kind(one) == "SLICE" and int(one.inputs[0]) == tensor]
        if not 2 <= len(slices) <= _MOST or file.graph.tensors[tensor].type != schema.TensorType.FLOAT32:
            continue
        found = _parts(file, tensor, slices)
        if found is None:
            continue
        axis, parts = found
        if axis not in axes:
            axes[axis] = tflite_edit.add_constant(model, np.array(axis, np.int32), f"axis{axis}")
        split = schema.OperatorT()
        split.opcodeIndex = tflite_edit.operator_code(model, "SPLIT")
        split.inputs, split.outputs = [axes[axis], tensor], [int(one.outputs[0]) for one in parts]
        split.builtinOptions = schema.SplitOptionsT()
        split.builtinOptions.numSplits = len(parts)
        split.builtinOptionsType = schema.BuiltinOptions.SplitOptions
        places = [index for index, one in enumerate(file.graph.operators) if any(one is s for s in slices)]
        file.graph.operators[places[0]] = split
        for index in reversed(places[1:]):
            del file.graph.operators[index]
        done += 1
    file.index()
    return done


def _parts(file: Wiring, tensor: int, slices: list[Any]) -> tuple[int, list[Any]] | None:
    """The axis along which the slices are equal parts, and they in that order; None if they aren't."""
    shape = [int(size) for size in file.graph.tensors[tensor].shape]
    begun: dict[int, Any] = {}
    found = set()
    for one in slices:
        _, begin, size = (int(index) for index in one.inputs)
        if not all(is_constant(file.model, file.graph, index) for index in (begin, size)):
            return None
        starts, sizes = (whole(file.model, file.graph, index).ravel().tolist() for index in (begin, size))
        cut = [axis for axis, length in enumerate(shape) if sizes[axis] not in (length, -1)]
        if len(cut) != 1 or any(start for axis, start in enumerate(starts) if axis != cut[0]):
            return None
        found.add((cut[0], sizes[cut[0]]))
        begun[starts[cut[0]]] = one
    if len(found) != 1:
        return None
    ((axis, size),) = found
    if sorted(begun) != list(range(0, shape[axis], size)) or size * len(slices) != shape[axis]:
        return None
    return axis, [begun[start] for start in sorted(begun)]
