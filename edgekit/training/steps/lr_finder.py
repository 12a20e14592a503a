"""``lr: auto``: the learning rate range test."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgekit.config.settings import TrainingConfig

__all__ = ["Found", "range_of", "range_test"]

STEPS = 100
_SMOOTHING = 0.9
_WORSE = 4.0  # times the usual loss: no use in going on
_SAFETY = 10.0  # the rate that is taken, below the one with the lowest loss


@dataclass(frozen=True)
class Found:
    """``lr`` is the rate to train with; the loss was lowest at ``lowest_at``; ``steps`` were tried."""

    lr: float
    lowest_at: float
    steps: int


def range_of(config: TrainingConfig) -> tuple[float, float]:
    """The rates that are tried. AdamW's steps are as long as the rate itself, SGD's as the gradient too."""
    return (1e-6, 0.1) if config.optimizer == "adamw" else (1e-5, 10.0)


def range_test(step: Callable[[float], float], low: float, high: float, *, usual: float = 0.0) -> Found:
    """Raise the learning rate from step to step, by a constant factor, until the smoothed loss explodes
    (Smith 2017, "Cyclical Learning Rates for Training Neural Networks", §3.3).

    The rate that is taken is a tenth of the one at which the smoothed loss was lowest: there the loss had
    stopped falling because steps had become too long.

    Args:
        step: trains one step at the rate it is given, and returns the loss before that step (or NaN).
        low, high: the first rate and the last one, over 100 steps.
        usual: the test ends where the smoothed loss is above 4 times its lowest value and above 4 times this.
    """
    factor = (high / low) ** (1 / (STEPS - 1))
    lowest, lowest_at, mean, tried = math.inf, low, 0.0, 0
    for index in range(STEPS):
        lr = low * factor**index
        loss = step(lr)
        tried += 1
        if not math.isfinite(loss):
            break
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        smooth = mean / (1 - _SMOOTHING**tried)
        if smooth < lowest:
            lowest, lowest_at = smooth, lr
        if smooth > _WORSE * max(lowest, usual):
            break
    return Found(max(lowest_at / _SAFETY, low), lowest_at, tried)
