"""The learning rate over the steps of a training."""

from __future__ import annotations

import math

from edgekit.config.settings import TrainingConfig

__all__ = ["lr_factor"]

# One-cycle: the share of all steps in which the rate rises, and what it begins and ends with, as parts of lr.
_RISE = 0.3
_FIRST, _LAST = 1 / 25, 1e-4


def lr_factor(config: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """What the learning rate is multiplied by at a step (counted from 0 over all epochs), 0 to 1.

    "cosine": linear from 0 over the warm-up, then a cosine to 0 (Loshchilov and Hutter 2017, "SGDR", eq. 5).
    "constant": the same warm-up, then 1. "one_cycle": from 1/25 to 1 over the first 30 % of the steps, then
    down to 1/10000, both along a cosine (Smith and Topin 2018, "Super-Convergence", §3; the momentum stays
    as it is, and ``warmup_epochs`` isn't asked, as the rise is the warm-up).
    """
    total = config.epochs * steps_per_epoch
    if config.schedule == "one_cycle":
        return _one_cycle(step, total)
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def _one_cycle(step: int, total: int) -> float:
    peak = round(_RISE * (total - 1))
    if step < peak:
        return _between(_FIRST, 1.0, step / peak)
    return _between(1.0, _LAST, (step - peak) / max(total - 1 - peak, 1))


def _between(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
