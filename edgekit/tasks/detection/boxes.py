"""Boxes as numbers: (…, 4) with x1, y1, x2, y2, in pixels unless it is said."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["areas", "centres", "ciou", "clipped", "from_distances", "iou", "pairwise_iou", "to_distances"]

_TINY = 1e-7


def areas(boxes: Tensor) -> Tensor:
    """(…,): 0 for boxes that are turned inside out."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def centres(boxes: Tensor) -> Tensor:
    """(…, 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """What of the boxes lies in a picture of (height, width)."""
    most = boxes.new_tensor([size[1], size[0], size[1], size[0]])
    return torch.minimum(boxes.clamp(min=0), most)


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of boxes (…, 4), pair by pair: (…,). Shapes are broadcast."""
    return _overlap(one.unbind(-1), other.unbind(-1))


def pairwise_iou(one: Tensor, other: Tensor) -> Tensor:
    """Of each of (…, N, 4) with each of (…, M, 4): (…, N, M)."""
    # Four planes that lie in one piece each: kernels take rows of numbers, not every fourth.
    rows = one.movedim(-1, 0).contiguous()[..., :, None]
    columns = other.movedim(-1, 0).contiguous()[..., None, :]
    return _overlap(rows.unbind(0), columns.unbind(0))


def _overlap(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> Tensor:
    """IoU from x1, y1, x2, y2 of both."""
    left, top, right, low = one
    left_, top_, right_, low_ = other
    wide = (torch.minimum(right, right_) - torch.maximum(left, left_)).clamp(min=0)
    high = (torch.minimum(low, low_) - torch.maximum(top, top_)).clamp(min=0)
    inside = wide * high
    own = (right - left).clamp(min=0) * (low - top).clamp(min=0)
    theirs = (right_ - left_).clamp(min=0) * (low_ - top_).clamp(min=0)
    return inside / (own + theirs - inside).clamp(min=_TINY)


def ciou(one: Tensor, other: Tensor) -> Tensor:
    """IoU less the distance of the centres and the difference in shape, pair by pair: (…,), at most 1.

    CIoU; Zheng et al. 2020, arXiv 1911.08287, eq. 10 and 11: its loss is 1 less this. The factor of the
    shape's term is taken as a constant, as there.
    """
    overlap = iou(one, other)
    # Of all corners: boxes may be turned inside out where a network hasn't learnt yet.
    corners = torch.stack([half for box in (one, other) for half in (box[..., :2], box[..., 2:])])
    diagonal = (corners.amax(0) - corners.amin(0)).square().sum(-1) + _TINY
    apart = (centres(one) - centres(other)).square().sum(-1)
    width, height = (one[..., 2:] - one[..., :2]).unbind(-1)
    wide, high = (other[..., 2:] - other[..., :2]).unbind(-1)
    angle = torch.atan2(wide, high) - torch.atan2(width.clamp(min=_TINY), height.clamp(min=_TINY))
    shape = (4 / math.pi**2) * angle.square()
    with torch.no_grad():
        factor = shape / (1 - overlap + shape + _TINY)
    return overlap - apart / diagonal - factor * shape


def from_distances(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes from places (…, 2) and the distances (…, 4) of their left, top, right and lower side."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


def to_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Inverse of ``from_distances``; negative where a place isn't inside."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)
