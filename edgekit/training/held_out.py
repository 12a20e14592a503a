"""Which training samples are held out: to stop early, or to compare a training's end with its start."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from edgekit.config.settings import TrainingConfig
from edgekit.training.early_stopping import split

__all__ = ["HeldOut", "held_out"]

SHARE, MOST = 0.1, 512  # of the training samples; samples
FEWEST = 10  # fewer judge nothing


class HeldOut(NamedTuple):
    """``trained``: rows that are trained on, None for all. ``judged``: rows that judge, None where nothing
    does. ``apart``: none of these is trained on; else there were too few samples to hold some out.
    """

    trained: Tensor | None
    judged: Tensor | None
    apart: bool = True

    def trained_of(self, count: int) -> Tensor:
        """The rows that are trained on, of ``count`` in all."""
        return torch.arange(count) if self.trained is None else self.trained


def held_out(count: int, config: TrainingConfig, seed: int, *, floor: bool) -> HeldOut:
    """What of ``count`` samples is held out: early stopping's share, else for the floor a tenth, 512 at most.

    Of less than 100 samples none is given up for the floor: it is judged on what is trained on.
    Only the seed decides, and the smaller share is part of the larger one (see ``split``).

    Raises:
        StageError: early stopping would leave too little.
    """
    if config.early_stopping is not None:
        return HeldOut(*split(count, config.early_stopping.held_out, seed))
    if not (floor and config.floor):
        return HeldOut(None, None)
    number = min(MOST, int(count * SHARE))
    if number < FEWEST:
        return HeldOut(None, torch.arange(count), apart=False)
    return HeldOut(*split(count, number / count, seed))
