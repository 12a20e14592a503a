"""Boxes that go along with their pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekit.ragged import Ragged
from edgekit.tasks.detection.boxes import areas, clipped
from edgekit.tasks.moves import Moves

__all__ = ["moved_boxes", "rows_kept"]

_LEAST_SHARE = 0.25  # of a box's area that has to be left in the picture
_LEAST_SIDE = 2.0  # pixels


def moved_boxes(targets: Ragged, moves: Moves, size: tuple[int, int]) -> Ragged:
    """Targets with boxes in pixels of pictures of (height, width), cut off at the border; see the limits
    above.
    """
    boxes = targets["boxes"]
    assert isinstance(boxes, Ragged)  # ``Detection.check_targets``
    sample = torch.arange(len(boxes)).repeat_interleave(boxes.lengths)
    sides = torch.tensor([size[1], size[0]], dtype=boxes.values.dtype)
    scale, offset = moves.scale[sample].repeat(1, 2), (moves.offset * sides)[sample].repeat(1, 2)
    whole = boxes.values * scale + offset
    whole = torch.cat(
        [torch.minimum(whole[:, :2], whole[:, 2:]), torch.maximum(whole[:, :2], whole[:, 2:])], 1
    )
    inside = clipped(whole, size)
    large = (inside[:, 2:] - inside[:, :2]).amin(1) >= _LEAST_SIDE
    return rows_kept(targets, inside, large & (areas(inside) >= _LEAST_SHARE * areas(whole)))


def rows_kept(targets: Ragged, boxes: Tensor, kept: Tensor) -> Ragged:
    """Other boxes (total, 4), and of all that goes with them those rows alone that are ``kept`` (total,)."""
    values: dict[str, Tensor] = {}
    lengths: dict[str, Tensor] = {}
    for name, one, starts in targets.tensors():
        assert starts is not None  # each object has one of each
        sample = torch.arange(len(targets)).repeat_interleave(starts.diff())
        values[name] = (boxes if name == "boxes" else one)[kept]
        lengths[name] = torch.bincount(sample[kept], minlength=len(targets))
    return Ragged(values, lengths)
