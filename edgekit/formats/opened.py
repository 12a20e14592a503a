"""An exported int8 file that tells all of its integer tensors, not only its output.

The very file is asked: the tensors between its layers become further outputs, and nothing is converted
anew. A layer's result stands in integers in the file either way; looking at it changes no arithmetic.
How it is opened is each format's own: ``onnx/opening.py``, ``litert/opening.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid", "Opened", "real"]

_SIGNED = {"int8": 0, "uint8": 128}  # what a zero point lies above that of int8


@dataclass(frozen=True)
class Grid:
    """``scale``, and ``zero_point`` as in int8 (one of uint8 is 128 above)."""

    scale: float
    zero_point: int

    @classmethod
    def of(cls, scale: Any, zero_point: Any, dtype: Any) -> Grid:
        """From what stands in a file or a graph, in the integers' own type (numpy's)."""
        shift = _SIGNED.get(np.dtype(dtype).name, 0)
        return cls(float(np.float32(scale)), int(zero_point) - shift)


@dataclass(frozen=True)
class Opened:
    """A file with all of its integer tensors as outputs.

    ``grids``: of each tensor, in the file's order: the one that it was written on, and those that it is read
    on, where these differ. ``run``: takes one preprocessed row (1, …), or one of raw
    pixels (1, H, W, C) where the file preprocesses by itself, several inputs as ``tensors.to_numpy`` gives
    them; gives the file's answers by name as real numbers, and the tensors as integers.
    """

    grids: Sequence[tuple[Grid, ...]]
    run: Callable[[NDArray[Any]], tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]]


def real(value: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """The numbers that integers of either sign stand for, in float32."""
    zero_point = grid.zero_point + _SIGNED.get(value.dtype.name, 0)
    return (value.astype(np.float32) - np.float32(zero_point)) * np.float32(grid.scale)
