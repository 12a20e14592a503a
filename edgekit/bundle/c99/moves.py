"""Ops that only carry numbers to other places: pads, slices, transposes, concatenations, shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.c99.calls import Call, Number, Parameters
from edgekit.bundle.c99.fixed_point import Unsupported
from edgekit.bundle.c99.reading import Op, Tensor
from edgekit.bundle.c99.shapes import merge, quantized, steps

__all__ = ["concatenation", "copy", "pad", "padding", "slice_", "split", "strided_slice", "transpose"]

_RANK = 6  # of the kernel


def pad(op: Op) -> list[Call]:
    """PAD and PADV2: the padding first, then the input over it."""
    source, output = quantized(op), quantized(op, output=True)
    before, value = padding(op)
    start = sum(step * size for step, size in zip(steps(output.shape), before, strict=True))
    inside = _move(source, output, source.shape, steps(source.shape), steps(output.shape), to_start=start)
    return [Call("fill", (output, Number(value), Number(output.count))), inside]


def padding(op: Op) -> tuple[list[int], int]:
    """How many rows stand in front of each axis, and the padding's number; PAD pads with the zero point."""
    source, output = quantized(op), quantized(op, output=True)
    amounts = np.asarray(_constant(op, 1)).reshape(-1, 2)
    if len(amounts) != len(source.shape) or (amounts < 0).any():
        raise Unsupported(f"paddings {amounts.tolist()} of shape {list(source.shape)}")
    value = output.zero_point
    if op.kind == "PADV2":
        value = int(_constant(op, 2).reshape(-1)[0])
    return [int(first) for first, _ in amounts], value


def concatenation(op: Op) -> list[Call]:
    """CONCATENATION: LiteRT demands one grid for all."""
    output = quantized(op, output=True)
    axis = op.options.axis % len(output.shape)
    if op.options.fusedActivationFunction:
        raise Unsupported("a fused activation")
    calls, start, walk = [], 0, steps(output.shape)
    for position in range(len(op.inputs)):
        source = quantized(op, position)
        if (source.scale, source.zero_point) != (output.scale, output.zero_point):
            raise Unsupported(f"input {position} lies on another grid than the output")
        calls.append(_move(source, output, source.shape, steps(source.shape), walk, to_start=start))
        start += source.shape[axis] * walk[axis]
    return calls


def transpose(op: Op) -> list[Call]:
    """TRANSPOSE."""
    source, output = quantized(op), quantized(op, output=True)
    order = [int(axis) for axis in _constant(op, 1).reshape(-1)]
    walk = steps(source.shape)
    return [_move(source, output, output.shape, [walk[axis] for axis in order], steps(output.shape))]


def slice_(op: Op) -> list[Call]:
    """SLICE: a start for each axis; sizes are those of the output."""
    source, output = quantized(op), quantized(op, output=True)
    walk = steps(source.shape)
    start = sum(int(first) * step for first, step in zip(_constant(op, 1).reshape(-1), walk, strict=True))
    return [_move(source, output, output.shape, walk, steps(output.shape), from_start=start)]


def strided_slice(op: Op) -> list[Call]:
    """STRIDED_SLICE without ellipsis and new axes, as numpy slices."""
    source, output, options = quantized(op), quantized(op, output=True), op.options
    if options.ellipsisMask or options.newAxisMask or getattr(options, "offset", False):
        raise Unsupported("an ellipsis, a new axis, or an end that is counted from the start")
    begin, end, stride = (_constant(op, position).reshape(-1) for position in (1, 2, 3))
    walk, start, sizes, taken = steps(source.shape), 0, [], []
    for axis, size in enumerate(source.shape):
        first, step, last = 0, 1, size
        if axis < len(begin):
            first, last, step = int(begin[axis]), int(end[axis]), int(stride[axis])
            if options.shrinkAxisMask >> axis & 1:
                start += first % size * walk[axis]
                continue
            chosen = slice(
                None if options.beginMask >> axis & 1 else first,
                None if options.endMask >> axis & 1 else last,
                step,
            )
            first, last, step = chosen.indices(size)
        sizes.append(len(range(first, last, step)))
        start += first * walk[axis]
        taken.append(step * walk[axis])
    if math.prod(sizes) != output.count:
        raise Unsupported(f"a slice of shape {sizes} for an output of shape {list(output.shape)}")
    return [_move(source, output, sizes, taken, steps(sizes), from_start=start)]


def split(op: Op) -> list[Call]:
    """SPLIT and SPLIT_V: one copy for each output."""
    position = 1 if op.kind == "SPLIT" else 0
    source = quantized(op, position)
    axis = int(_constant(op, 0 if op.kind == "SPLIT" else 2).reshape(-1)[0]) % len(source.shape)
    calls, start, walk = [], 0, steps(source.shape)
    for index in range(len(op.outputs)):
        part = quantized(op, index, output=True)
        calls.append(_move(source, part, part.shape, walk, steps(part.shape), from_start=start))
        start += part.shape[axis] * walk[axis]
    return calls


def copy(source: Tensor, output: Tensor) -> Call:
    """Bytes as they are, where a view would have to be at two places at once."""
    return _move(source, output, [output.nbytes], [1], [1])


def _move(
    source: Tensor,
    output: Tensor,
    sizes: Sequence[int],
    walk_from: Sequence[int],
    walk_to: Sequence[int],
    *,
    from_start: int = 0,
    to_start: int = 0,
) -> Call:
    size, step_from, step_to = merge(sizes, walk_from, walk_to, rank=_RANK)
    fields: dict[str, Any] = {
        "size": size,
        "from": step_from,
        "to": step_to,
        "from_start": from_start,
        "to_start": to_start,
    }
    return Call("move", (source, output, Parameters("move", fields)))


def _constant(op: Op, position: int) -> NDArray[Any]:
    tensor = op.inputs[position] if position < len(op.inputs) else None
    if tensor is None or tensor.data is None:
        raise Unsupported(f"input {position} is no constant")
    return tensor.data
