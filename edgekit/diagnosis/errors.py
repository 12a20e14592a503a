"""Numbers instead of classes: how far answers lie from the targets, and whose errors grew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ErrorRow", "Errors", "errors"]

QUANTILES = (0.5, 0.9, 0.99, 1.0)
_MOST = 48

Values = npt.NDArray[np.floating]


@dataclass(frozen=True)
class ErrorRow:
    """A sample and its root mean square errors."""

    row: int
    before: float
    after: float


@dataclass(frozen=True)
class Errors:
    """Root mean square errors over all values; their quantiles over samples (``QUANTILES``); the samples
    whose errors grew most.
    """

    rmse_before: float
    rmse_after: float
    quantiles_before: tuple[float, ...]
    quantiles_after: tuple[float, ...]
    worse: tuple[ErrorRow, ...]


def errors(targets: Values, before: Values, after: Values) -> Errors:
    """All (N, D), N >= 1. Raises ValueError for unequal shapes."""
    if not targets.shape == before.shape == after.shape or targets.ndim != 2 or not len(targets):
        raise ValueError(f"expected equal shapes (N, D), got {targets.shape}, {before.shape}, {after.shape}")
    each = [np.sqrt(np.square(one - targets).mean(1)) for one in (before, after)]
    grown = each[1] - each[0]
    order = np.argsort(-grown, kind="stable")[:_MOST]
    return Errors(
        _root_mean_square(each[0]),
        _root_mean_square(each[1]),
        _quantiles(each[0]),
        _quantiles(each[1]),
        tuple(ErrorRow(int(i), float(each[0][i]), float(each[1][i])) for i in order if grown[i] > 0),
    )


def _root_mean_square(values: Values) -> float:
    return float(np.sqrt(np.square(values).mean()))


def _quantiles(values: Values) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(values, QUANTILES))
