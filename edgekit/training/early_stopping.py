"""Early stopping on a held-out share of the training data; validation data is never looked at."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from edgekit.config.settings import EarlyStoppingConfig
from edgekit.drawing import shuffled
from edgekit.errors import StageError
from edgekit.training.seeds import seed_of

__all__ = ["Stopper", "split"]


def split(count: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows to hold out, both ascending: (T,) and (H,), T + H = ``count``.

    Only the seed decides: every stage of a run holds out the same samples, so that a later stage isn't
    judged by what an earlier one was trained on.

    Raises StageError if too little is left on either side.
    """
    held = round(share * count)
    if held < 1 or count - held < 2:
        raise StageError(
            "too few training samples to hold some out",
            where="training.early_stopping.held_out",
            got=f"{share:g} of {count} samples",
            expected="at least 1 sample held out and 2 to train on",
            next="set early_stopping to null, or another held_out",
        )
    order = shuffled(count, seed_of(seed, "", 0, "held-out"))
    return order[held:].sort().values, order[:held].sort().values


class Stopper:
    """Remembers the best epoch, and says when to stop (Prechelt 1998, "Early Stopping - But When?")."""

    def __init__(self, config: EarlyStoppingConfig) -> None:
        self.config = config
        self.epoch, self.score, self.waited = 0, float("-inf"), 0
        self.best: dict[str, Any] = {}

    @property
    def is_over(self) -> bool:
        """Whether the patience is at an end."""
        return self.waited >= self.config.patience

    def see(self, epoch: int, score: float, model: nn.Module) -> None:
        """After an epoch (counted from 1): the held-out score, and the model that has it.

        Of equal scores the earlier one counts.
        """
        if score > self.score + (self.config.min_delta if self.epoch else 0.0):
            self.epoch, self.score, self.waited = epoch, score, 0
            state = model.state_dict()
            self.best = {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in state.items()}
        else:
            self.waited += 1

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"epoch": self.epoch, "score": self.score, "waited": self.waited, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.epoch, self.score, self.waited = state["epoch"], state["score"], state["waited"]
        self.best = state["best"]
