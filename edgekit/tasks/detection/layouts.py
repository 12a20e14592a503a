"""The shapes in which an anchor-free head gives its numbers, and how they become one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from edgekit.errors import DataError
from edgekit.tensors import NamedTensors, Tensors

__all__ = ["gathered", "grid", "of_names", "places", "prior_rows", "spread", "spread_priors"]


def grid(size: tuple[int, int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """(rows, columns) of each stride's map."""
    return [(math.ceil(size[0] / stride), math.ceil(size[1] / stride)) for stride in strides]


def places(size: tuple[int, int], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of all A places, stride by stride and row by row: their middles (A, 2) in pixels, and strides (A,
    1).
    """
    points, steps = [], []
    for stride, (rows, columns) in zip(strides, grid(size, strides), strict=True):
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        points.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        steps.append(torch.full((rows * columns, 1), float(stride)))
    return torch.cat(points), torch.cat(steps)


def of_names(outputs: Tensors, names: Sequence[str]) -> list[Tensor]:
    """The tensors of these names; the only one where there are no names. Raises DataError."""
    if not names:
        if isinstance(outputs, NamedTensors):
            raise DataError(
                "the head reads one tensor, and the model gives several",
                where="Detection(head=…)",
                got=", ".join(outputs.names),
                expected="their names in the description of the head",
            )
        return [outputs]
    known = outputs.names if isinstance(outputs, NamedTensors) else ()
    if missing := [name for name in names if name not in known]:
        raise DataError(
            "outputs that the head reads are missing",
            where="Detection(head=…)",
            got=", ".join(known) or "one tensor",
            expected=f"{', '.join(missing)}, too",
        )
    assert isinstance(outputs, NamedTensors)
    return [outputs[name] for name in names]


def gathered(tensors: Sequence[Tensor], channels: int, maps: Sequence[tuple[int, int]], what: str) -> Tensor:
    """Tensors of all places, or one for each map, as (N, A, channels).

    A tensor is (N, channels, rows, columns), (N, channels, A) or (N, A, channels). Raises DataError.
    """
    sizes = [rows * columns for rows, columns in maps]
    if len(tensors) not in (1, len(maps)):
        raise DataError(
            "another number of outputs than of strides",
            where=f"Detection(head=…): {what}",
            got=str(len(tensors)),
            expected=f"1, or {len(maps)}",
        )
    wanted = (
        list(zip(sizes, maps, strict=True)) if len(tensors) > 1 or len(maps) == 1 else [(sum(sizes), None)]
    )
    rows = [
        _rows(tensor, channels, count, shape, what)
        for tensor, (count, shape) in zip(tensors, wanted, strict=True)
    ]
    return rows[0] if len(rows) == 1 else torch.cat(rows, 1)


def _rows(tensor: Tensor, channels: int, count: int, shape: tuple[int, int] | None, what: str) -> Tensor:
    if tensor.dim() == 4 and shape is not None and tuple(tensor.shape[1:]) == (channels, *shape):
        return tensor.flatten(2).transpose(1, 2)
    if tensor.dim() == 3 and tuple(tensor.shape[1:]) == (channels, count):
        return tensor.transpose(1, 2)
    if tensor.dim() == 3 and tuple(tensor.shape[1:]) == (count, channels):
        return tensor
    maps = "" if shape is None else f", or (N, {channels}, {shape[0]}, {shape[1]})"
    raise DataError(
        "an output that the head doesn't describe",
        where=f"Detection(head=…): {what}",
        got=str(tuple(tensor.shape)),
        expected=f"(N, {channels}, {count}){maps}",
        next="check the head's size, strides and reg_max, and the number of classes",
    )


def spread(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Inverse of ``gathered``: (N, A, channels) in the shapes of ``like``."""
    channels = values.shape[2]
    counts = [one[0].numel() // channels for one in like]
    found = []
    for part, one in zip(values.split(counts, 1), like, strict=True):
        turned = one.dim() == 3 and one.shape[1] == part.shape[1] and one.shape[2] == channels
        found.append(part if turned and one.shape[1] != channels else part.transpose(1, 2).reshape(one.shape))
    return found


def prior_rows(
    tensors: Sequence[Tensor], channels: int, levels: Sequence[tuple[int, tuple[int, int]]], what: str
) -> Tensor:
    """Numbers of given boxes as (N, A, channels); ``levels``: boxes at each place, and the map.

    One tensor (N, A, channels) or (N, channels, A), or for each level such a one, or its map (N, boxes *
    channels, rows, columns). Raises DataError.
    """
    counts = [boxes * rows * columns for boxes, (rows, columns) in levels]
    if len(tensors) == 1 and len(levels) > 1:
        return _prior_rows(tensors[0], channels, sum(counts), what)
    parts = []
    for one, count, (boxes, shape) in zip(tensors, counts, levels, strict=True):
        if one.dim() == 4 and tuple(one.shape[1:]) == (boxes * channels, *shape):
            parts.append(one.permute(0, 2, 3, 1).reshape(one.shape[0], count, channels))
        else:
            parts.append(_prior_rows(one, channels, count, what))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _prior_rows(tensor: Tensor, channels: int, count: int, what: str) -> Tensor:
    """As SSDs join their levels, (N, A, channels), should both fit."""
    if tensor.dim() == 3 and tuple(tensor.shape[1:]) == (count, channels):
        return tensor
    return _rows(tensor, channels, count, None, what)


def spread_priors(
    values: Tensor, like: Sequence[Tensor], levels: Sequence[tuple[int, tuple[int, int]]]
) -> list[Tensor]:
    """Inverse of ``prior_rows``, in the shapes of ``like``."""
    if len(like) == 1 and len(levels) > 1:
        return spread(values, like)
    channels = values.shape[2]
    counts = [boxes * rows * columns for boxes, (rows, columns) in levels]
    found = []
    for part, one, (boxes, shape) in zip(values.split(counts, 1), like, levels, strict=True):
        if one.dim() == 4:
            found.append(part.reshape(len(part), *shape, boxes * channels).permute(0, 3, 1, 2))
        else:
            found += spread(part, [one])
    return found
