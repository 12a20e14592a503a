"""One teacher or several: what they answer together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from edgekit.tasks import Task
from edgekit.tensors import NamedTensors, Tensors
from edgekit.training.computing.device import CPU
from edgekit.training.data.batches import Batch
from edgekit.training.teachers.teacher import FastForms, Teacher

__all__ = ["Teachers"]


class Teachers:
    """Answers like a single ``Teacher``; several answers are averaged (see ``Task.together``).

    Args:
        models: the original model first; it is the one whose feature maps are looked at.
        task: says what they answer together.
        precision: in which they compute.
        device: where.
        watched: layers of the original model that are looked into.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        task: Task,
        precision: torch.autocast,
        device: torch.device = CPU,
        watched: Sequence[str] = (),
    ) -> None:
        first, *others = models
        self.each = [
            Teacher(first, precision, device, watched),
            *(Teacher(model, precision, device) for model in others),
        ]
        self.task = task

    @property
    def features(self) -> list[Tensor]:
        """Of the layers that are looked into, for the last batch."""
        return self.each[0].features

    def prepare(self, example: Tensors, wanted: FastForms) -> str:
        """See ``Teacher.prepare``; what was found in the way of any of them."""
        return next(filter(None, [one.prepare(example, wanted) for one in self.each]), "")

    def remember(self, count: int, inputs: Callable[[int, int], Tensors], batch_size: int) -> None:
        """See ``Teacher.remember``."""
        for one in self.each:
            one.remember(count, inputs, batch_size)

    def __call__(self, batch: Batch) -> Tensors:
        """Their outputs for the inputs of the batch, outside of inference mode."""
        answers = [one(batch) for one in self.each]
        together = {
            part.name: part.task.together([part.of(one) for one in answers]) for part in self.task.parts()
        }
        return together[""] if "" in together else NamedTensors(together)
