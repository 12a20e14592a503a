"""The distillation losses: how far the student's class scores are from the teacher's."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["distillation_loss", "standardize"]

# Smallest variance of a row that still counts as spread; below it the row is constant.
_MIN_VARIANCE = 1e-12


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    kind: Literal["standardized", "classical", "none"],
    temperature: float,
) -> Tensor:
    """Kullback-Leibler divergence KL(teacher ‖ student) of softened class probabilities, a scalar.

    Args:
        student_logits: (N, C); gradients flow to it.
        teacher_logits: (N, C), detached by the caller.
        kind: "classical" is Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network",
            §2. "standardized" is Sun et al. 2024, "Logit Standardization in Knowledge Distillation", §4: both
            sides are z-scored first, so that the student learns the teacher's ranking and relations, not its
            scale. "none" is 0.
        temperature: softens both sides, > 0. The T² factor keeps the gradient's size (Hinton et al., §2).

    With two classes a z-score keeps nothing but the sign, and its gradient is zero: "standardized" then is
    "classical".

    Raises:
        ValueError: shapes differ or aren't (N, C), the kind is unknown, or the temperature isn't positive.
    """
    if student_logits.dim() != 2 or student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"logits must be (N, C) on both sides, got {tuple(student_logits.shape)} for the student "
            f"and {tuple(teacher_logits.shape)} for the teacher"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
    student, teacher = student_logits.float(), teacher_logits.float()
    if kind == "none":
        return student.new_zeros(())
    if kind not in ("standardized", "classical"):
        raise ValueError(f"unknown distillation loss {kind!r}")
    if kind == "standardized" and student.shape[1] > 2:
        student, teacher = standardize(student), standardize(teacher)
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


def standardize(logits: Tensor) -> Tensor:
    """Each row of (N, C) with mean 0 and standard deviation 1 (population form, as in the paper's eq. 10).

    A constant row becomes zeros, with gradient 0 instead of the NaN that a square root at 0 would give.
    """
    centered = logits - logits.mean(dim=1, keepdim=True)
    variance = centered.square().mean(dim=1, keepdim=True)
    return centered * torch.rsqrt(variance.clamp_min(_MIN_VARIANCE))
