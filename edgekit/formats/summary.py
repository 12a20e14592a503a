"""What the readers of all kinds of files share: how scales, types and tensors are told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

__all__ = ["INTEGERS", "by_size", "dtype_totals", "grid", "tensor_bytes"]

INTEGERS = {"int8", "uint8", "int4", "uint4", "int2", "uint2", "int16", "uint16"}
_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "bfloat16": 16, "float8_e4m3fn": 8, "float8_e5m2": 8}


def grid(scales: Any, zero_points: Any, axis: int | None = None) -> dict[str, Any]:
    """Scale and zero point of a tensor; of a per-channel one count, smallest and largest."""
    scale = np.asarray(scales, np.float64).ravel()
    zero = np.asarray(zero_points, np.int64).ravel()
    if scale.size == 1:
        return {"scale": float(scale[0]), "zero_point": int(zero[0]) if zero.size else 0}
    return {
        "scale": {
            "count": int(scale.size),
            "min": float(scale.min()),
            "max": float(scale.max()),
            "axis": axis,
        },
        "zero_point": {"min": int(zero.min()), "max": int(zero.max())} if zero.size else {"min": 0, "max": 0},
    }


def tensor_bytes(dtype: str, shape: Iterable[int]) -> int:
    """Bytes of a tensor; an unknown type counts nothing. Raises ValueError for a negative size."""
    shape = [int(size) for size in shape]
    if any(size < 0 for size in shape):
        raise ValueError(f"a tensor of negative size: {shape}")
    bits = _BITS.get(dtype)
    if bits is None:
        try:
            bits = 8 * np.dtype(dtype).itemsize
        except TypeError:
            return 0
    return math.ceil(math.prod(shape) * bits / 8)


def by_size(tensors: Sequence[dict[str, Any]], file_bytes: int) -> list[dict[str, Any]]:
    """The largest first, each with its share of the file."""
    rows = [{**row, "share": row["bytes"] / file_bytes if file_bytes else 0.0} for row in tensors]
    return sorted(rows, key=lambda row: (-row["bytes"], row["name"]))


def dtype_totals(tensors: Iterable[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """By type: how many tensors, and their bytes together."""
    found: dict[str, dict[str, int]] = {}
    for row in tensors:
        one = found.setdefault(row["dtype"], {"tensors": 0, "bytes": 0})
        one["tensors"] += 1
        one["bytes"] += row["bytes"]
    return dict(sorted(found.items(), key=lambda item: -item[1]["bytes"]))
