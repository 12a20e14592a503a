"""The statistics of timings. Pure NumPy; torch is never needed here.

Intervals say how far a median may be off because of the samples' own scatter inside one run. They don't cover
what changes between two runs (another clock speed, another memory layout, another day).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[np.floating] | npt.NDArray[np.integer]

DRIFT = 0.10  # relative change of the median, first against last window, from which a run counts as unstable
SPREAD = 0.50  # how far p90 may lie above p50
FEW = 20  # fewer samples than these say little


@dataclass(frozen=True)
class Interval:
    """A confidence interval; ``level`` is its coverage, 0.95 for 95 %."""

    low: float
    high: float
    level: float


def percentile(values: Values, q: float) -> float:
    """The q-th percentile (0…100), linear between the two nearest samples. Raises ValueError for none."""
    array = _array(values)
    if not 0 <= q <= 100:
        raise ValueError(f"q must be within 0…100, got {q}")
    return float(np.percentile(array, q))


def p50_interval(values: Values, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of the median (Efron and Tibshirani 1993, §13.3); the seed fixes it."""
    medians = bootstrap_medians(values, resamples, np.random.default_rng(seed))
    return _interval(medians, level)


def ratio_interval(
    numerator: Values, denominator: Values, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Bootstrap interval of median(numerator) / median(denominator): both are resampled, independently.

    Raises ValueError for a denominator that isn't positive throughout.
    """
    if _array(denominator).min() <= 0:
        raise ValueError("the denominator holds values that are not positive")
    rng = np.random.default_rng(seed)
    top = bootstrap_medians(numerator, resamples, rng)
    return _interval(top / bootstrap_medians(denominator, resamples, rng), level)


def bootstrap_medians(values: Values, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Medians of bootstrap resamples: (resamples,), drawn without building the resamples.

    A resample of n values is n uniform draws of a rank, so that its k-th smallest value is the sorted values'
    at floor(n·U), where U, the k-th smallest of n uniform numbers, is Beta(k, n - k + 1) distributed (David
    and Nagaraja 2003, §2.1). That makes ten thousand timings as cheap as ten.
    """
    ordered = np.sort(_array(values))
    n = len(ordered)
    k = (n + 1) // 2
    uniform = rng.beta(k, n - k + 1, resamples)
    lower = ordered[_ranks(uniform, n)]
    if n % 2:
        return lower
    # The next one up is the smallest of the n - k numbers that are left between U and 1.
    uniform = uniform + (1 - uniform) * rng.beta(1, n - k, resamples)
    # Not (a + b) / 2, which may round to a value outside of [a, b].
    return lower + (ordered[_ranks(uniform, n)] - lower) / 2


def instability(values: Values) -> str | None:
    """Why these timings, in the order in which they were taken, shouldn't be relied on; None if they may be.

    Looks for drift (first against last third: throttling, a neighbour's load), for spread, and for too few.
    """
    array = _array(values)
    if len(array) < FEW:
        return f"only {len(array)} runs; raise benchmark.min_runs to {FEW} or more"
    third = len(array) // 3
    first, last = float(np.median(array[:third])), float(np.median(array[-third:]))
    drift = last / first - 1 if first > 0 else 0.0
    if abs(drift) > DRIFT:
        word = "slower" if drift > 0 else "faster"
        return (
            f"the last third was {abs(drift):.0%} {word} than the first (throttling, or another load on the "
            "machine); let it cool down and raise benchmark.min_seconds"
        )
    middle, high = float(np.median(array)), percentile(array, 90)
    if middle > 0 and high / middle - 1 > SPREAD:
        return f"p90 is {high / middle:.1f} × p50 (other programs are running); close them and measure again"
    return None


def _ranks(uniform: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.int64]:
    return np.minimum((uniform * n).astype(np.int64), n - 1)


def _interval(medians: npt.NDArray[np.float64], level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)


def _array(values: Values) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected a list with at least one value, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("the values hold NaN or infinity")
    return array
