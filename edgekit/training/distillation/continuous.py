"""The distillation losses for numbers: regression and reconstruction."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["continuous_loss"]


def continuous_loss(
    outputs: Tensor,
    taught: Tensor,
    *,
    kind: Literal["mse", "bounded"],
    targets: Tensor | None = None,
    margin: float = 0.0,
) -> Tensor:
    """How far the student's numbers are from what they should be, a scalar, computed in float32.

    Args:
        outputs: (N, …); gradients flow to it.
        taught: (N, …), the teacher's.
        kind: "mse" is the mean squared error to the teacher, in the same units as the task's own loss.
            "bounded" is Chen et al. 2017, "Learning Efficient Object Detection Models with Knowledge
            Distillation", §3.3: the squared error to the *targets* of those samples alone in which the
            student is worse than the teacher (by ``margin``). A teacher can be wrong without bound, unlike
            one that gives probabilities; so it is no goal, but a mark to be passed.
        targets: (N, …), what is right; needed for "bounded".
        margin: squared error per sample that the student must be better by before it is left alone.

    Raises:
        ValueError: shapes that differ, or no targets where they are needed.
    """
    student, teacher = outputs.float(), taught.float()
    if student.shape != teacher.shape:
        raise ValueError(f"outputs {tuple(student.shape)}, teacher's {tuple(teacher.shape)}")
    if kind == "mse":
        return (student - teacher).square().mean()
    if targets is None or targets.shape != student.shape:
        raise ValueError(f"bounded needs targets of shape {tuple(student.shape)}")
    own, bound = _errors(student, targets), _errors(teacher, targets)
    return torch.where(own + margin > bound, own, torch.zeros_like(own)).mean()


def _errors(values: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of each sample: (N,)."""
    return (values - targets.float()).square().reshape(len(values), -1).mean(1)
