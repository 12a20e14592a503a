"""RandAugment-like changes of whole batches (Cubuk et al. 2020, arXiv 1909.13719).

A few operations are drawn for each image, all at one magnitude. Unlike the paper's, moves of one image are
composed to one affine map and resampled once, after the changes of colour: that is sharper, and a batch
costs one gather, however many operations are drawn. The grey that the paper fills with is raw 0 here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["COLOURS", "MOVES", "rand_augment"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

# At magnitude 1: the paper's largest (its magnitude 30 in the ranges of AutoAugment, Cubuk et al. 2019,
# table 6), moves in shares of a side.
_STRENGTH = 0.9
_SHIFT = 0.45
_SHEAR = 0.3
_DEGREES = 30.0
_BITS = 4


def _identity(images: Tensor, amount: Tensor, white: float) -> Tensor:
    return images


def _brightness(images: Tensor, amount: Tensor, white: float) -> Tensor:
    return images * (1 + amount)


def _contrast(images: Tensor, amount: Tensor, white: float) -> Tensor:
    grey = _grey(images).mean((1, 2, 3), keepdim=True)
    return grey + (images - grey) * (1 + amount)


def _saturation(images: Tensor, amount: Tensor, white: float) -> Tensor:
    grey = _grey(images)
    return grey + (images - grey) * (1 + amount)


def _sharpness(images: Tensor, amount: Tensor, white: float) -> Tensor:
    # Against the mean of the neighbourhood; the border has no whole one and stays.
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.avg_pool2d(images, 3, stride=1)
    return smooth + (images - smooth) * (1 + amount)


def _posterize(images: Tensor, amount: Tensor, white: float) -> Tensor:
    steps = 2.0 ** (8 - (amount.abs() / _STRENGTH * _BITS).round())
    # A byte divided by 255 and multiplied again may lie a little below itself.
    return torch.floor(images / white * 255 / 256 * steps + 1e-4) / steps * 256 / 255 * white


COLOURS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "identity": _identity,
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "sharpness": _sharpness,
    "posterize": _posterize,
}
MOVES = ("translate_x", "translate_y", "shear_x", "shear_y", "rotate")


def rand_augment(
    images: Tensor, generator: torch.Generator, *, operations: int, magnitude: float, white: float
) -> Tensor:
    """``operations`` random changes to every image.

    Args:
        images: (N, C, H, W) float32, 0 is black.
        generator: of all that is drawn.
        operations: how many are drawn for each image, with repetition, from COLOURS and MOVES.
        magnitude: 0 (next to nothing) … 1; the sign of a change is drawn.
        white: the largest value, where results are cut off (black is the smallest).

    Returns:
        (N, C, H, W) float32.
    """
    count, kinds, aspect = len(images), len(COLOURS) + len(MOVES), images.shape[2] / images.shape[3]
    affine = torch.eye(3).expand(count, 3, 3)
    for _ in range(operations):
        drawn = torch.randint(kinds, (count,), generator=generator)
        signs = torch.randint(2, (count,), generator=generator) * 2.0 - 1
        images = _coloured(images, drawn, signs * magnitude * _STRENGTH, white)
        affine = _moved(affine, drawn - len(COLOURS), signs * magnitude, aspect)
    return _resampled(images, affine)


def _coloured(images: Tensor, drawn: Tensor, amounts: Tensor, white: float) -> Tensor:
    changed = images.clone()
    for number, change in enumerate(COLOURS.values()):
        rows = (drawn == number).nonzero().flatten()
        if len(rows):
            amount = amounts[rows].reshape(-1, 1, 1, 1)
            changed[rows] = change(images[rows], amount, white).clamp(0, white)
    return changed


def _moved(affine: Tensor, drawn: Tensor, amounts: Tensor, aspect: float) -> Tensor:
    """``affine`` (N, 3, 3), from output to input in -1 … 1, with one more move behind it.

    ``aspect``: height by width; angles are those between pixels, whatever the sides.
    """
    more = torch.eye(3).repeat(len(affine), 1, 1)
    angle = amounts * math.radians(_DEGREES)
    shift, shear = amounts * _SHIFT * 2, amounts * _SHEAR  # a side is 2 long
    entries = [
        [((0, 2), shift)],
        [((1, 2), shift)],
        [((0, 1), shear * aspect)],
        [((1, 0), shear / aspect)],
        [
            ((0, 0), angle.cos()),
            ((0, 1), -angle.sin() * aspect),
            ((1, 0), angle.sin() / aspect),
            ((1, 1), angle.cos()),
        ],
    ]
    for number, values in enumerate(entries):
        for (row, column), value in values:
            more[:, row, column] = torch.where(drawn == number, value, more[:, row, column])
    return affine @ more


def _resampled(images: Tensor, affine: Tensor) -> Tensor:
    """Bilinear, black outside; images that weren't moved stay bit for bit."""
    rows = (affine != torch.eye(3)).flatten(1).any(1).nonzero().flatten()
    if not len(rows):
        return images
    moved = images[rows]
    grid = F.affine_grid(affine[rows, :2], list(moved.shape), align_corners=False)
    result = images.clone()
    result[rows] = F.grid_sample(moved, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return result


def _grey(images: Tensor) -> Tensor:
    """(N, 1, H, W): luma of three channels, else the mean."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * torch.tensor(_LUMA).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
