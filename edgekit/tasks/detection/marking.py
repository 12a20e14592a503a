"""Answers and objects of one picture, as they are drawn on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from edgekit.tasks.detection.boxes import pairwise_iou
from edgekit.tasks.marks import Mark

__all__ = ["marks"]

_SAME = 0.5  # IoU of an answer and its object


def marks(
    told: Mapping[str, Tensor], wanted: Mapping[str, Tensor], size: tuple[int, int], names: Sequence[str]
) -> list[Mark]:
    """Each answer, best first, finds the object of its class that it covers best, if by half and still free.

    Args:
        told: "boxes" (n, 4), "labels" and "scores" (n,), best first. wanted: "boxes" and "labels".
        size: (height, width) of the pictures that the boxes are in.
    """
    overlap = pairwise_iou(told["boxes"], wanted["boxes"])
    overlap = overlap * (told["labels"][:, None] == wanted["labels"][None])
    found: list[Mark] = []
    free = [True] * len(wanted["labels"])
    rows = zip(told["boxes"].tolist(), told["labels"].tolist(), told["scores"].tolist(), strict=True)
    for at, (box, label, score) in enumerate(rows):
        left = [(float(overlap[at, other]), other) for other, one in enumerate(free) if one]
        best, other = max(left, default=(0.0, -1))
        right = best >= _SAME
        if right:
            free[other] = False
        found.append(_mark(box, "found" if right else "wrong", f"{names[label]} {score:.2f}", size))
    for at, one in enumerate(free):
        if one:
            label = int(wanted["labels"][at])
            found.append(_mark(wanted["boxes"][at].tolist(), "missed", names[label], size))
    return found


def _mark(
    box: Sequence[float], kind: Literal["found", "missed", "wrong"], text: str, size: tuple[int, int]
) -> Mark:
    height, width = size
    x1, y1, x2, y2 = box
    return Mark((x1 / width, y1 / height, x2 / width, y2 / height), kind, text)
