"""Of many answers that mean one object, the best (non-maximum suppression), class by class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgekit.ragged import Ragged
from edgekit.tasks.detection.boxes import pairwise_iou
from edgekit.tasks.detection.heads import Candidates

__all__ = ["Limits", "detections"]

_BLOCK = 128


@dataclass(frozen=True)
class Limits:
    """What is kept.

    Args:
        confidence: scores below it are no answer.
        overlap: of two answers of a class whose IoU is above it, the one with the lower score is dropped.
        most: answers for each picture.
        candidates: so many, the best, are looked at for each picture.
        suppress: False where a head gives each object once.
    """

    confidence: float
    overlap: float
    most: int
    candidates: int
    suppress: bool = True


def detections(found: Candidates, size: tuple[int, int], limits: Limits) -> Ragged:
    """Of each sample "boxes" (n, 4), inside of the picture, "labels" (n,) and "scores" (n,), best first.

    Of equal scores the earlier place comes first, and of one place the lower class: so that every runtime
    that decodes the same numbers comes to the same answers.
    """
    entries = []
    for boxes, scores in zip(found.boxes.detach(), found.scores.detach(), strict=True):
        entries.append(_of_sample(boxes, scores, size, limits))
    return Ragged.of(entries, "detections")


def _of_sample(boxes: Tensor, scores: Tensor, size: tuple[int, int], limits: Limits) -> dict[str, Tensor]:
    classes = scores.shape[1]
    flat = scores.flatten()
    chosen = (flat >= limits.confidence).nonzero()[:, 0]
    order = flat[chosen].sort(descending=True, stable=True).indices[: limits.candidates]
    chosen = chosen[order]
    place, label = chosen // classes, chosen % classes
    most = boxes.new_tensor([size[1], size[0], size[1], size[0]])
    own = torch.minimum(boxes[place].clamp(min=0), most)
    if limits.suppress:
        rows = _kept(own, label, limits)
    else:
        rows = torch.arange(min(limits.most, len(label)), device=label.device)
    return {"boxes": own[rows], "labels": label[rows], "scores": flat[chosen[rows]]}


def _kept(boxes: Tensor, labels: Tensor, limits: Limits) -> Tensor:
    """Rows (k,) of the boxes that are kept, of boxes in the order of their scores.

    A box is kept unless one before it that is kept covers it. Blocks of them are held against what is kept,
    and
    then against each other, until there are enough: most boxes are never compared with most others.
    """
    rows = labels.new_zeros(0)
    for start in range(0, len(boxes), _BLOCK):
        own = torch.arange(start, min(start + _BLOCK, len(boxes)), device=labels.device)
        own = own[~_covers(boxes, labels, rows, own, limits.overlap).any(0)]
        rows = torch.cat([rows, own[_first(_covers(boxes, labels, own, own, limits.overlap))]])
        if len(rows) >= limits.most:
            break
    return rows[: limits.most]


def _covers(boxes: Tensor, labels: Tensor, rows: Tensor, others: Tensor, overlap: float) -> Tensor:
    """(R, O): whether boxes of two rows overlap too much, and are of one class."""
    same = labels[rows][:, None] == labels[others][None]
    return (pairwise_iou(boxes[rows], boxes[others]) > overlap) & same


def _first(covers: Tensor) -> Tensor:
    """(n,) bool: those that none before them covers which is true itself; ``covers``: (n, n).

    That has one solution, and asking all at once over and over comes to it: after k rounds the first k are
        right.
    """
    earlier = covers.triu(1).float()
    kept = torch.ones(len(covers), device=covers.device)
    while True:
        now = ((kept @ earlier) == 0).float()
        if torch.equal(now, kept):
            return kept.bool()
        kept = now
