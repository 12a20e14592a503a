"""How batches, learning rate and epochs follow the size of the data: steps decide whether a training helps.

A recipe is written for tens of thousands of samples. Of 200 samples an epoch would be one batch of 128: a
model that lost half of its channels doesn't recover in a handful of steps.
"""

from __future__ import annotations

from typing import Any

from edgekit.config.settings import TrainingConfig

__all__ = ["sized", "sized_text"]

USUAL = 128  # what recipes' learning rates are meant for
SMALLEST = 8  # batch norm's statistics of fewer say little
STEPS = 25  # of an epoch, at least, where the smallest batch allows it
MOST_EPOCHS = 4  # times what is written


def sized(config: TrainingConfig, samples: int, processes: int = 1) -> TrainingConfig:
    """``config`` with numbers in place of ``batch_size: auto`` and ``min_steps``.

    The batch is the largest power of two from 8 to 128 by which an epoch has 25 steps; so from 3,200 samples
    on all is as it is written. SGD's learning rate goes with the root of the batch, as AdamW's does: the
    noise in a step of the weights stays as large as it was (Krizhevsky 2014, "One weird trick for
    parallelizing convolutional neural networks", §5). A batch that is given leaves the rate alone.

    Args:
        samples: that are trained on.
        processes: share a batch; each has two samples at least.
    """
    changes: dict[str, Any] = {"min_steps": 0}
    batch = config.batch_size
    if batch == "auto":
        batch = USUAL
        while batch > SMALLEST and samples < STEPS * batch:
            batch //= 2
        batch = changes["batch_size"] = max(batch, 2 * processes)
        if config.lr != "auto":
            changes["lr"] = config.lr * (batch / USUAL) ** 0.5 if batch < USUAL else config.lr
    steps = max(samples // min(batch, samples), 1) if samples else 1
    wanted = -(-config.min_steps // steps)
    if config.epochs:
        changes["epochs"] = max(config.epochs, min(wanted, MOST_EPOCHS * config.epochs))
    return config.model_copy(update=changes)


def sized_text(written: TrainingConfig, used: TrainingConfig, samples: int) -> str:
    """What became of the settings, in words; "" where they are as they are written, for large data."""
    told = []
    if written.batch_size == "auto" and used.batch_size != USUAL:
        rate = "" if used.lr == "auto" else f" (lr {used.lr:.2g})"
        told.append(f"batches of {used.batch_size}{rate}")
    if used.epochs != written.epochs:
        told.append(f"{used.epochs} epochs in place of {written.epochs}")
    return f"{' and '.join(told)} for {samples} samples" if told else ""
