"""The learning rate over the steps of a training."""

from __future__ import annotations

import math

from edgekit.stages.settings import TrainingConfig

__all__ = ["lr_factor"]


def lr_factor(config: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """What ``config.lr`` is multiplied by at a step (counted from 0 over all epochs).

    Linear from 0 over the warm-up, then a cosine to 0 (Loshchilov and Hutter 2017, "SGDR", eq. 5).
    """
    total = config.epochs * steps_per_epoch
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
