"""Heads that answer at the middle of each object: CenterNet (Zhou et al. 2019, arXiv 1904.07850)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import DataError, WorkloadError
from edgekit.ragged import Ragged
from edgekit.tasks.detection.dense import mean_of
from edgekit.tasks.detection.heads import Candidates, Head
from edgekit.tasks.detection.layouts import of_names
from edgekit.tasks.detection.losses import score_loss, within_float
from edgekit.tensors import Tensors

__all__ = ["Centres"]

_WIDE = (
    0.54 / 6
)  # of an object's sides: the heat's standard deviation (TTFNet, arXiv 1909.00700, section 3.2)


@dataclass(frozen=True)
class Centres(Head):
    """A heat map of logits for each class, the sides of the object whose middle a place is, and by how much
    the middle is off it. An answer is a place that none of its eight neighbours exceeds; nothing is left to
    suppress.

    Args:
        size: (height, width) of the model's input.
        stride: pixels between places.
        heat: name of the output (N, classes, rows, columns).
        sides: (N, 2, rows, columns), width and height; in strides, or in pixels with ``pixels``.
        offsets: (N, 2, rows, columns), x and y in strides; "" where there are none: then middles of places
            count.
        pixels: see ``sides``.
        gains: how much heat, sides and offsets count in the loss.

    Raises WorkloadError: numbers or names that make no sense.
    """

    size: tuple[int, int]
    stride: int
    heat: str
    sides: str
    offsets: str = ""
    pixels: bool = False
    gains: tuple[float, float, float] = (1.0, 0.1, 1.0)

    kind: ClassVar[str] = "centres"

    def __post_init__(self) -> None:
        for name in ("size", "gains"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.size) != 2 or min(self.size) < 1:
            raise _wrong("size", str(self.size), "(height, width), both at least 1")
        if self.stride < 1 or self.size[0] % self.stride or self.size[1] % self.stride:
            raise _wrong("stride", str(self.stride), f"a divisor of {self.size}")
        if len({self.heat, self.sides, self.offsets}) < 3 or not self.heat or not self.sides:
            raise _wrong("heat, sides, offsets", str(self.outputs), "names of different outputs")

    @property
    def suppressed(self) -> bool:
        """Only peaks are answers."""
        return False

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names that were given."""
        return tuple(name for name in (self.heat, self.sides, self.offsets) if name)

    @property
    def _map(self) -> tuple[int, int]:
        return self.size[0] // self.stride, self.size[1] // self.stride

    def check(self, outputs: Tensors, classes: int) -> None:
        """Raise DataError, see ``Head``."""
        self._raw(outputs, classes)

    def decode(self, outputs: Tensors, classes: int) -> Candidates:
        """See ``Head``; what is no peak has a score of 0."""
        heat, sides, offsets = self._raw(outputs, classes)
        peak = F.max_pool2d(heat, 3, 1, 1) == heat
        scores = (heat.sigmoid() * peak).flatten(2).transpose(1, 2)
        middle = (self._corners().to(heat.device) + offsets.flatten(2)) * self.stride
        half = sides.flatten(2) * (1 if self.pixels else self.stride) / 2
        boxes = torch.cat([middle - half, middle + half], 1).transpose(1, 2)
        return Candidates(boxes, scores)

    def loss(self, outputs: Tensors, targets: Ragged, classes: int) -> Tensor:
        """Focal loss with less weight near middles (eq. 1), with Gaussians as wide as objects, and the
        absolute error of sides and offsets at middles; over the number of objects.
        """
        heat, sides, offsets = self._raw(outputs, classes)
        found = [torch.zeros((), device=heat.device)]
        count = 0
        rows, columns = self._map
        y = torch.arange(rows, device=heat.device)[:, None]
        x = torch.arange(columns, device=heat.device)[None]
        wanted = torch.zeros_like(heat)
        for sample, entry in enumerate(targets):
            assert isinstance(entry, dict)
            boxes = entry["boxes"] / self.stride
            middles, wide = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
            last = torch.tensor([columns - 1, rows - 1], device=heat.device)
            cells = torch.minimum(middles.floor().long().clamp(min=0), last)
            for middle, side, cell, label in zip(middles, wide, cells, entry["labels"], strict=True):
                spread = (_WIDE * side).clamp(min=1e-3)
                far = ((x - cell[0]) / spread[0]).square() + ((y - cell[1]) / spread[1]).square()
                bump = torch.exp(-far / 2)
                wanted[sample, label] = torch.maximum(wanted[sample, label], bump)
                own = side * (self.stride if self.pixels else 1)
                at = (sample, slice(None), cell[1], cell[0])
                found.append(self.gains[1] * (sides[at] - own).abs().sum())
                if self.offsets:
                    found.append(self.gains[2] * (offsets[at] - (middle - cell)).abs().sum())
                count += 1
        share = heat.sigmoid()
        right = -F.logsigmoid(heat) * (1 - share).square() * (wanted == 1)
        wrong = -F.logsigmoid(-heat) * share.square() * (1 - wanted).pow(4) * (wanted < 1)
        return (self.gains[0] * (right + wrong).sum() + torch.stack(found).sum()) / max(1, count)

    def teacher_loss(self, outputs: Tensors, taught: Tensors, classes: int) -> Tensor:
        """Binary cross-entropy with the teacher's heat, less its own entropy, and the absolute error of sides
        and offsets by how sure the teacher is of a place.
        """
        own, theirs = self._raw(outputs, classes), self._raw(taught, classes)
        sure = theirs[0].sigmoid()
        weight = sure.amax(1, keepdim=True)
        scores = score_loss(own[0], sure) - score_loss(theirs[0], sure)
        pairs = zip(own[1:], theirs[1:], self.gains[1:], strict=True)
        apart = sum((gain * (weight * (a - b).abs()).sum() for a, b, gain in pairs), torch.zeros(()))
        return (self.gains[0] * scores + apart) / weight.sum().clamp(min=1)

    def together(self, answers: Sequence[Tensors], classes: int) -> Tensors:
        """The mean of what they say."""
        return mean_of(answers)

    def _raw(self, outputs: Tensors, classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Heat, sides and offsets as maps. Raises DataError."""
        told = of_names(outputs, self.outputs)
        for one, channels, name in zip(told, (classes, 2, 2), self.outputs, strict=False):
            if tuple(one.shape[1:]) != (channels, *self._map):
                raise DataError(
                    "an output that the head doesn't describe",
                    where=f"Detection(head=…): {name}",
                    got=str(tuple(one.shape)),
                    expected=f"(N, {channels}, {self._map[0]}, {self._map[1]})",
                    next="check the head's size and stride, and the number of classes",
                )
        heat, sides = within_float(told[0]), within_float(told[1])
        offsets = within_float(told[2]) if self.offsets else torch.full_like(sides, 0.5)
        return heat, sides, offsets

    def _corners(self) -> Tensor:
        """(2, A): column and row of each place."""
        rows, columns = self._map
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        return torch.stack([x, y]).flatten(1)


def _wrong(field: str, got: str, expected: str) -> WorkloadError:
    return WorkloadError(
        "a head that makes no sense", where=f"Centres({field}=…)", got=got, expected=expected
    )
