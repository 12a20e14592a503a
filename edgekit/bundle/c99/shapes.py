"""Checks that several ops share, and index arithmetic: steps of broadcasts and of moved numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.bundle.c99.fixed_point import Unsupported
from edgekit.bundle.c99.reading import Op, Tensor

__all__ = ["broadcast", "check_grid", "front_padding", "image", "merge", "quantized", "steps"]


def quantized(op: Op, position: int = 0, *, output: bool = False) -> Tensor:
    """An int8 operand of an op, on one grid.

    Raises:
        Unsupported: another type, a grid for each channel, or no operand at this place.
    """
    operands = op.outputs if output else op.inputs
    tensor = operands[position] if position < len(operands) else None
    side = f"{'output' if output else 'input'} {position}"
    if tensor is None:
        raise Unsupported(f"{side} is left out")
    if tensor.dtype != "int8":
        raise Unsupported(f"{side} is {tensor.dtype}, not int8")
    check_grid(tensor, side)
    return tensor


def check_grid(tensor: Tensor, side: str) -> None:
    """One positive scale, one zero point that the type holds.

    Raises:
        Unsupported: another grid, or none.
    """
    limits = np.iinfo(tensor.dtype)
    if len(tensor.scales) != 1 or len(set(tensor.zero_points)) != 1:
        raise Unsupported(f"{side} has {len(tensor.scales)} scales instead of one")
    if not (math.isfinite(tensor.scale) and tensor.scale > 0):
        raise Unsupported(f"{side} has the scale {tensor.scale}")
    if not limits.min <= tensor.zero_point <= limits.max:
        raise Unsupported(f"{side} has the zero point {tensor.zero_point}")
    if not tensor.count:
        raise Unsupported(f"{side} is empty")


def image(tensor: Tensor) -> tuple[int, int, int, int]:
    """(batch, height, width, channels).

    Raises:
        Unsupported: no four axes.
    """
    if len(tensor.shape) != 4:
        raise Unsupported(f"shape {list(tensor.shape)} where four axes are expected")
    batch, height, width, channels = tensor.shape
    return batch, height, width, channels


def front_padding(
    options: Any,
    size: tuple[int, int],
    made: tuple[int, int],
    window: tuple[int, int],
    dilation: tuple[int, int],
) -> dict[str, int]:
    """Fields "pad_top" and "pad_left": rows and columns of padding in front; an odd one goes behind.

    All arguments are (height, width). A folded PAD's rows are in the options (folding.py).
    """
    from ai_edge_litert.schema_py_generated import Padding

    margin = getattr(options, "margin", None)
    if margin is not None:
        return {"pad_top": margin.top, "pad_left": margin.left}
    if options.padding == Padding.VALID:
        return {"pad_top": 0, "pad_left": 0}
    strides = options.strideH, options.strideW
    top, left = (
        max(0, (made[i] - 1) * strides[i] + (window[i] - 1) * dilation[i] + 1 - size[i]) // 2 for i in (0, 1)
    )
    return {"pad_top": top, "pad_left": left}


def steps(shape: Sequence[int]) -> list[int]:
    """How far apart neighbours along each axis lie in memory."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]


def merge(sizes: Sequence[int], *strides: Sequence[int], rank: int) -> tuple[list[int], ...]:
    """Sizes and strides of the same walk through memory with as few axes as possible, filled up to ``rank``.

    Raises:
        Unsupported: more axes are left.
    """
    kept: list[list[int]] = []  # size, and a step for each operand
    for size, *walk in zip(sizes, *strides, strict=True):
        if size == 1:
            continue
        if kept and all(outer == inner * size for outer, inner in zip(kept[-1][1:], walk, strict=True)):
            kept[-1] = [kept[-1][0] * size, *walk]
        else:
            kept.append([size, *walk])
    if len(kept) > rank:
        raise Unsupported(f"{len(kept)} axes that don't lie side by side; at most {rank} are supported")
    filled = [[1, *[0] * len(strides)]] * (rank - len(kept)) + kept
    return tuple([row[column] for row in filled] for column in range(len(strides) + 1))


def broadcast(first: Tensor, second: Tensor, output: Tensor, rank: int = 4) -> dict[str, list[int]]:
    """Fields "size", "a_step" and "b_step" of a kernel with two inputs.

    Raises:
        Unsupported: shapes that don't fit, or too many axes.
    """
    axes = len(output.shape)
    walks = []
    for tensor in (first, second):
        shape = (1,) * (axes - len(tensor.shape)) + tensor.shape
        if len(shape) != axes or any(a not in (1, b) for a, b in zip(shape, output.shape, strict=True)):
            raise Unsupported(f"shape {list(tensor.shape)} in an output of shape {list(output.shape)}")
        own = steps(shape)
        walks.append([0 if size == 1 else step for size, step in zip(shape, own, strict=True)])
    size, a_step, b_step = merge(output.shape, *walks, rank=rank)
    return {"size": size, "a_step": a_step, "b_step": b_step}
