"""FCOS (Tian et al. 2019, arXiv 1904.01355): distances at places, and how central a place is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from edgekit.errors import WorkloadError
from edgekit.tasks.detection.boxes import from_distances
from edgekit.tasks.detection.dense import Dense, Logs
from edgekit.tasks.detection.layouts import gathered, grid, of_names, places
from edgekit.tasks.detection.losses import within_float
from edgekit.tensors import Tensors

__all__ = ["Fcos"]

_LONGEST = 12.0  # of a distance's logarithm: an untrained network's boxes stay finite


@dataclass(frozen=True)
class Fcos(Dense):
    """At each place of each stride's map distances to the four sides, logits of classes, and one of how
    central it is. A score is the product of both sigmoids, or its square root.

    Args:
        size: (height, width) of the model's input.
        strides: pixels between the places of each map.
        boxes, scores, centreness: names of the outputs, each one, or one for each stride: (N, channels, A),
            (N, A, channels), or maps.
        exponent: whether distances are given as their logarithms.
        root: whether a score is the square root of the product (as torchvision and later versions have it).
        middle: where in its cell a place is, as a share of the stride: 0.5 in the paper, 0 in torchvision.
        gains: how much boxes (CIoU) and scores count in the loss.

    Raises WorkloadError: numbers or names that make no sense.
    """

    size: tuple[int, int]
    strides: tuple[int, ...]
    boxes: tuple[str, ...]
    scores: tuple[str, ...]
    centreness: tuple[str, ...]
    exponent: bool = False
    root: bool = True
    middle: float = 0.5
    gains: tuple[float, float] = (7.5, 0.5)

    kind: ClassVar[str] = "fcos"

    def __post_init__(self) -> None:
        for name in ("size", "strides", "boxes", "scores", "centreness", "gains"):
            if isinstance(value := getattr(self, name), str):
                raise _wrong(name, repr(value), "several, in a tuple or a list")
            object.__setattr__(self, name, tuple(value))
        if len(self.size) != 2 or min(self.size) < 1:
            raise _wrong("size", str(self.size), "(height, width), both at least 1")
        if not self.strides or min(self.strides) < 1:
            raise _wrong("strides", str(self.strides), "at least one, each of at least 1 pixel")
        for name in ("boxes", "scores", "centreness"):
            if len(getattr(self, name)) not in (1, len(self.strides)):
                raise _wrong(name, str(getattr(self, name)), f"one name, or {len(self.strides)}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names that were given."""
        return (*self.boxes, *self.scores, *self.centreness)

    def places(self) -> Tensor:
        """See ``Dense``."""
        points, steps = places(self.size, self.strides)
        return points + (self.middle - 0.5) * steps

    def logs(self, outputs: Tensors, classes: int) -> Logs:
        """See ``Dense``."""
        maps = grid(self.size, self.strides)
        raw, logits, central = (
            within_float(gathered(of_names(outputs, names), channels, maps, what))
            for names, channels, what in (
                (self.boxes, 4, "boxes"),
                (self.scores, classes, "scores"),
                (self.centreness, 1, "centreness"),
            )
        )
        _, steps = places(self.size, self.strides)
        far = raw.clamp(max=_LONGEST).exp() if self.exponent else raw
        boxes = from_distances(self.places().to(raw.device), far * steps.to(raw.device))
        both = F.logsigmoid(logits) + F.logsigmoid(central)
        return Logs(boxes, both / 2 if self.root else both)


def _wrong(field: str, got: str, expected: str) -> WorkloadError:
    return WorkloadError("a head that makes no sense", where=f"Fcos({field}=…)", got=got, expected=expected)
