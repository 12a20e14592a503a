"""Why a training can't go on, each as the error that says it."""

from __future__ import annotations

from typing import Any

from edgekit.config.settings import TrainingConfig
from edgekit.errors import StageError

__all__ = ["diverged_twice", "no_gradient", "no_numbers"]


def no_gradient(stage: str) -> StageError:
    """No weight has a part in the loss."""
    return StageError(
        "nothing in the model learns",
        where=f"stage {stage}",
        got="a loss without gradients",
        expected="an output that comes from trainable weights with gradients recorded",
        next="take torch.no_grad() and detach() out of forward(), or set training.epochs to 0",
    )


def no_numbers(where: str, rows: list[int]) -> StageError:
    """The model's answers to these rows of the training data are NaN or infinite, before a step is made."""
    count = f"{len(rows)} sample{'' if len(rows) == 1 else 's'}"
    return StageError(
        "the model's answers to training samples are no numbers, whatever the learning rate",
        where=where,
        got=f"NaN or infinity for {count}, the first in row {rows[0]}",
        expected="finite answers to every training sample",
        next="look for a division by what can be 0 (a norm written by hand, on a silent sample): leave such "
        "samples out, or set training.epochs of this stage to 0",
    )


def diverged_twice(
    where: str, seen: str, first: dict[str, Any], lr: float, config: TrainingConfig
) -> StageError:
    """``first``: of the roll-backs; ``lr``: the peak at last."""
    return StageError(
        "the training diverged twice",
        where=where,
        got=f"{seen}; before, at twice the learning rate, in epoch {first['epoch']} ({first['seen']})",
        expected="a finite loss that doesn't explode",
        next=f"lower lr (last {lr:g}) by a factor of 3 to 10, or raise warmup_epochs "
        f"(now {config.warmup_epochs:g})" + ("" if config.gradient_clip else ", or set gradient_clip"),
    )
