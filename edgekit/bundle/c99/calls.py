"""What stands between a model and its C source: calls of kernels, with their arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.c99.reading import Tensor

__all__ = ["Argument", "Array", "Call", "Number", "Parameters", "array", "int32"]


@dataclass(frozen=True, eq=False)
class Array:
    """A constant table. ``label`` says what it holds ("weights")."""

    label: str
    values: NDArray[Any]


@dataclass(frozen=True)
class Parameters:
    """The struct that a kernel takes last; ``kind`` is its tag. Numbers are int32, np.float32 ones float."""

    kind: str
    fields: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        return 4 * sum(len(value) if isinstance(value, list) else 1 for value in self.fields.values())


@dataclass(frozen=True)
class Number:
    """An integer that is passed by value."""

    value: int


Argument = Tensor | Array | Parameters | Number | None  # None is NULL


@dataclass(frozen=True)
class Call:
    """One call of a kernel.

    ``in_place``: tensors whose memory the output may take over, because each number of them is read before
    the number of the output in its place is written, and not again.
    """

    kernel: str
    arguments: tuple[Argument, ...]
    in_place: tuple[Tensor, ...] = ()


def array(label: str, values: Any, dtype: type[np.generic]) -> Array:
    """A table of this type."""
    return Array(label, np.ascontiguousarray(values, dtype))


def int32(values: Any) -> list[int]:
    """Python integers, checked to fit into int32."""
    found = [int(value) for value in values]
    assert all(-(2**31) <= value < 2**31 for value in found)
    return found
