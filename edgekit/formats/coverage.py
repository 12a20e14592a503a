"""int8 coverage: which share of MACs runs in integer kernels, counted in what the runtime executes.

How it is counted is each format's own: ``coverage.py`` in its folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import MeasurementError

__all__ = ["INTEGERS", "Coverage", "Layer", "only_sums", "telling"]

INTEGERS = {"int8", "uint8"}


@dataclass(frozen=True)
class Layer:
    """One multiplying op as executed. ``macs`` is for one sample; ``reason`` says why it isn't integer."""

    name: str
    kernel: str
    macs: int
    integer: bool
    reason: str = ""
    time_share: float | None = None  # of the time in all kernels (0…1), where the runtime tells times


def only_sums(weight: NDArray[Any]) -> bool:
    """Whether a depthwise convolution multiplies with nothing but 1: a pooling or a stride, spelled so.

    ``weight``: its numbers as they are stored, float or integer; 0 may fill up a block.
    """
    return bool(np.isin(weight, (0, 1)).all() and weight.any())


@dataclass(frozen=True)
class Coverage:
    """``share`` is integer MACs / all MACs of convolutions, linear layers and matrix products (0…1)."""

    layers: tuple[Layer, ...]
    # Share of the time in kernels that is spent in float ones, quantising and dequantising included (0…1),
    # and those kernels, what takes most time first; None where the runtime tells no times.
    float_time_share: float | None = None
    float_kernels: tuple[str, ...] = ()
    # How many pieces a runtime hands to its delegate of fast kernels, and how many ops of each kind stay
    # outside of it; None where a runtime has none.
    partitions: int | None = None
    outside: dict[str, int] = field(default_factory=dict)

    @property
    def total_macs(self) -> int:
        """MACs of one sample in all multiplying ops."""
        return sum(layer.macs for layer in self.layers)

    @property
    def integer_macs(self) -> int:
        """MACs of one sample in integer kernels."""
        return sum(layer.macs for layer in self.layers if layer.integer)

    @property
    def share(self) -> float:
        """Integer MACs over all MACs; 0 for a file that multiplies nothing."""
        return self.integer_macs / self.total_macs if self.total_macs else 0.0

    def floats(self) -> list[Layer]:
        """The layers that run in float, the most expensive first."""
        return sorted((layer for layer in self.layers if not layer.integer), key=lambda x: -x.macs)

    def describe(self) -> dict[str, Any]:
        """For the report: JSON."""
        return {
            "share": self.share,
            "integer_macs": self.integer_macs,
            "total_macs": self.total_macs,
            "layers": [asdict(layer) for layer in self.layers],
        }


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """Whatever a runtime raises is told as a MeasurementError."""
    try:
        yield
    except MeasurementError:
        raise
    except Exception as error:
        raise MeasurementError(
            "can't count the integer kernels", where=path.name, got=f"{type(error).__name__}: {error}"
        ) from error
