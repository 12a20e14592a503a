"""How a picture of any size becomes one of the model's size, and boxes along with it, both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from edgekit.errors import DataError
from edgekit.pictures.transform import inner_size

__all__ = ["Fit", "How", "checked_how"]

Array = npt.NDArray[Any]
How = Literal["letterbox", "stretch"]


@dataclass(frozen=True)
class Fit:
    """What was at (x, y) of a picture is at ``(x, y) * scale + offset`` in the model's input, in pixels.

    source, size: (height, width) of both. scale, offset: for x and y.
    """

    source: tuple[int, int]
    size: tuple[int, int]
    scale: tuple[float, float]
    offset: tuple[int, int]

    @classmethod
    def of(cls, source: tuple[int, int], size: tuple[int, int], how: How) -> Fit:
        """``letterbox``: one scale for both directions, the picture in the middle, a border around it.
        ``stretch``: all of the input, each direction by its own scale.
        """
        if how == "stretch":
            return cls(source, size, (size[1] / source[1], size[0] / source[0]), (0, 0))
        inner = inner_size(source, size)
        # The scale that the rounded size has, so that boxes lie where the pixels are.
        scale = (inner[1] / source[1], inner[0] / source[0])
        return cls(source, size, scale, ((size[1] - inner[1]) // 2, (size[0] - inner[0]) // 2))

    def boxes(self, boxes: Array) -> Array:
        """(n, 4), from pixels of the picture to those of the input."""
        moved: Array = boxes * np.array(self.scale * 2) + np.array(self.offset * 2)
        return moved

    def back(self, boxes: Array) -> Array:
        """(n, 4), from pixels of the input to those of the picture, inside of it."""
        height, width = self.source
        moved = (boxes - np.array(self.offset * 2)) / np.array(self.scale * 2)
        clipped: Array = np.clip(moved, 0, [width, height, width, height])
        return clipped


def checked_how(how: str) -> How:
    """Raises DataError for another word."""
    if how not in get_args(How):
        raise DataError(
            "no way to fit a picture", where="fit=…", got=repr(how), expected=" or ".join(get_args(How))
        )
    return how  # type: ignore[return-value]
