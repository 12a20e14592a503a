"""The statistics of timings. Pure NumPy; torch is never needed here.

Runs within a round resemble each other more than runs of different rounds: another program starts, the
clock steps down. Whatever treats all runs as independent claims too much, so that the functions that take
``rounds`` resample or count whole rounds. What all rounds of a measurement share (where a process's memory
lies, the weather of the day) no statistics of it can show; two constants stand for that, found by experiment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[np.floating] | npt.NDArray[np.integer]
Rounds = Sequence[Values]

LEVEL = 0.99  # at 0.95, one of twenty comparisons of equals finds a difference
# Two processes that run the same file in turns differ a little for as long as they live (some 0.3 %), and two
# measurements at different minutes by more (2.3 % at most): seen on a virtual machine with one core loaded.
# benchmarks/aa_test.py checks that these floors are enough.
BETWEEN_PROCESSES = 0.01
BETWEEN_RECORDS = 0.03

DRIFT = 0.10  # relative change of the median, first against last window, from which a run counts as unstable
SPREAD = 0.50  # how far p90 may lie above p50
FEW = 20  # fewer samples than these say little
_BEYOND = 10  # as many samples have to lie beyond a quantile before it is told: 1,000 for p99
_ROUNDS_BEYOND = (
    4  # and they have to come from as many rounds in effect, else it is a figure of one bad round
)
_GRID = 4096


@dataclass(frozen=True)
class Interval:
    """A confidence interval; ``level`` is its coverage, 0.95 for 95 %."""

    low: float
    high: float
    level: float


@dataclass(frozen=True)
class Estimate(Interval):
    """A value, and the interval that it lies in."""

    value: float


def percentile(values: Values, q: float) -> float:
    """The q-th percentile (0…100), linear between the two nearest samples. Raises ValueError for none."""
    array = as_array(values)
    if not 0 <= q <= 100:
        raise ValueError(f"q must be within 0…100, got {q}")
    return float(np.percentile(array, q))


# --- samples by round ------------------------------------------------------------------------------------


def rounds_needed(level: float = LEVEL) -> int:
    """The fewest rounds from which ``ratio_of_rounds`` can tell an interval of this level."""
    return math.ceil(1 - math.log2(1 - _level(level)))


def ratio_of_rounds(
    numerator: Rounds, denominator: Rounds, *, level: float = LEVEL, floor: float = BETWEEN_PROCESSES
) -> Estimate:
    """Ratio of the medians of two candidates that took turns in the same rounds.

    The value is the median, over the rounds, of the ratio of their medians; what slows both down in a round
    cancels. The interval is that of the sign test (order statistics of the ratios; Conover 1999, §3.2), which
    assumes little more than that rounds are independent, widened by ``floor`` on both sides for what differs
    between two processes in all rounds.

    Args:
        numerator: its runs, round by round.
        denominator: the other's, in the same rounds.
        level: of the interval.
        floor: relative.

    Raises:
        ValueError: another number of rounds, fewer than ``rounds_needed``, or a median that isn't positive.
    """
    top, bottom = _log_medians(numerator), _log_medians(denominator)
    if len(top) != len(bottom):
        raise ValueError(f"{len(top)} rounds against {len(bottom)}: these didn't take turns")
    if len(top) < rounds_needed(level):
        raise ValueError(
            f"{len(top)} rounds can't support an interval of {level:.1%}; at least {rounds_needed(level)} can"
        )
    ordered = np.sort(top - bottom)
    low, high = _sign_interval(ordered, level)
    wider, value = math.log1p(floor), float(np.median(ordered))
    return Estimate(
        math.exp(min(low, value) - wider), math.exp(max(high, value) + wider), level, math.exp(value)
    )


def ratio_of_records(
    numerator: Rounds, denominator: Rounds, *, level: float = LEVEL, floor: float = BETWEEN_RECORDS
) -> Estimate:
    """Ratio of the p50 of two measurements that were taken apart: what changed between them counts in full.

    The intervals of both p50 are combined as by Zou and Donner (2008), on the log scale, and widened by
    ``floor`` on both sides for what differs between two times.

    Raises ValueError: fewer than two rounds, fewer samples than a p50 needs, or a p50 that isn't positive.
    """
    found = []
    for rounds in (numerator, denominator):
        p50 = quantile_of_rounds(rounds, 50, level=level)
        if p50 is None:
            raise ValueError(f"{sum(map(len, rounds))} runs in {len(rounds)} rounds can't support a p50")
        if p50.low <= 0:
            raise ValueError("the runs hold values that are not positive")
        found.append([math.log(one) for one in (p50.low, p50.value, p50.high)])
    (a_low, a, a_high), (b_low, b, b_high) = found
    wider = math.log1p(floor)
    low = a - b - math.hypot(a - a_low, b_high - b) - wider
    high = a - b + math.hypot(a_high - a, b - b_low) + wider
    return Estimate(math.exp(low), math.exp(high), level, math.exp(a - b))


def ratio_of_counts(numerator: Values, denominator: Values) -> Estimate:
    """Ratio of the medians of exact counts, such as instructions; the interval is all that was ever counted.

    Raises ValueError for counts that aren't positive.
    """
    top, bottom = as_array(numerator), as_array(denominator)
    if min(top.min(), bottom.min()) <= 0:
        raise ValueError("the counts hold values that are not positive")
    value = float(np.median(top) / np.median(bottom))
    return Estimate(float(top.min() / bottom.max()), float(top.max() / bottom.min()), 1.0, value)


def quantile_of_rounds(
    rounds: Rounds, q: float, *, level: float = LEVEL, resamples: int = 2000, seed: int = 0
) -> Estimate | None:
    """The q-th percentile of all runs, and its interval; None if it isn't supported.

    That is: if fewer than 10 runs are expected beyond it (p99 takes 1,000), or they come from fewer than four
    rounds in effect (Kish 1965), and tell how bad one round was. Whole rounds are resampled (cluster
    bootstrap; Davison and Hinkley 1997, §3.8), and the interval is expanded for their small number
    (Hesterberg 2015, §5.3); the seed fixes it.
    """
    if not 0 < q < 100:
        raise ValueError(f"q must be within 0…100, got {q}")
    parts = [np.sort(as_array(one)) for one in rounds]
    ordered = np.sort(np.concatenate(parts)) if parts else np.empty(0)
    total = len(ordered)
    if len(parts) < 2 or total * min(q, 100 - q) / 100 < _BEYOND * (1 - 1e-9):
        return None
    value = float(np.percentile(ordered, q))
    beyond = np.array([np.sum(part > value) if q > 50 else np.sum(part <= value) for part in parts])
    if beyond.sum() ** 2 < _ROUNDS_BEYOND * (beyond.astype(np.float64) ** 2).sum():
        return None
    ranks = np.unique(np.linspace(0, total - 1, min(total, _GRID)).round().astype(np.int64))
    grid = np.unique(ordered[ranks])
    # (rounds, grid): how many runs of a round are at most so long. As floats, whose product is much faster.
    below = np.stack([np.searchsorted(part, grid, side="right") for part in parts]).astype(np.float64)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(parts), np.full(len(parts), 1 / len(parts)), resamples).astype(np.float64)
    wanted = drawn @ np.array([len(part) for part in parts]) * (q / 100)
    reached = drawn @ below >= wanted[:, None] * (1 - 1e-12)
    quantiles = grid[np.argmax(reached, axis=1)]
    outside = _expanded(1 - _level(level), len(parts))
    low, high = np.quantile(quantiles, [outside / 2, 1 - outside / 2])
    return Estimate(min(float(low), value), max(float(high), value), level, value)


# --- samples taken as independent ------------------------------------------------------------------------


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
    if as_array(denominator).min() <= 0:
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
    ordered = np.sort(as_array(values))
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


# --- whether they can be relied on -----------------------------------------------------------------------


def instability(values: Values) -> str | None:
    """Why these timings, in the order in which they were taken, shouldn't be relied on; None if they may be.

    Looks for drift (first against last third: throttling, a neighbour's load), for spread, and for too few.
    """
    array = as_array(values)
    if len(array) < FEW:
        return f"only {len(array)} runs; raise benchmark.min_runs (--min-runs) to {FEW} or more"
    third = len(array) // 3
    found = drift(float(np.median(array[:third])), float(np.median(array[-third:])))
    if found is not None:
        return found
    middle, high = float(np.median(array)), percentile(array, 90)
    if middle > 0 and high / middle - 1 > SPREAD:
        return f"p90 is {high / middle:.1f} × p50 (other programs are running); close them and measure again"
    return None


def drift(first: float, last: float) -> str | None:
    """What it means that a median went from ``first`` to ``last``, and what to do; None if it is little."""
    change = last / first - 1 if first > 0 else 0.0
    if abs(change) <= DRIFT:
        return None
    if change > 0:
        return (
            f"the last third was {change:.0%} slower than the first (throttling, or another load that "
            "began); let it cool down, set `cooldown_seconds` in the device's profile, or raise "
            "benchmark.min_seconds"
        )
    return (
        f"the last third was {-change:.0%} faster than the first (another load that ended, or a clock that "
        "was still speeding up); measure again, or raise benchmark.min_seconds"
    )


# --- pieces ----------------------------------------------------------------------------------------------


def _log_medians(rounds: Rounds) -> npt.NDArray[np.float64]:
    medians = np.array([np.median(as_array(one)) for one in rounds])
    if not len(medians) or medians.min() <= 0:
        raise ValueError("no rounds, or a round whose median is not positive")
    logs: npt.NDArray[np.float64] = np.log(medians)
    return logs


def _sign_interval(ordered: npt.NDArray[np.float64], level: float) -> tuple[float, float]:
    """Interval of the median from sorted values: between the two pairs of order statistics whose levels
    enclose the wanted one (Hettmansperger and Sheather 1986).
    """
    n, k, outside = len(ordered), 0, 1.0
    while True:  # the pair (k + 1, n - k) leaves twice P(at most k of n fall below the median) outside
        inner = 2 * sum(math.comb(n, below) for below in range(k + 1)) / 2**n
        if inner > (1 - level) * (1 + 1e-9) or 2 * (k + 1) > n:
            break
        k, outside = k + 1, inner
    low, high = float(ordered[k - 1]), float(ordered[n - k])
    if 2 * (k + 1) > n:
        return low, high
    way = (1 - level - outside) / (inner - outside)
    weight = (n - k) * way / (k + (n - 2 * k) * way)
    return low + weight * (float(ordered[k]) - low), high - weight * (high - float(ordered[n - k - 1]))


def _expanded(outside: float, n: int) -> float:
    """What a percentile interval of n draws has to leave outside to leave out ``outside``, both tails."""
    z, nu = NormalDist().inv_cdf(1 - outside / 2), n - 1
    # Student's t from the normal quantile: Abramowitz and Stegun 1964, 26.7.5.
    t = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
    return 2 * NormalDist().cdf(-t * math.sqrt(n / nu))


def _ranks(uniform: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.int64]:
    return np.minimum((uniform * n).astype(np.int64), n - 1)


def _interval(medians: npt.NDArray[np.float64], level: float) -> Interval:
    outside = 1 - _level(level)
    low, high = np.quantile(medians, [outside / 2, 1 - outside / 2])
    return Interval(float(low), float(high), level)


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return level


def as_array(values: Values) -> npt.NDArray[np.float64]:
    """One axis of finite numbers. Raises ValueError."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"expected a list with at least one value, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("the values hold NaN or infinity")
    return array
