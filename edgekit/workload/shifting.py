"""Pictures moved by whole pixels, and mirrored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["shifted"]

_SMALL = 32 * 32 * 3  # values of a picture up to which one gather for the whole batch is faster


def shifted(images: Tensor, offsets: Tensor, mirrored: Tensor, most: int) -> Tensor:
    """(N, H, W, C) of any type: what was at (y, x) + offset is at (y, x) now, then left and right change
    places where ``mirrored``; what comes in is 0.

    Args:
        offsets: (N, 2) whole numbers of -most to most, rows first.
        mirrored: (N,) bool.
    """
    if images[0].numel() <= _SMALL:
        return _gathered(images, offsets, mirrored, most)
    height, width = images.shape[1:3]
    found = torch.zeros(images.shape, dtype=images.dtype, device=images.device)
    for image, out, (down, right), mirror in zip(
        images, found, offsets.tolist(), mirrored.tolist(), strict=True
    ):
        top, bottom = max(0, -down), min(height, height - down)
        left, end = max(0, -right), min(width, width - right)
        if top >= bottom or left >= end:
            continue
        part = image[top + down : bottom + down, left + right : end + right]
        if mirror:
            out[top:bottom, width - end : width - left] = part.flip(1)
        else:
            out[top:bottom, left:end] = part
    return found


def _gathered(images: Tensor, offsets: Tensor, mirrored: Tensor, most: int) -> Tensor:
    """Row and column numbers for each picture, into the padded ones."""
    height, width = images.shape[1:3]
    rows = offsets[:, :1] + most + torch.arange(height)
    columns = torch.arange(width).expand(len(images), width)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns) + offsets[:, 1:] + most
    sample = torch.arange(len(images))[:, None, None]
    padded = F.pad(images, (0, 0, most, most, most, most))
    return padded[sample, rows[:, :, None], columns[:, None, :]]
