"""What can be wrong with boxes and labels, each kind counted and its first ones named."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekit.ragged import Ragged

__all__ = ["box_faults", "told"]

_NAMED = 3
_OUTSIDE = 1.0  # pixels by which a box may stick out: rounding


def box_faults(targets: Ragged, size: tuple[int, int], classes: int) -> list[str]:
    """In words; none: all is well. ``size``: (height, width) of the pictures."""
    boxes, labels = targets["boxes"], targets["labels"]
    if not isinstance(boxes, Ragged) or not isinstance(labels, Ragged):
        return ["one number for each picture where there should be one for each object"]
    if not torch.equal(boxes.lengths, labels.lengths):
        rows = (boxes.lengths != labels.lengths).nonzero()[:, 0].tolist()
        return [told("as many labels as boxes are wanted, and there are not", len(rows), rows)]
    if boxes.values.dim() != 2 or boxes.values.shape[1:] != (4,):
        return [f"boxes {boxes.form()}, not (n, 4)"]
    if labels.values.dim() != 1 or labels.values.is_floating_point():
        return [f"labels {labels.form()}, not (n,) integers"]
    x1, y1, x2, y2 = boxes.values.unbind(1)
    outside = (x1 < -_OUTSIDE) | (y1 < -_OUTSIDE) | (x2 > size[1] + _OUTSIDE) | (y2 > size[0] + _OUTSIDE)
    kinds: list[tuple[str, Tensor]] = [
        ("boxes of no area", (x2 <= x1) | (y2 <= y1)),
        ("boxes that aren't inside of the picture", outside),
        ("labels of no class", (labels.values < 0) | (labels.values >= classes)),
    ]
    sample = torch.arange(len(boxes)).repeat_interleave(boxes.lengths.cpu())
    return [
        told(what, int(wrong.sum()), sample[wrong.cpu()].unique().tolist())
        for what, wrong in kinds
        if wrong.any()
    ]


def told(what: str, count: int, where: Sequence[object], of: str = "sample") -> str:
    """``3 boxes of no area (samples 4, 7)``."""
    first = ", ".join(str(one) for one in where[:_NAMED])
    more = ", …" if len(where) > _NAMED else ""
    return f"{count:,} {what} ({of}{'s' if len(where) > 1 else ''} {first}{more})"
