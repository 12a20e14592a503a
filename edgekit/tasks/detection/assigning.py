"""Which of a head's many answers is to learn which object."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from edgekit.tasks.detection.boxes import centres, pairwise_iou

__all__ = ["Assigned", "align"]

_LEAST = 0.05  # IoU: less counts as this much, so that objects that nothing covers yet are learnt, too


class Assigned(NamedTuple):
    """By sample and place, what an answer has to learn.

    object: (N, A) int64, which of the sample's objects; -1 for background.
    score: (N, A, C), what its class scores should be: 0 but for the object's class.
    """

    object: Tensor
    score: Tensor

    @property
    def weight(self) -> Tensor:
        """(N, A): how much a place's box counts."""
        return self.score.sum(2)


@torch.no_grad()
def align(
    scores: Tensor,
    boxes: Tensor,
    points: Tensor,
    wanted: Tensor,
    labels: Tensor,
    mask: Tensor,
    *,
    candidates: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assigned:
    """Task-aligned assignment (TOOD; Feng et al. 2021, arXiv 2108.07755, section 3.2).

    An object goes to the ``candidates`` places inside of it with the best score^alpha * IoU^beta, a place
    that several want to the object that it overlaps most. What a place's score should be is that product,
    scaled so that the best place of an object gets the IoU of the object's best box. Other
    than in the paper, an object in which there is no place has the one that is nearest to its middle (small
    things between coarse places), and an IoU counts as 0.05 at least.

    Args:
        scores: (N, A, C), 0…1. boxes: (N, A, 4). points: (A, 2). What the model answers now, and where.
        wanted: (N, G, 4). labels: (N, G) int64. mask: (N, G) bool, which of them are objects.
    """
    count, places, classes = scores.shape
    if not wanted.shape[1]:
        none = torch.full((count, places), -1, dtype=torch.int64, device=scores.device)
        return Assigned(none, torch.zeros_like(scores))
    overlap = pairwise_iou(wanted, boxes)  # (N, G, A)
    own = scores.transpose(1, 2).gather(1, labels[:, :, None].expand(-1, -1, places))
    metric = own.pow(alpha) * overlap.clamp(min=_LEAST).pow(beta)
    inside = _inside(points, wanted) & mask[:, :, None]
    chosen = _best(metric, inside, candidates)
    several = chosen.sum(1, keepdim=True) > 1
    preferred = torch.where(chosen, overlap, overlap.new_tensor(-1.0)).argmax(1, keepdim=True)
    objects = torch.arange(wanted.shape[1], device=scores.device)[None, :, None]
    chosen = chosen & (~several | (objects == preferred))

    metric, overlap = metric * chosen, overlap.clamp(min=_LEAST) * chosen
    best = metric.amax(2, keepdim=True).clamp(min=torch.finfo(metric.dtype).tiny)
    scaled = metric / best * overlap.amax(2, keepdim=True)
    found = torch.where(chosen.any(1), chosen.int().argmax(1), -1)  # (N, A)
    target = scores.new_zeros(count, places, classes)
    kinds = labels.gather(1, found.clamp(min=0))
    target.scatter_(2, kinds[:, :, None], scaled.amax(1)[:, :, None])
    return Assigned(found, target)


def _inside(points: Tensor, wanted: Tensor) -> Tensor:
    """(N, G, A): whether a place lies in an object, or is the nearest of one in which there is none."""
    within = ((points > wanted[:, :, None, :2]) & (points < wanted[:, :, None, 2:])).all(3)
    away = (centres(wanted)[:, :, None] - points).square().sum(3)
    nearest = torch.zeros_like(within).scatter_(2, away.argmin(2, keepdim=True), value=True)
    return within | (nearest & ~within.any(2, keepdim=True))


def _best(metric: Tensor, inside: Tensor, candidates: int) -> Tensor:
    """(N, G, A): the best places of each object among those inside."""
    most = min(candidates, metric.shape[2])
    ranked = torch.where(inside, metric, metric.new_tensor(-1.0)).topk(most, 2).indices
    return torch.zeros_like(inside).scatter_(2, ranked, value=True) & inside
