"""The loss that is trained: the task's own, the teacher's, and penalties on the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgekit.config.settings import TrainingConfig
from edgekit.tasks import Task
from edgekit.training.data.batches import Batch
from edgekit.training.distillation import continuous_loss, distillation_loss

__all__ = ["Objective", "Penalty"]

Penalty = Callable[[nn.Module], Tensor]


class Objective:
    """loss = (1 - weight) * task loss + weight * distillation loss + penalty.

    Without a teacher the task loss alone. Rows of class scores are samples, pixels or tokens; those with the
    task's ``ignore_label`` (padding, void) take no part in either loss.

    Args:
        weights: (C,), how much each class counts in the task's own loss.
        labelled: False where the targets are the teacher's own answers; then its loss is all there is.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        penalty: Penalty | None = None,
        weights: Tensor | None = None,
        *,
        labelled: bool = True,
    ) -> None:
        self.task, self.config, self.penalty = task, config, penalty
        self.weights, self.labelled = weights, labelled
        self.ignored: int | None = getattr(task, "ignore_label", None) if labelled else None

    def __call__(self, model: nn.Module, outputs: Tensor, batch: Batch, taught: Tensor | None) -> Tensor:
        """A scalar; ``outputs`` and ``taught`` are the student's and the teacher's answers to ``batch``."""
        loss = self._answers(outputs, batch, taught)
        return loss if self.penalty is None else loss + self.penalty(model).to(loss.device)

    def _answers(self, outputs: Tensor, batch: Batch, taught: Tensor | None) -> Tensor:
        own = self._own(outputs, batch) if self.labelled else outputs.sum() * 0.0
        distillation = self.config.distillation
        if taught is None or distillation.loss == "none":
            return own
        weight = distillation.weight if self.labelled else 1.0
        return (1 - weight) * own + weight * self._told(outputs, batch, taught)

    def _own(self, outputs: Tensor, batch: Batch) -> Tensor:
        smoothing, weights = self.config.label_smoothing, self.weights

        def loss(targets: Tensor) -> Tensor:
            if self.ignored is not None and bool((targets == self.ignored).all()):
                return outputs.sum() * 0.0  # a mean over no labels would be NaN
            return self.task.loss(outputs, targets, label_smoothing=smoothing, weights=weights)

        return batch.task_loss(loss)

    def _told(self, outputs: Tensor, batch: Batch, taught: Tensor) -> Tensor:
        config = self.config.distillation
        student, teacher = self.task.logits(outputs), self.task.logits(taught.float())
        if student is None or teacher is None:
            return batch.task_loss(
                lambda targets: continuous_loss(
                    outputs, taught, kind=config.continuous, targets=targets, margin=config.margin
                )
            )
        targets = batch.targets.reshape(-1)
        if self.ignored is not None:
            rows = torch.nonzero(targets != self.ignored)[:, 0]
            student, teacher, targets = student[rows], teacher[rows], targets[rows]
        return distillation_loss(
            student,
            teacher,
            kind=config.loss,
            temperature=config.temperature,
            targets=targets,
            dkd=(config.dkd_alpha, config.dkd_beta),
            dist=(config.dist_inter, config.dist_intra),
        )
