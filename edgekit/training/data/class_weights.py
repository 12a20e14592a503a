"""Weights of the classes in the task's loss, for data in which some are rare."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.errors import StageError
from edgekit.tasks import Task
from edgekit.tensors import Targets

__all__ = ["balanced"]


def balanced(task: Task, targets: Targets) -> Tensor:
    """(C,) float32: N / (K * n_c) for a class with n_c of the N labels that count, K classes having any.

    Every class has the same share of the loss then (King and Zeng 2001, "Logistic Regression in Rare Events
    Data", §4), and the mean weight of a label is 1. A class without labels gets 1.

    Raises StageError if the task has no classes.
    """
    classes = task.class_count
    if classes is None or not isinstance(targets, Tensor):
        raise StageError(
            "class weights need a task with classes",
            where="training.class_weights",
            got=f'"balanced" for a {task.kind} task',
            next='set class_weights to "none"',
        )
    labels = targets.reshape(-1).long()
    labels = labels[task.counted(labels)]
    counts = torch.bincount(labels, minlength=classes).double()
    seen = counts > 0
    weights = torch.ones(classes, dtype=torch.float64)
    weights[seen] = counts.sum() / (seen.sum() * counts[seen])
    return weights.float()
