"""What single positions of a layer's output are made of: rows for a least squares problem.

A position is a place of a sample (a pixel, a token), numbered through all samples. Only those that are asked
for are put together: all patches of a large picture would be nine times the picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["positions", "read", "rows_of"]


def positions(layer: nn.Module, outputs: Tensor) -> int:
    """How many there are in ``outputs``."""
    channels = outputs.shape[-1] if isinstance(layer, nn.Linear) else outputs.shape[1]
    return outputs.numel() // channels


def rows_of(layer: nn.Module, outputs: Tensor, rows: Tensor) -> Tensor:
    """(rows, C): what the layer gives at these positions."""
    if isinstance(layer, nn.Linear):
        return outputs.reshape(-1, outputs.shape[-1])[rows]
    last = outputs.movedim(1, -1).flatten(1, -2)  # no copy where channels are last in memory
    return last[rows // last.shape[1], rows % last.shape[1]]


def read(layer: nn.Conv1d | nn.Conv2d | nn.Linear, inputs: Tensor, rows: Tensor) -> Tensor:
    """(rows, K): all that each of these positions reads, in the order of the weights.

    Args:
        layer: convolutions with zeros around the picture, and of one group.
        inputs: (N, …) of the layer.
        rows: (R,).
    """
    if isinstance(layer, nn.Linear):
        return inputs.reshape(-1, inputs.shape[-1])[rows]
    if isinstance(layer, nn.Conv1d):
        inputs = inputs[:, :, None]
    sizes = inputs.shape[2:]
    reach, step, border = _both(layer.kernel_size, 1), _both(layer.stride, 1), _both(_padding(layer), 0)
    apart = _both(layer.dilation, 1)
    across = (sizes[1] + 2 * border[1] - apart[1] * (reach[1] - 1) - 1) // step[1] + 1
    down = (sizes[0] + 2 * border[0] - apart[0] * (reach[0] - 1) - 1) // step[0] + 1
    sample, place = rows // (down * across), rows % (down * across)
    y, x = (
        (start * step[axis] - border[axis])[:, None] + torch.arange(reach[axis]) * apart[axis]
        for axis, start in enumerate((place // across, place % across))
    )
    inside = ((y >= 0) & (y < sizes[0]))[:, :, None] & ((x >= 0) & (x < sizes[1]))[:, None, :]
    y, x = y.clamp(0, sizes[0] - 1)[:, :, None], x.clamp(0, sizes[1] - 1)[:, None, :]
    patches = inputs[sample[:, None, None], :, y, x] * inside[..., None]  # (R, kh, kw, C)
    return patches.movedim(3, 1).reshape(len(rows), -1)


def _both(values: tuple[int, ...], missing: int) -> tuple[int, int]:
    """Down and across; a sound has only the latter."""
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])


def _padding(layer: nn.Conv1d | nn.Conv2d) -> tuple[int, ...]:
    assert not isinstance(layer.padding, str)  # those aren't fitted
    return layer.padding
