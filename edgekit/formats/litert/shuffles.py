"""Transposes of many small matrices as transposes of few large ones: a channel shuffle with channels last.

XNNPACK transposes (N, 2, 24) matrix by matrix, and each takes it as long as a few hundred bytes do in a large
one. With the matrices' places brought to the end, rows of N bytes are moved as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert.wiring import Wiring

__all__ = ["spread_shuffles"]

_FEWEST = 16  # matrices
_LARGEST = 256  # bytes of a matrix: as many cost as much as being moved twice


def spread_shuffles(model: Any) -> int:
    """Respell such transposes of bytes, in place; how many there were."""
    file, count = Wiring(model), 0
    for operator in list(file.graph.operators):
        order = file.order(operator)
        if order is None:
            continue
        source, given = int(operator.inputs[0]), int(operator.outputs[0])
        one = file.graph.tensors[source]
        signature = one.shapeSignature
        known = one.shape is not None and (signature is None or all(int(size) >= 0 for size in signature))
        if one.type not in (schema.TensorType.INT8, schema.TensorType.UINT8) or not known:
            continue
        matrices = _matrices([int(size) for size in one.shape], order)
        if matrices is None:
            continue
        number, rows, columns = matrices
        value = file.add_transpose(file.add_reshape(source, (number, rows * columns)), (1, 0))
        value = file.add_transpose(file.add_reshape(value, (rows, columns, number)), (1, 0, 2))
        value = file.add_transpose(file.add_reshape(value, (rows * columns, number)), (1, 0))
        file.add_reshape(value, [int(size) for size in file.graph.tensors[given].shape], given)
        file.graph.operators = [op for op in file.graph.operators if op is not operator]
        count += 1
    if count:
        file.sort()
    return count


def _matrices(shape: Sequence[int], order: Sequence[int]) -> tuple[int, int, int] | None:
    """(N, rows, columns) of a transpose of N small matrices; None for another one."""
    place = {axis: at for at, axis in enumerate(axis for axis, size in enumerate(shape) if size != 1)}
    runs: list[list[int]] = []
    for axis in (axis for axis in order if axis in place):
        if runs and place[axis] == place[runs[-1][-1]] + 1:
            runs[-1].append(axis)
        else:
            runs.append([axis])
    if [runs.index(run) for run in sorted(runs)] != [0, 2, 1]:
        return None
    number, columns, rows = (math.prod(shape[axis] for axis in run) for run in runs)
    return (number, rows, columns) if number >= _FEWEST and rows * columns <= _LARGEST else None
