"""The loss that is trained: the task's own, the teacher's, and penalties on the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.distillation import distillation_loss
from edgekit.stages.settings import TrainingConfig
from edgekit.tasks import Task
from edgekit.training.batches import Batch

__all__ = ["Objective", "Penalty"]

Penalty = Callable[[nn.Module], Tensor]


class Objective:
    """loss = (1 - weight) * task loss + weight * distillation loss + penalty.

    Without a teacher the task loss alone; mean squared error to the teacher where there are no class scores.
    """

    def __init__(self, task: Task, config: TrainingConfig, penalty: Penalty | None = None) -> None:
        self.task, self.config, self.penalty = task, config, penalty

    def __call__(self, model: nn.Module, outputs: Tensor, batch: Batch, taught: Tensor | None) -> Tensor:
        """A scalar; ``outputs`` and ``taught`` are the student's and the teacher's answers to ``batch``."""
        loss = self._answers(outputs, batch, taught)
        return loss if self.penalty is None else loss + self.penalty(model)

    def _answers(self, outputs: Tensor, batch: Batch, taught: Tensor | None) -> Tensor:
        own = self.task.loss(outputs, batch.targets, label_smoothing=self.config.label_smoothing)
        if taught is None:
            return own
        distillation = self.config.distillation
        student, teacher = self.task.logits(outputs), self.task.logits(taught.float())
        if student is None or teacher is None:
            told = F.mse_loss(outputs, taught.float())
        else:
            told = distillation_loss(
                student, teacher, kind=distillation.loss, temperature=distillation.temperature
            )
        return (1 - distillation.weight) * own + distillation.weight * told
