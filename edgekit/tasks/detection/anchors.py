"""Anchor-based heads, as YOLOv5 and YOLOv7 have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import WorkloadError
from edgekit.tasks.detection.dense import Dense, Logs
from edgekit.tasks.detection.layouts import grid, of_names, places, prior_rows
from edgekit.tasks.detection.losses import within_float
from edgekit.tensors import Tensors

__all__ = ["Anchors"]


@dataclass(frozen=True)
class Anchors(Dense):
    """For each place of each stride's map and each of its anchors 4 numbers for a box, one for an object, and
    one for each class; of all of them the sigmoid s counts. A box's middle is (2 s - 0.5 + column) * stride,
    its sides (2 s)² of the anchor's. A score is that of an object times that of the class.

    Args:
        size: (height, width) of the model's input.
        strides: pixels between the places of each map.
        anchors: of each stride, (width, height) in pixels.
        maps: names of the outputs, one for each stride, (N, anchors * (5 + classes), rows, columns), or for
            all together (N, A, 5 + classes) by rows, columns, anchors; none: the only one.
        gains: how much boxes (CIoU) and scores count in the loss.

    Raises WorkloadError: numbers or names that make no sense.
    """

    size: tuple[int, int]
    strides: tuple[int, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    maps: tuple[str, ...] = ()
    gains: tuple[float, float] = (7.5, 0.5)

    kind: ClassVar[str] = "anchors"

    def __post_init__(self) -> None:
        for name in ("size", "strides", "maps", "gains"):
            if isinstance(value := getattr(self, name), str):
                raise _wrong(name, repr(value), "several, in a tuple or a list")
            object.__setattr__(self, name, tuple(value))
        own = tuple(tuple((float(w), float(h)) for w, h in one) for one in self.anchors)
        object.__setattr__(self, "anchors", own)
        if len(self.size) != 2 or min(self.size) < 1:
            raise _wrong("size", str(self.size), "(height, width), both at least 1")
        if not self.strides or min(self.strides) < 1:
            raise _wrong("strides", str(self.strides), "at least one, each of at least 1 pixel")
        if len(own) != len(self.strides) or not all(own):
            raise _wrong("anchors", f"{len(own)} levels", f"those of each of {len(self.strides)} strides")
        if min(side for level in own for box in level for side in box) <= 0:
            raise _wrong("anchors", str(own), "sides above 0")
        if len(self.maps) not in (0, 1, len(self.strides)):
            raise _wrong("maps", str(self.maps), f"one name, {len(self.strides)}, or none")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names that were given."""
        return self.maps

    def places(self) -> Tensor:
        """See ``Dense``: one for each anchor."""
        return self._given()[0]

    def _given(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of all places and their anchors: middles (A, 2), strides (A, 1), sides (A, 2), in pixels."""
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for stride, own in zip(self.strides, self.anchors, strict=True):
            points, steps = places(self.size, (stride,))
            count = len(own)
            sides = torch.tensor(own).repeat(len(points), 1)
            found.append((points.repeat_interleave(count, 0), steps.repeat_interleave(count, 0), sides))
        points, steps, sides = (torch.cat(parts) for parts in zip(*found, strict=True))
        return points, steps, sides

    def logs(self, outputs: Tensors, classes: int) -> Logs:
        """See ``Dense``."""
        counts = [len(own) for own in self.anchors]
        levels = list(zip(counts, grid(self.size, self.strides), strict=True))
        raw = within_float(prior_rows(of_names(outputs, self.maps), 5 + classes, levels, "boxes and scores"))
        points, steps, sides = (one.to(raw.device) for one in self._given())
        shares = raw[..., :4].sigmoid()
        middle = points + (2 * shares[..., :2] - 1) * steps
        half = (2 * shares[..., 2:]).square() * sides / 2
        boxes = torch.cat([middle - half, middle + half], 2)
        return Logs(boxes, F.logsigmoid(raw[..., 4:5]) + F.logsigmoid(raw[..., 5:]))


def _wrong(field: str, got: str, expected: str) -> WorkloadError:
    return WorkloadError(
        "a head that makes no sense", where=f"Anchors({field}=…)", got=got, expected=expected
    )
