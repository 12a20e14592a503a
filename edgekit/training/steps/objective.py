"""The loss that is trained: the task's own, the teacher's, and penalties on the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekit.config.settings import DistillationConfig, TrainingConfig
from edgekit.tasks import Task
from edgekit.tasks.base import Part
from edgekit.tensors import Targets, Tensors, each
from edgekit.training.data.batches import Batch
from edgekit.training.distillation import continuous_loss, distillation_loss

__all__ = ["Objective", "Penalty"]

Penalty = Callable[[nn.Module], Tensor]


class Objective:
    """loss = (1 - weight) * task loss + weight * distillation loss + penalty; summed over outputs of several.

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

    def __call__(self, model: nn.Module, outputs: Tensors, batch: Batch, taught: Tensors | None) -> Tensor:
        """A scalar; ``outputs`` and ``taught`` are the student's and the teacher's answers to ``batch``."""
        losses = [
            part.weight
            * self._answers(part, part.of(outputs), batch, None if taught is None else part.of(taught))
            for part in self.task.parts()
        ]
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        return loss if self.penalty is None else loss + self.penalty(model).to(loss.device)

    def _answers(self, part: Part, outputs: Tensors, batch: Batch, taught: Tensors | None) -> Tensor:
        own = self._own(part, outputs, batch) if self.labelled else _nothing(outputs)
        distillation = self.config.distillation
        if taught is None or distillation.loss == "none":
            return own
        weight = distillation.weight if self.labelled else 1.0
        return (1 - weight) * own + weight * self._told(part, outputs, batch, taught)

    def _own(self, part: Part, outputs: Tensors, batch: Batch) -> Tensor:
        smoothing, weights = self.config.label_smoothing, self.weights

        def loss(all_targets: Targets) -> Tensor:
            targets = part.target(all_targets)
            if self.labelled and isinstance(targets, Tensor) and not part.task.counts(targets):
                return _nothing(outputs)  # a mean over no labels would be NaN
            return part.task.loss(outputs, targets, label_smoothing=smoothing, weights=weights)

        return batch.task_loss(loss)

    def _told(self, part: Part, outputs: Tensors, batch: Batch, taught: Tensors) -> Tensor:
        losses = _TeacherLosses(self.config.distillation, part, batch)
        targets = part.target(batch.targets)
        # Targets of unequal number (letters, at places that nobody knows) are no labels of single rows.
        own = targets if isinstance(targets, Tensor) else None
        return part.task.teacher_loss(outputs, taught, own, losses, labelled=self.labelled)


def _nothing(outputs: Tensors) -> Tensor:
    """0, of which the outputs have a gradient."""
    return torch.stack([one.sum() * 0.0 for _, one in each(outputs)]).sum()


@dataclass(frozen=True)
class _TeacherLosses:
    """Those that the recipe names, for one output of a batch."""

    config: DistillationConfig
    part: Part
    batch: Batch

    def scores(self, student: Tensor, teacher: Tensor, labels: Tensor | None) -> Tensor:
        config = self.config
        return distillation_loss(
            student,
            teacher,
            kind=config.loss,
            temperature=config.temperature,
            targets=labels,
            dkd=(config.dkd_alpha, config.dkd_beta),
            dist=(config.dist_inter, config.dist_intra),
        )

    def numbers(self, student: Tensor, teacher: Tensor) -> Tensor:
        config, part = self.config, self.part
        return self.batch.task_loss(
            lambda targets: continuous_loss(
                student,
                teacher,
                kind=config.continuous,
                targets=part.target(targets) if config.continuous == "bounded" else None,
                margin=config.margin,
            )
        )
