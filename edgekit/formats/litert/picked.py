"""Rows and columns that are picked out of an int8 tensor, as ops that XNNPACK has: the same integers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.movable import is_constant, whole
from edgekit.formats.litert.wiring import Wiring

__all__ = ["MOST_PARTS", "factors", "gathered", "repeated", "subsampled"]

MOST_PARTS = 5  # of one concatenation in XNNPACK
_MOST_RUNS = 40  # slices that stand for one gathering


def gathered(file: Wiring, operator: Any) -> bool:
    """GATHER_ND of whole rows as slices beside each other: what up-sampling by 7 / 3 becomes."""
    source, places = (int(one) for one in operator.inputs)
    given = int(operator.outputs[0])
    if file.grid(source) is None or not is_constant(file.model, file.graph, places):
        return False
    rows = whole(file.model, file.graph, places)
    if rows.ndim != 2 or rows.shape[1] != 1:
        return False
    runs = _runs([int(row) for row in rows[:, 0]])
    if not 1 < len(runs) <= _MOST_RUNS:
        return False
    parts: dict[tuple[int, int], int] = {}
    for run in runs:
        if run not in parts:
            parts[run] = file.add_slice(source, 0, *run)
    beside = [parts[run] for run in runs]
    while len(beside) > MOST_PARTS:
        groups = [beside[at : at + MOST_PARTS] for at in range(0, len(beside), MOST_PARTS)]
        beside = [one[0] if len(one) == 1 else file.add_concatenation(one, 0, given) for one in groups]
    file.add_concatenation(beside, 0, given)
    return _in_place_of(file, operator, given)


def _runs(rows: list[int]) -> list[tuple[int, int]]:
    """Rows that follow each other, as (first, how many)."""
    starts = [0, *(at + 1 for at, (one, other) in enumerate(pairwise(rows)) if other != one + 1), len(rows)]
    return [(rows[start], end - start) for start, end in pairwise(starts)]


def subsampled(file: Wiring, operator: Any) -> bool:
    """Every second pixel, or third, of (N, rows, columns, channels) as a depthwise convolution by 1."""
    source, *numbers = (int(one) for one in operator.inputs)
    given, options = int(operator.outputs[0]), operator.builtinOptions
    shape = [int(one) for one in file.graph.tensors[source].shape]
    grid = file.grid(source)
    if len(shape) != 4 or grid is None or file.grid(given) != grid:
        return False
    if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask:
        return False
    if not all(is_constant(file.model, file.graph, one) for one in numbers):
        return False
    begins, ends, steps = (
        [int(value) for value in whole(file.model, file.graph, one).reshape(-1)] for one in numbers
    )
    spans = []
    for axis, size in enumerate(shape):
        begin = None if options.beginMask >> axis & 1 else begins[axis]
        end = None if options.endMask >> axis & 1 else ends[axis]
        spans.append(range(size)[slice(begin, end, steps[axis])])
    if steps[0] != 1 or steps[3] != 1 or max(steps[1:3]) < 2 or min(steps) < 1 or not all(map(len, spans)):
        return False
    value = source
    for axis, (span, size) in enumerate(zip(spans, shape, strict=True)):
        if span.start or (axis in (0, 3) and len(span) < size) or span[-1] + span.step < size:
            value = file.add_slice(value, axis, span.start, span[-1] + 1 - span.start)
    channels = len(spans[3])
    weight = np.ones((1, 1, 1, channels), np.int8)
    ones = tflite_edit.on_grid([1.0] * channels, [0] * channels, axis=3)
    bias = tflite_edit.on_grid([grid[0]] * channels, [0] * channels)
    operator.opcodeIndex = tflite_edit.operator_code(file.model, "DEPTHWISE_CONV_2D", 3)
    operator.inputs = [
        value,
        tflite_edit.add_constant(file.model, weight, "ones", ones),
        tflite_edit.add_constant(file.model, np.zeros(channels, np.int32), "zeros", bias),
    ]
    operator.builtinOptions = schema.DepthwiseConv2DOptionsT()
    operator.builtinOptions.padding = schema.Padding.VALID
    operator.builtinOptions.strideH, operator.builtinOptions.strideW = steps[1], steps[2]
    operator.builtinOptions.depthMultiplier = 1
    operator.builtinOptions.dilationHFactor = operator.builtinOptions.dilationWFactor = 1
    operator.builtinOptionsType = schema.BuiltinOptions.DepthwiseConv2DOptions
    return True


def factors(new: int, old: int) -> list[int] | None:
    """``new / old`` as a product of numbers that one concatenation makes; None where it isn't one."""
    if new % old:
        return None
    left, found = new // old, []
    for one in range(MOST_PARTS, 1, -1):
        while left % one == 0:
            left //= one
            found.append(one)
    return found if left == 1 else None


def repeated(file: Wiring, operator: Any) -> bool:
    """BROADCAST_TO as concatenations of a tensor with itself, axis by axis."""
    source, given = int(operator.inputs[0]), int(operator.outputs[0])
    before, after = ([int(one) for one in file.graph.tensors[at].shape] for at in (source, given))
    before = [1] * (len(after) - len(before)) + before
    if file.grid(source) is None or file.grid(given) != file.grid(source):
        return False
    times = [factors(new, old) if new != old else [] for new, old in zip(after, before, strict=True)]
    if None in times or not any(times):
        return False
    value = file.add_reshape(source, before)
    for axis, counts in enumerate(times):
        for count in counts or ():
            value = file.add_concatenation([value] * count, axis, given)
    return _in_place_of(file, operator, given)


def _in_place_of(file: Wiring, operator: Any, given: int) -> bool:
    """The op that was added last gives what ``operator`` gave."""
    file.graph.operators = [one for one in file.graph.operators if one is not operator]
    file.graph.operators[-1].outputs = [given]
    file.index()
    return True
