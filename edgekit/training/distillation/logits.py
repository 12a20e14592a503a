"""The distillation losses for class scores: how far the student's are from the teacher's.

A row is whatever is classified: a sample, a pixel, a token.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Kind", "dist_loss", "distillation_loss", "dkd_loss", "standardize"]

Kind = Literal["standardized", "classical", "dkd", "dist", "none"]

# Smallest variance of a row that still counts as spread; below it the row is constant.
_MIN_VARIANCE = 1e-12


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    kind: Kind,
    temperature: float,
    targets: Tensor | None = None,
    dkd: tuple[float, float] = (1.0, 8.0),
    dist: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """The distance between two sides' class scores, a scalar, computed in float32.

    Args:
        student_logits: (N, C); gradients flow to it.
        teacher_logits: (N, C), detached by the caller.
        kind: "classical" is Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network",
            §2: KL(teacher ‖ student) of softened probabilities. "standardized" is Sun et al. 2024, "Logit
            Standardization in Knowledge Distillation", §4: both sides are z-scored first, so that the student
            learns the teacher's ranking and relations, not its scale. "dkd": see ``dkd_loss``. "dist": see
            ``dist_loss``. "none" is 0.
        temperature: softens both sides, > 0. The T² factor keeps the gradient's size (Hinton et al., §2).
        targets: (N,) labels for "dkd"; None takes the teacher's own answers.
        dkd: weights of the target class and of the others.
        dist: weights of the relations between classes, and within them.

    With two classes a z-score keeps nothing but the sign, and its gradient is zero: "standardized" then is
    "classical". Without rows the loss is 0.

    Raises:
        ValueError: shapes differ or aren't (N, C), the kind is unknown, or the temperature isn't positive.
    """
    _check(student_logits, teacher_logits, temperature)
    student, teacher = student_logits.float(), teacher_logits.float()
    if kind == "none":
        return student.new_zeros(())
    if len(student) == 0:
        return student.sum()
    if kind == "dkd":
        return dkd_loss(student, teacher, targets, alpha=dkd[0], beta=dkd[1], temperature=temperature)
    if kind == "dist":
        return dist_loss(student, teacher, inter=dist[0], intra=dist[1], temperature=temperature)
    if kind not in ("standardized", "classical"):
        raise ValueError(f"unknown distillation loss {kind!r}")
    if kind == "standardized" and student.shape[1] > 2:
        student, teacher = standardize(student), standardize(teacher)
    return _divergence(student, teacher, temperature)


def dkd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float,
) -> Tensor:
    """Decoupled distillation, a scalar: ``alpha`` times the divergence in whether it is the target class,
    ``beta`` times that among the other classes (Zhao et al. 2022, "Decoupled Knowledge Distillation", eq. 7).

    The classical loss is this one with alpha 1 and, row by row, beta = the teacher's probability of the
    other classes (eq. 6): the surer a teacher, the less the student hears about them. Here it hears it
    always. The default weights are those of the paper for CIFAR-100.

    Args:
        student_logits, teacher_logits: (N, C), C ≥ 2; with two classes the second part is 0.
        targets: (N,) labels; None takes the teacher's own answers.
        alpha, beta: weights.
        temperature: as in ``distillation_loss``, with the same T² factor.

    Raises:
        ValueError: shapes that don't fit, or a temperature that isn't positive.
    """
    _check(student_logits, teacher_logits, temperature)
    student, teacher = student_logits.float() / temperature, teacher_logits.float() / temperature
    labels = teacher.argmax(1) if targets is None else targets
    if labels.shape != student.shape[:1]:
        raise ValueError(f"targets must be ({len(student)},), got {tuple(labels.shape)}")
    others = F.one_hot(labels.long(), student.shape[1]) == 0
    sides = []
    for logits in (student, teacher):
        rest = logits[others].reshape(len(logits), -1)  # (N, C - 1)
        hit = logits.gather(1, labels[:, None].long())[:, 0]
        sides.append((torch.stack([hit, rest.logsumexp(1)], 1), rest))
    (s_binary, s_rest), (t_binary, t_rest) = sides
    among_all = _divergence(s_binary, t_binary, 1.0)  # softened already
    among_others = _divergence(s_rest, t_rest, 1.0)
    return (alpha * among_all + beta * among_others) * temperature**2


def dist_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    inter: float = 1.0,
    intra: float = 1.0,
    temperature: float,
) -> Tensor:
    """One minus Pearson's correlation of the softened probabilities, a scalar (Huang et al. 2022, "Knowledge
    Distillation from A Stronger Teacher", §4).

    ``inter`` weighs the correlation over the classes of a row, ``intra`` that over the rows of a class. What
    is learned are relations, not values, which a small student can't match. There is no T² factor: a
    correlation has no scale.

    Args:
        student_logits, teacher_logits: (N, C). A row or column that is constant on either side correlates 0.
        inter, intra: weights.
        temperature: softens both sides.

    Raises:
        ValueError: shapes that don't fit, or a temperature that isn't positive.
    """
    _check(student_logits, teacher_logits, temperature)
    student = F.softmax(student_logits.float() / temperature, dim=1)
    teacher = F.softmax(teacher_logits.float() / temperature, dim=1)
    between = 1 - _correlation(student, teacher).mean()
    within = 1 - _correlation(student.T, teacher.T).mean()
    return inter * between + intra * within


def standardize(logits: Tensor) -> Tensor:
    """Each row of (N, C) with mean 0 and standard deviation 1 (population form, as in the paper's eq. 10).

    A constant row becomes zeros, with gradient 0 instead of the NaN that a square root at 0 would give.
    """
    centered = logits - logits.mean(dim=1, keepdim=True)
    variance = centered.square().mean(dim=1, keepdim=True)
    return centered * torch.rsqrt(variance.clamp_min(_MIN_VARIANCE))


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher ‖ student) of rows of scores, mean over the rows, times T²."""
    divergence = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation of each row of (N, C) with the same row of the other side: (N,)."""
    return (standardize(one) * standardize(other)).mean(1)


def _check(student: Tensor, teacher: Tensor, temperature: float) -> None:
    if student.dim() != 2 or student.shape != teacher.shape:
        raise ValueError(
            f"logits must be (N, C) on both sides, got {tuple(student.shape)} for the student "
            f"and {tuple(teacher.shape)} for the teacher"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")
