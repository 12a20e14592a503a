"""Whether timings by round can be relied on: jumps between two levels, drift, spread, too few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgekit.bench import stats

Sensors = Sequence[Mapping[str, float]]

LEVELS = 0.10  # how far apart two levels of the rounds' medians may lie
CLOCK = 0.05  # relative change of the clock that explains a drift


def instability_of_rounds(rounds: stats.Rounds, sensors: Sensors = ()) -> str | None:
    """As ``stats.instability``, for runs by round: also tells when the rounds jump between two levels, and
    when the device itself says that it was throttled.

    A slow-down that stays (throttling) is told apart from jumps to and fro (cores of two kinds, a neighbour
    that comes and goes) by how often the level changes.

    Args:
        rounds: runs, round by round, in the order in which they were taken.
        sensors: what the device's sensors said in each of them, as in ``Result.sensors``; may be empty.
    """
    held = [one for one in sensors if one.get("throttled")]
    if held:
        return (
            f"the device says that it was throttled in {len(held)} of {len(sensors)} rounds{_heat(held)}; "
            "let it cool down, look at its power supply, or set `temperature_limit_celsius` and "
            "`cooldown_seconds` in its profile"
        )
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
        found = stats.drift(*_ends(medians, third))
        if found is not None:
            return found + _clock(sensors)
    return stats.instability([value for one in rounds for value in one])


def _ends(values: npt.NDArray[np.float64], third: int) -> tuple[float, float]:
    return float(np.median(values[:third])), float(np.median(values[-third:]))


def _heat(held: Sensors) -> str:
    degrees = [one["temperature_celsius"] for one in held if "temperature_celsius" in one]
    return f", at up to {max(degrees):.0f} °C" if degrees else ""


def _clock(sensors: Sensors) -> str:
    """What the clock did meanwhile, where the device tells it."""
    clocks = np.array([one["frequency_khz"] for one in sensors if "frequency_khz" in one])
    if len(clocks) < 6:
        return ""
    first, last = _ends(clocks, len(clocks) // 3)
    if abs(last - first) < CLOCK * first:
        return "; its clock stayed the same, so look for another load"
    return f"; its clock went from {first / 1e6:.2f} to {last / 1e6:.2f} GHz"


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
