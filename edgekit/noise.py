"""Signal-to-noise ratios of tensors that come in parts: sums are kept, values are not."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EXACT_DB", "Noise", "decibels"]

EXACT_DB = 200.0  # said of equal numbers, whose ratio has no logarithm
_CHUNK = 1 << 20  # elements that are float64 at once

Values = Tensor | NDArray[Any]


class Noise:
    """Sums of squares of a signal and of what differs from it, in float64: over all, by channel, by sample.

    ``axis``: of the channels, counted with the samples' one; None where there are none.
    """

    def __init__(self, axis: int | None = 1) -> None:
        self.axis = axis
        self.samples: list[tuple[Tensor, Tensor]] = []  # of each part, (N,): signal and noise
        self.channels: tuple[Tensor, Tensor] | None = None  # (C,)
        self.largest = 0.0  # difference of two values

    def add(self, reference: Values, value: Values) -> None:
        """Take a part: (N, …) as it should be, and as it is. Raises ValueError for unequal shapes."""
        wanted, got = (torch.as_tensor(part).detach().cpu() for part in (reference, value))
        if wanted.shape != got.shape or wanted.dim() == 0:
            raise ValueError(f"expected parts (N, …) of one shape, got {wanted.shape} and {got.shape}")
        by_channel = self.axis is not None and wanted.dim() > self.axis
        per_sample = max(1, wanted[:1].numel())
        for one, other in zip(
            *(part.split(max(1, _CHUNK // per_sample)) for part in (wanted, got)), strict=True
        ):
            self._add(one.double(), other.double(), self.axis if by_channel else None)

    def _add(self, wanted: Tensor, got: Tensor, axis: int | None) -> None:
        lacks = got - wanted
        if lacks.numel():
            self.largest = max(self.largest, float(lacks.abs().max().nan_to_num(math.inf)))
        rest = [dim for dim in range(1, wanted.dim()) if dim != axis]
        sums = tuple(part.square_().sum(rest) if rest else part.square_() for part in (wanted.clone(), lacks))
        if axis is not None:  # (N, C) each
            both = tuple(part.sum(0) for part in sums)
            before = self.channels or (torch.zeros_like(both[0]), torch.zeros_like(both[1]))
            self.channels = (before[0] + both[0], before[1] + both[1])
            sums = tuple(part.sum(1) for part in sums)
        self.samples.append((sums[0], sums[1]))

    @property
    def db(self) -> float:
        """Of all values together, at most ``EXACT_DB`` either way."""
        signal, noise = (float(part.sum()) for part in self._by_sample())
        return decibels(signal, noise)

    def by_channel(self, *, silent: bool = True) -> list[float]:
        """Of each channel over all samples; empty where there are none. ``silent``: those without a signal
        too.
        """
        return _each(*self.channels, silent) if self.channels is not None else []

    def by_sample(self, *, silent: bool = True) -> list[float]:
        """Of each sample, in the order in which they were added. ``silent``: those without a signal too."""
        return _each(*self._by_sample(), silent)

    def _by_sample(self) -> tuple[Tensor, Tensor]:
        if not self.samples:
            return torch.zeros(0).double(), torch.zeros(0).double()
        signal, noise = zip(*self.samples, strict=True)
        return torch.cat(signal), torch.cat(noise)


def decibels(signal: float, noise: float) -> float:
    """The ratio of two sums of squares in decibels, from -``EXACT_DB`` to ``EXACT_DB``; 0 for no signal, or
    the lowest for noise that is no number.
    """
    if not math.isfinite(noise):
        return -EXACT_DB
    if noise == 0:
        return EXACT_DB
    if signal == 0:
        return 0.0
    return max(-EXACT_DB, min(EXACT_DB, 10 * math.log10(signal / noise)))


def _each(signal: Tensor, noise: Tensor, silent: bool) -> list[float]:
    pairs = zip(signal.tolist(), noise.tolist(), strict=True)
    return [decibels(one, other) for one, other in pairs if silent or one]
