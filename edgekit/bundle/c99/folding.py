"""Before the ops are written: what a neighbour can do by itself takes no memory of its own.

Padding in front of a window, and factors of the channels behind the last DEQUANTIZE.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.c99.fixed_point import Unsupported
from edgekit.bundle.c99.moves import padding
from edgekit.bundle.c99.reading import Model, Op, Tensor

__all__ = ["Margin", "fold"]

_WINDOWS = ("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D")


@dataclass(frozen=True)
class Margin:
    """Rows and columns of padding in front of an image, taken over from a PAD."""

    top: int
    left: int


def fold(model: Model) -> list[Op]:
    """The ops, without those that a neighbour can do: the same numbers.

    PADs, which convolutions and max poolings behind them do, and at an output a product of floats with
    constants, which the DEQUANTIZE in front of it does.
    """
    return _scaled(model, _padded(model))


def _scaled(model: Model, ops: list[Op]) -> list[Op]:
    """DEQUANTIZE and MUL at an output as one, in the same order of roundings."""
    readers: dict[int, int] = {}
    for op in ops:
        for tensor in op.inputs:
            if tensor is not None:
                readers[tensor.index] = readers.get(tensor.index, 0) + 1
    made = {op.output.index: op for op in ops if op.outputs}
    kept, gone = [], set()
    for op in ops:
        found = _factors(op) if model.is_output(op.output) else None
        if found is not None:
            source, factors = found
            before = made.get(source.index)
            alone = readers[source.index] == 1 and not model.is_output(source)
            if before is not None and before.kind == "DEQUANTIZE" and alone:
                gone.add(before.index)
                op = replace(
                    op, kind="DEQUANTIZE", inputs=before.inputs, options=SimpleNamespace(factors=factors)
                )
        kept.append(op)
    return [op for op in kept if op.index not in gone]


def _factors(op: Op) -> tuple[Tensor, NDArray[np.float32]] | None:
    """What a product of floats reads, and its constants: one for all, or one a place of the last axes."""
    if op.kind != "MUL" or len(op.inputs) != 2 or getattr(op.options, "fusedActivationFunction", False):
        return None
    first, second = op.inputs
    if first is None or second is None:
        return None
    source, constant = (first, second) if first.data is None else (second, first)
    if source.data is not None or constant.data is None or {source.dtype, constant.dtype} != {"float32"}:
        return None
    shape = constant.shape
    while shape and shape[0] == 1:
        shape = shape[1:]
    if source.shape != op.output.shape or shape != op.output.shape[len(op.output.shape) - len(shape) :]:
        return None
    return source, np.ascontiguousarray(constant.data, np.float32).reshape(-1)


def _padded(model: Model) -> list[Op]:
    """The ops, without PADs that convolutions and max poolings behind them can do.

    A convolution's kernel adds nothing for what lies outside, which is what the zero point would add; a max
    pooling ignores it, which is what -128 would do.
    """
    users: dict[int, list[Op]] = {}
    for op in model.ops:
        for tensor in op.inputs:
            if tensor is not None:
                users.setdefault(tensor.index, []).append(op)
    pads: dict[int, tuple[Tensor, Margin]] = {}
    for op in model.ops:
        margin = _margin(op, users.get(op.output.index, [])) if not model.is_output(op.output) else None
        if margin is not None and op.inputs[0] is not None:
            pads[op.output.index] = op.inputs[0], margin
    kept = []
    for op in model.ops:
        if op.output.index in pads:
            continue
        first = op.inputs[0] if op.inputs else None
        if first is not None and first.index in pads:
            source, margin = pads[first.index]
            options = SimpleNamespace(**{**vars(op.options), "margin": margin})
            op = replace(op, inputs=(source, *op.inputs[1:]), options=options)
        kept.append(op)
    return kept


def _margin(op: Op, users: list[Op]) -> Margin | None:
    """Of a PAD that all its users can do by themselves."""
    if op.kind not in ("PAD", "PADV2") or not users:
        return None
    if any(user.kind not in _WINDOWS or not _is_image_only(user, op.output) for user in users):
        return None
    try:
        before, value = padding(op)
    except Unsupported:
        return None
    source = op.inputs[0]
    if source is None or len(before) != 4 or source.data is not None:
        return None
    if source.shape[0] != op.output.shape[0] or source.shape[3] != op.output.shape[3]:
        return None
    same_grid = (source.scale, source.zero_point) == (op.output.scale, op.output.zero_point)
    ignored = {-128 if user.kind == "MAX_POOL_2D" else op.output.zero_point for user in users}
    return Margin(before[1], before[2]) if same_grid and ignored == {value} else None


def _is_image_only(user: Op, padded: Tensor) -> bool:
    """Whether the padded image is the op's first operand and nothing else, and the op itself pads nothing."""
    from ai_edge_litert.schema_py_generated import Padding

    options: Any = user.options
    return (
        user.inputs[0] is padded
        and all(tensor is not padded for tensor in user.inputs[1:])
        and options.padding == Padding.VALID
    )
