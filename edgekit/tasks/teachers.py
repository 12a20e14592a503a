"""Several teachers' answers as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["averaged"]


def averaged(answers: Sequence[Tensor], class_dim: int | None) -> Tensor:
    """What the teachers say together, in the form of a single one's outputs.

    Class scores: the logarithm of the arithmetic mean of their probabilities (Hinton, Vinyals and Dean 2015,
    §1: an ensemble's answer is the average of its members'). Probabilities have one scale, so no
    teacher counts more because its logits are larger; and a softmax of the result gives the mean back.
    Numbers: their mean. One teacher's answers stay as they are, bit for bit.

    Args:
        answers: at least one, each (N, …), of one shape.
        class_dim: where the classes are; None for numbers.
    """
    if len(answers) == 1:
        return answers[0]
    stacked = torch.stack([answer.float() for answer in answers])
    if class_dim is None:
        return stacked.mean(0)
    # The new first dimension moves the classes by one, unless they are counted from the end.
    dim = class_dim if class_dim < 0 else class_dim + 1
    return F.log_softmax(stacked, dim=dim).logsumexp(0) - math.log(len(answers))
