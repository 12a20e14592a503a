"""Corruptions of images. Lengths are for a side of 32 pixels and grow with the image; light is in shares of
the range from black to white.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from edgekit.diagnosis.corruptions.base import Corruption, InputKind, Samples, Span
from edgekit.tables import Table

__all__ = ["IMAGES", "value_range"]

Values = npt.NDArray[np.float32]  # (N, H, W, C), 0 … 1

_SIDE = 32
_BLOCK = 8
_MIDDLE = np.float32(128 / 255)  # grey, from which JPEG counts
# The luminance table of JPEG (ITU-T T.81, table K.1), for quality 50.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=np.float32,
)


def _noise(images: Values, deviation: float, random: np.random.Generator) -> Values:
    return images + deviation * random.standard_normal(images.shape, dtype=np.float32)


def _blur(images: Values, sigma: float, random: np.random.Generator) -> Values:
    sigmas = (0, *(sigma * side / _SIDE for side in images.shape[1:3]), 0)
    blurred: Values = ndimage.gaussian_filter(images, sigmas, mode="nearest")
    return blurred


def _brightness(images: Values, more: float, random: np.random.Generator) -> Values:
    return images + np.float32(more)


def _contrast(images: Values, left: float, random: np.random.Generator) -> Values:
    mean = images.mean((1, 2, 3), keepdims=True)
    changed: Values = mean + (images - mean) * np.float32(left)
    return changed


def _pixelate(images: Values, size: float, random: np.random.Generator) -> Values:
    """Areas of about ``size`` pixels (of 32) get the value of their mean."""
    for axis in (1, 2):
        side = images.shape[axis]
        areas = max(1, round(_SIDE / size)) if side >= _SIDE / size else side
        place = np.arange(side) * areas // side
        starts = np.flatnonzero(np.diff(place, prepend=-1))
        sums = np.add.reduceat(images, starts, axis=axis)
        shape = [1, 1, 1, 1]
        shape[axis] = len(starts)
        means = sums / np.bincount(place).reshape(shape)
        images = np.take(means, place, axis=axis).astype(np.float32)
    return images


def _shift(images: Values, most: float, random: np.random.Generator) -> Values:
    """Every image by ``most`` pixels (of 32) in a direction of its own; the border is repeated."""
    angles = random.uniform(0, 2 * np.pi, len(images))
    rows, columns = (
        np.clip(np.arange(side) - np.rint(way * most * side / _SIDE).astype(np.int64)[:, None], 0, side - 1)
        for side, way in zip(images.shape[1:3], (np.sin(angles), np.cos(angles)), strict=True)
    )
    numbers = np.arange(len(images))[:, None, None]
    moved: Values = images[numbers, rows[:, :, None], columns[:, None, :]]
    return moved


def _jpeg(images: Values, quality: float, random: np.random.Generator) -> Values:
    """Cosine coefficients of blocks of 8x8 rounded as JPEG rounds luminance; each channel by itself.

    Colours aren't subsampled and nothing is entropy coded: what is lost is lost in the rounding.
    """
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    table = np.maximum(1, np.floor(_LUMINANCE * np.float32(scale) + np.float32(0.5))) / 255
    count, height, width, channels = images.shape
    pad = ((0, 0), (0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0))
    padded = np.pad(images - _MIDDLE, pad, mode="edge")
    blocks = padded.reshape(count, -(-height // _BLOCK), _BLOCK, -(-width // _BLOCK), _BLOCK, channels)
    blocks = blocks.transpose(0, 1, 3, 5, 2, 4)  # (N, rows, columns, C, 8, 8)
    cosines = _cosines()
    steps = (cosines @ blocks @ cosines.T) / table
    # Halves away from zero, as encoders do: means of bytes lie on them often.
    rounded = np.copysign(np.floor(np.abs(steps) + np.float32(0.5 + 1e-4)), steps) * table
    restored = (cosines.T @ rounded @ cosines).transpose(0, 1, 4, 2, 5, 3).reshape(padded.shape)
    values: Values = restored[:, :height, :width] + _MIDDLE
    return values


def _cosines() -> npt.NDArray[np.float32]:
    """The orthonormal cosine transform (DCT-II) of 8 values, (8, 8)."""
    rows, columns = np.mgrid[:_BLOCK, :_BLOCK]
    matrix = np.sqrt(2 / _BLOCK) * np.cos(np.pi * (2 * columns + 1) * rows / (2 * _BLOCK))
    matrix[0] /= np.sqrt(2)
    found: npt.NDArray[np.float32] = matrix.astype(np.float32)
    return found


def _applied(samples: Samples, layout: str, span: Span | None, change: Callable[[Values], Values]) -> Samples:
    """On values from 0 (black) to 1 (white), channels last; what leaves that range is clipped."""
    black, white = span or value_range(samples)
    values = (samples.astype(np.float32) - black) / (white - black)
    images = values if layout == "NHWC" else values.transpose(0, 2, 3, 1)
    changed = np.clip(change(images), 0, 1)
    back = (changed if layout == "NHWC" else changed.transpose(0, 3, 1, 2)) * (white - black) + black
    if np.issubdtype(samples.dtype, np.integer):
        back = np.rint(back)
    return np.ascontiguousarray(back.astype(samples.dtype))


def value_range(samples: Samples) -> tuple[np.float32, np.float32]:
    """Black and white: 0 and 255 for bytes, else the least and the greatest value there is.

    Bytes that leave the upper half unused aren't photographs (grey in 16 steps, say): the greatest is white.
    """
    if samples.dtype == np.uint8:
        greatest = samples.max(initial=0)
        return np.float32(0), np.float32(greatest if 0 < greatest < 128 else 255)
    low, high = np.float32(samples.min(initial=0)), np.float32(samples.max(initial=0))
    return low, high if high > low else low + np.float32(1)


# Amounts are those of CIFAR-10-C (Hendrycks and Dietterich 2019) for noise, blur, brightness, contrast and
# JPEG; pixelate and shift are pixels of 32.
IMAGES = InputKind(
    name="images",
    fits=lambda samples, layout: layout in ("NCHW", "NHWC"),
    applied=_applied,
    view=lambda samples: "",  # those that can be shown need no corruption to be known
    corruptions=Table(
        "corruption of images",
        (
            Corruption("noise", _noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
            Corruption("blur", _blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
            Corruption("brightness", _brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
            Corruption("contrast", _contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
            Corruption("jpeg", _jpeg, (80, 65, 58, 50, 40)),
            Corruption("pixelate", _pixelate, (1.25, 1.5, 2.0, 2.5, 3.0)),
            Corruption("shift", _shift, (1, 2, 3, 4, 6)),
        ),
    ),
)
