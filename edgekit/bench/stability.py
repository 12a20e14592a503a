"""Whether timings by round can be relied on: jumps between two levels, drift, spread, too few."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.bench import stats

LEVELS = 0.10  # how far apart two levels of the rounds' medians may lie


def instability_of_rounds(rounds: stats.Rounds) -> str | None:
    """As ``instability``, for runs by round: also tells when the rounds jump between two levels.

    A slow-down that stays (throttling) is told apart from jumps to and fro (cores of two kinds, a neighbour
    that comes and goes) by how often the level changes.
    """
    medians = np.array([np.median(stats.as_array(one)) for one in rounds])
    levels = _two_levels(medians)
    if levels is not None:
        low, high, slow = levels
        return (
            f"the rounds jump between two levels, {slow} of {len(medians)} are {high / low - 1:.0%} slower "
            "(cores of two kinds, or a program that comes and goes); set `affinity` in the device's profile, "
            "or close other programs"
        )
    third = len(medians) // 3
    if third >= 2:
        first, last = float(np.median(medians[:third])), float(np.median(medians[-third:]))
        found = stats.drift(first, last)
        if found is not None:
            return found
    return stats.instability([value for one in rounds for value in one])


def _two_levels(medians: npt.NDArray[np.float64]) -> tuple[float, float, int] | None:
    """Lower and higher level, and how many rounds are at the higher; None if there is one level.

    Two levels: split at the widest gap, a fifth of the rounds lies on either side, the gap takes up most of
    the way from one level to the other, and the rounds cross it three times or more.
    """
    if len(medians) < 6 or medians.min() <= 0:
        return None
    ordered = np.sort(medians)
    cut = int(np.argmax(np.diff(ordered))) + 1
    fewer = min(cut, len(ordered) - cut)
    low, high = float(np.median(ordered[:cut])), float(np.median(ordered[cut:]))
    gap = ordered[cut] - ordered[cut - 1]
    crossings = int(np.count_nonzero(np.diff(medians >= ordered[cut])))
    if high / low - 1 > LEVELS and fewer >= len(ordered) / 5 and gap > (high - low) / 2 and crossings >= 3:
        return low, high, len(ordered) - cut
    return None
