"""Confidence intervals of shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

__all__ = ["LEVEL", "Share", "difference", "share"]

LEVEL = 0.95


@dataclass(frozen=True)
class Share:
    """A share (or a difference of two shares) with its confidence interval. None of nothing."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Of a difference: whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


NOTHING = Share(None, None, None)


def share(hits: int, count: int, *, level: float = LEVEL) -> Share:
    """``hits`` of ``count`` with the score interval (Wilson 1927; Brown, Cai and DasGupta 2001, §3.1.1).

    Raises ValueError unless 0 <= hits <= count.
    """
    if not 0 <= hits <= count:
        raise ValueError(f"expected 0 <= hits <= count, got {hits} of {count}")
    if not count:
        return NOTHING
    z, p = _z(level), hits / count
    middle = p + z * z / (2 * count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    # At the ends the formula is exact, but for rounding.
    low = 0.0 if hits == 0 else (middle - half) / scale
    high = 1.0 if hits == count else (middle + half) / scale
    return Share(p, max(0.0, low), min(1.0, high))


def difference(gained: int, lost: int, count: int, *, level: float = LEVEL) -> Share:
    """(gained - lost) / count: how much a share changed on the very same samples.

    The interval is Wald's with half a sample added to each of the four cells (Agresti and Min 2005, "Simple
    improved confidence intervals for comparing matched proportions", §3).

    Args:
        gained: samples that count now and didn't before.
        lost: the other way round.
        count: all samples.

    Raises ValueError unless gained and lost are at least 0, and together at most ``count``.
    """
    if gained < 0 or lost < 0 or gained + lost > count:
        raise ValueError(f"expected gained + lost <= count, got {gained} + {lost} of {count}")
    if not count:
        return NOTHING
    more, fewer, n = gained + 0.5, lost + 0.5, count + 2
    middle = (more - fewer) / n
    half = _z(level) * math.sqrt((more + fewer) / n - middle * middle) / math.sqrt(n)
    return Share((gained - lost) / count, max(-1.0, middle - half), min(1.0, middle + half))


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    return NormalDist().inv_cdf((1 + level) / 2)
