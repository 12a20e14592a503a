"""How a picture of any size becomes one of the model's size, and boxes along with it, both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekit.errors import DataError

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
        high, wide = size[0] / source[0], size[1] / source[1]
        if how == "stretch":
            return cls(source, size, (wide, high), (0, 0))
        least = min(high, wide)
        inner = cls._inner(source, size, least)
        # The scale that the rounded size has, so that boxes lie where the pixels are.
        scale = (inner[1] / source[1], inner[0] / source[0])
        return cls(source, size, scale, ((size[1] - inner[1]) // 2, (size[0] - inner[0]) // 2))

    @staticmethod
    def _inner(source: tuple[int, int], size: tuple[int, int], scale: float) -> tuple[int, int]:
        return (
            min(size[0], max(1, round(source[0] * scale))),
            min(size[1], max(1, round(source[1] * scale))),
        )

    def picture(self, picture: Image.Image, border: int = 114) -> npt.NDArray[np.uint8]:
        """(H, W, 3) bytes, from a picture in RGB; bilinear, over all pixels that become one."""
        inner = (round(self.source[1] * self.scale[0]), round(self.source[0] * self.scale[1]))
        resized = np.asarray(picture.resize(inner, Image.Resampling.BILINEAR))
        if resized.shape[:2] == self.size:
            return resized
        whole = np.full((*self.size, 3), border, np.uint8)
        left, top = self.offset
        whole[top : top + inner[1], left : left + inner[0]] = resized
        return whole

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
