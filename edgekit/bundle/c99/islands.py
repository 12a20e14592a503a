"""Floats between a DEQUANTIZE and a QUANTIZE that are a function of one number: a table of 256 answers.

A hard sigmoid, for one, has no int8 kernel in LiteRT: it is an addition, a clamp and a product in float32,
each rounded as IEEE 754 says, here as there, so that the table holds the very answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.c99.reading import Op, Tensor

__all__ = ["ISLAND", "close", "table"]

ISLAND = "FLOAT_ISLAND"  # stands for DEQUANTIZE, ..., QUANTIZE; its options are the ops in between
_PLAIN = {
    "RELU": (0.0, np.inf),
    "RELU6": (0.0, 6.0),
    "RELU_0_TO_1": (0.0, 1.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
}
_BINARY = ("ADD", "MAXIMUM", "MINIMUM", "MUL", "SUB")
_FUSED = {0: (-np.inf, np.inf), 1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}


def close(ops: Sequence[Op], outputs: Sequence[Tensor] = ()) -> list[Op]:
    """The ops, each island of this kind as one; what doesn't fit stays as it is, and so do the outputs."""
    users: dict[int, list[Op]] = {}
    for op in ops:
        for tensor in op.inputs:
            if tensor is not None:
                users.setdefault(tensor.index, []).append(op)
    for tensor in outputs:
        users.pop(tensor.index, None)  # somebody else reads it as well: no island has it inside
    gone: set[int] = set()
    islands: dict[int, Op] = {}
    for op in ops:
        chain = _chain(op, users)
        if chain:
            gone |= {one.index for one in (op, *chain[:-1])}
            islands[chain[-1].index] = replace(
                chain[-1], kind=ISLAND, inputs=op.inputs[:1], options=tuple(chain[:-1])
            )
    return [islands.get(op.index, op) for op in ops if op.index not in gone]


def _chain(start: Op, users: dict[int, list[Op]]) -> list[Op]:
    """The ops behind a DEQUANTIZE up to its QUANTIZE; none if it is no island."""
    found: list[Op] = []
    source = start.inputs[0] if start.inputs else None
    if start.kind != "DEQUANTIZE" or source is None or source.data is not None or source.dtype != "int8":
        return found
    tensor = start.output
    while True:
        after = users.get(tensor.index, [])
        if len(after) != 1 or tensor.dtype != "float32" or tensor.count != start.output.count:
            return []
        found.append(after[0])
        if after[0].kind == "QUANTIZE":
            ends_well = len(found) > 1 and after[0].output.dtype == "int8"
            return found if ends_well and after[0].output.count == tensor.count else []
        if not _is_simple(after[0], tensor):
            return []
        tensor = after[0].output


def _is_simple(op: Op, tensor: Tensor) -> bool:
    if op.kind in _PLAIN:
        return True
    if op.kind not in _BINARY or getattr(op.options, "fusedActivationFunction", 0) not in _FUSED:
        return False
    others = [one for one in op.inputs if one is not tensor]
    return len(others) == 1 and others[0] is not None and others[0].data is not None and others[0].count == 1


def table(island: Op) -> NDArray[np.int8]:
    """The answers of an island for -128 to 127: (256,)."""
    source, output = island.inputs[0], island.output
    assert source is not None
    values = source.scale * (np.arange(-128, 128) - source.zero_point).astype(np.float32)
    for op in island.options:
        values = _apply(op, values)
    steps = (values / output.scale).astype(np.float64)
    nearest = np.copysign(np.floor(np.abs(steps) + 0.5), steps)
    answers: NDArray[np.int8] = np.clip(nearest + output.zero_point, -128, 127).astype(np.int8)
    return answers


def _apply(op: Op, values: NDArray[np.float32]) -> NDArray[np.float32]:
    if op.kind in _PLAIN:
        low, high = _PLAIN[op.kind]
        return np.clip(values, np.float32(low), np.float32(high))
    position = next(i for i, one in enumerate(op.inputs) if one is not None and one.data is not None)
    constant = op.inputs[position]
    assert constant is not None
    assert constant.data is not None
    number = np.float32(constant.data.reshape(-1)[0])
    first, second = (number, values) if position == 0 else (values, number)
    functions = {"ADD": np.add, "MUL": np.multiply, "SUB": np.subtract, "MAXIMUM": np.maximum}
    answer = functions.get(op.kind, np.minimum)(first, second)
    low, high = _FUSED[getattr(op.options, "fusedActivationFunction", 0)]
    clipped: NDArray[np.float32] = np.clip(answer, np.float32(low), np.float32(high))
    return clipped
