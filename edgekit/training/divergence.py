"""When a training has diverged: a loss or a weight that is no number, or a loss that has exploded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.execution import Forward, mode, spans
from edgekit.tasks import Task
from edgekit.tensors import Targets, Tensors, apply, each
from edgekit.workload import Workload

__all__ = ["Diverged", "Watch", "chance_loss", "some", "without_numbers"]

_FACTOR = 10.0  # times the usual loss
_PATIENCE = 5  # steps in a row: a single odd batch is no divergence
_LOOKED_AT, _BATCH = 4096, 64  # training samples
_FEW = 16


class Diverged(Exception):
    """What was seen, in words. Never leaves the training: it is rolled back, or becomes a StageError."""


class Watch:
    """Looks at the loss of every step, and at the weights after every epoch.

    A loss has exploded if it was more than 10 times its usual size in 5 steps in a row. Its usual size is
    that of the first step, or ``chance`` where that is larger: a model that starts as its own teacher has
    almost no loss, and a multiple of almost nothing is no explosion.

    Args:
        chance: the loss of a model that knows nothing, see ``chance_loss``.
    """

    def __init__(self, chance: float) -> None:
        self.chance = chance
        self.first: float | None = None  # the loss of the first step
        self.high = 0

    def start(self) -> None:
        """At the beginning of every epoch: what is counted doesn't reach across a checkpoint."""
        self.high = 0

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"first": self.first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.first = state["first"]

    def loss(self, value: float) -> None:
        """Look at the loss of a step. Raises Diverged."""
        if not math.isfinite(value):
            raise Diverged(f"the loss is {value}")
        if self.first is None:
            self.first = value
        limit = _FACTOR * max(self.first, self.chance)
        self.high = self.high + 1 if value > limit else 0
        if self.high >= _PATIENCE:
            raise Diverged(f"the loss is {value:.3g}, above {limit:.3g} for {_PATIENCE} steps")

    def weights(self, parameters: Iterable[Tensor]) -> None:
        """Look at the weights: a last step can break them after the last loss was seen. Raises Diverged."""
        if not all(bool(torch.isfinite(p).all()) for p in parameters):
            raise Diverged("weights are NaN or infinite at the end of the epoch")


def chance_loss(task: Task, targets: Targets, asked: Callable[[], tuple[Tensors, Targets]]) -> float:
    """The loss of a model that knows nothing, as each task says of its targets.

    Of targets that are no numbers for each output (boxes, letters) it is the loss of one and the same answer
    to everything, the mean of a model's. ``asked``: its outputs for a few samples, and their targets.
    """
    loss = 0.0
    for part in task.parts():
        own = part.target(targets)
        alone = part.task.chance_loss(own)
        if alone is None:
            outputs, wanted = asked()
            same = apply(lambda one: one.mean(0, keepdim=True).expand_as(one), part.of(outputs))
            told = float(part.task.loss(same, part.target(wanted)))
            alone = told if math.isfinite(told) else 0.0
        loss += part.weight * alone
    return loss


def some(model: nn.Module, workload: Workload, rows: Tensor) -> tuple[Tensors, Targets]:
    """A model's answers to the first few of the training samples at ``rows``, and what is right."""
    chosen = rows[:_FEW]
    with mode(model, training=False), torch.no_grad():
        answers = Forward(model)(workload.preprocessing(workload.train.inputs[chosen]))
    return answers.float(), workload.train.targets[chosen]


def without_numbers(model: nn.Module, workload: Workload, rows: Tensor) -> list[int]:
    """Rows of the training data, of the first 4096 of ``rows``, to which the answers aren't finite."""
    found: list[int] = []
    looked_at, forward = rows[:_LOOKED_AT], Forward(model)
    with mode(model, training=False), torch.inference_mode():
        for start, end in spans(len(looked_at), _BATCH):
            part = looked_at[start:end]
            answers = forward(workload.preprocessing(workload.train.inputs[part]))
            finite = [torch.isfinite(one).reshape(len(one), -1).all(1) for _, one in each(answers)]
            found += part[~torch.stack(finite).all(0)].tolist()
    return found
