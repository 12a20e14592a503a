"""What a picture's answers look like on it: for tasks whose answers lie somewhere in the picture."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

__all__ = ["Area", "Mark"]


class Mark(NamedTuple):
    """A box to be drawn. ``box``: x1, y1, x2, y2 in shares of the picture; ``text``: what it is.

    found: an answer that is right. missed: what should have been found. wrong: an answer that is not right.
    """

    box: tuple[float, float, float, float]
    kind: Literal["found", "missed", "wrong"]
    text: str


class Area(NamedTuple):
    """Pixels to be tinted. ``where``: (H, W) bool, on a grid that covers the picture; ``shade``: the class
    that was answered there, which has a colour of its own where it is right.
    """

    where: Tensor
    kind: Literal["found", "wrong"]
    shade: int
