"""Numbers as C99 literals, and arrays of them: every value comes back exactly as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.errors import ExportError

__all__ = ["array", "c_type", "number"]

_TYPES = {
    "bool": "uint8_t",
    "uint8": "uint8_t",
    "int8": "int8_t",
    "uint16": "uint16_t",
    "int16": "int16_t",
    "uint32": "uint32_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "float32": "float",
    "float64": "double",
}
_WIDTH = 100  # columns


def c_type(dtype: str) -> str:
    """The C type of NumPy's. Raises ExportError: C99 has none."""
    if dtype not in _TYPES:
        raise ExportError(
            "samples of this type can't be written in C99", got=dtype, expected=f"one of {', '.join(_TYPES)}"
        )
    return _TYPES[dtype]


def number(value: Any, dtype: str) -> str:
    """One value of this type."""
    if dtype in ("float32", "float64"):
        real = np.dtype(dtype).type(value)
        if not np.isfinite(real):
            raise ExportError(
                "a value that C99 has no literal for", got=str(value), expected="finite numbers"
            )
        return (
            f"{real!s}f" if dtype == "float32" else str(real)
        )  # the shortest text that is read as this value
    whole = int(value)
    if whole == -(2**63):  # C reads the minus sign as an operator, and the rest doesn't fit
        return "(-9223372036854775807LL - 1)"
    if dtype == "int64":
        return f"{whole}LL"
    return f"{whole}U" if dtype == "uint32" else f"{whole}"


def array(values: npt.NDArray[Any], indent: str = "    ") -> str:
    """All values in C order, comma-separated, in lines: what stands between the braces."""
    dtype = values.dtype.name
    if dtype in ("uint8", "int8", "uint16", "int16", "bool"):
        words = list(map(str, values.astype(np.int32).ravel().tolist()))
    else:
        words = [number(value, dtype) for value in values.ravel()]
    lines: list[list[str]] = [[]]
    used = 0
    for word in words:
        if used + len(word) + 1 > _WIDTH:
            lines.append([])
            used = 0
        lines[-1].append(word)
        used += len(word) + 1
    return ",\n".join(indent + ",".join(line) for line in lines)
