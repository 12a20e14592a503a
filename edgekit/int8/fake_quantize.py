"""Fake-quantise ops for training: the numbers of a quantise/dequantise pair, with gradients.

``y = clip(round(x / s), low - z, high - z) * s``, as ``aten.fake_quantize_*`` and the pairs of the int8 graph
compute it (only the sign of a zero may differ), in a few vectorised passes over memory: aten's kernel works
number by number and took half of a training step. Gradients pass straight through inside the range and stop
outside of it (straight-through estimator; Jacob et al. 2018, arXiv 1712.05877, section 3). The ``learned_``
forms give the scale a gradient as well (LSQ; Esser et al. 2020, arXiv 1902.08153, equations 1 to 3).

Not differentiable twice.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = [
    "fake_quantize",
    "fake_quantize_channels",
    "learned_fake_quantize",
    "learned_fake_quantize_channels",
]

_WEIGHT_BOUND = 127


def fake_quantize(x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
    """``x`` (any shape) rounded to one grid of integers ``low`` … ``high``; float32."""
    return _apply(_PerTensor, x.float(), scale, zero_point, low, high)


def fake_quantize_channels(x: Tensor, scale: Tensor, axis: int) -> Tensor:
    """``x`` rounded to -127 … 127 times ``scale`` (C,), one for each index along ``axis``; float32."""
    return _apply(_PerChannel, x.float(), scale, axis, None)


def learned_fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: int,
    low: int,
    high: int,
    smallest: float,
    largest: float,
    constant: bool = False,
) -> Tensor:
    """As ``fake_quantize``, with a gradient for ``scale`` (scalar) too.

    It is multiplied by ``1 / sqrt(n * q)`` (section 2.2 of the paper): n numbers in a sample (in the whole of
    ``x`` if ``constant``), q the farther end of the grid. What is used is ``scale`` clipped to ``smallest`` …
    ``largest``; beyond these, a gradient that leads farther away is dropped.
    """
    return _apply(_LearnedPerTensor, x.float(), scale, zero_point, low, high, smallest, largest, constant)


def learned_fake_quantize_channels(x: Tensor, scale: Tensor, axis: int, smallest: Tensor) -> Tensor:
    """As ``fake_quantize_channels``, with a gradient for ``scale`` too; none is used below ``smallest`` (C,).

    The gradient is multiplied by ``1 / sqrt(n * 127)``, n the numbers that share a scale.
    """
    return _apply(_PerChannel, x.float(), scale, axis, smallest)


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    result: Tensor = function.apply(*arguments)
    return result


def _rounded(x: Tensor, scale: float, lower: int, upper: int) -> Tensor:
    # Into memory of the same strides: where a size is 1, torch would choose new ones, and with them oneDNN
    # may choose a kernel that is hundreds of times slower (depthwise convolutions on 1 x 1 pixels).
    ratio = torch.mul(x, _inverse(scale), out=torch.empty_like(x))
    return ratio.round_().clamp_(lower, upper).mul_(scale)


def _inverse(scale: float) -> float:
    return float(np.float32(1) / np.float32(scale))


@functools.lru_cache(maxsize=4096)
def _edges(scale: float, lower: int, upper: int) -> tuple[float, float]:
    """The float32 numbers next outside of those that round to ``lower`` … ``upper``.

    With them, the mask of the backward pass is one comparison with ``x`` itself: nothing else is kept for it.
    """
    inverse = np.float32(_inverse(scale))

    def first(x: np.float32, beyond: Any, outwards: np.float32) -> float:
        with np.errstate(over="ignore"):
            while beyond(np.rint(x * inverse)):
                x = np.nextafter(x, -outwards)
            while not beyond(np.rint(x * inverse)):
                x = np.nextafter(x, outwards)
        return float(x)

    infinity, step = np.float32(np.inf), np.float32(scale)
    below = first(np.float32(lower - 0.5) * step, lambda q: q < lower, -infinity)
    above = first(np.float32(upper + 0.5) * step, lambda q: q > upper, infinity)
    return below, above


def _inside(gradient: Tensor, x: Tensor, below: float, above: float) -> Tensor:
    """``gradient`` where ``below < x < above``, else 0; in one pass."""
    result: Tensor = torch.ops.aten.hardtanh_backward.default(gradient, x, below, above)
    return result


class _PerTensor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, zero_point: int, low: int, high: int) -> Tensor:
        lower, upper = low - zero_point, high - zero_point
        ctx.save_for_backward(x)
        ctx.grid = (scale, lower, upper)
        return _rounded(x, scale, lower, upper)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return _inside(gradient, x, *_edges(*ctx.grid)), None, None, None, None


class _LearnedPerTensor(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        zero_point: int,
        low: int,
        high: int,
        smallest: float,
        largest: float,
        constant: bool,
    ) -> Tensor:
        ctx.own = float(scale)
        used = min(max(ctx.own, smallest), largest)
        ctx.grid = (used, low - zero_point, high - zero_point)
        ctx.bounds = (smallest, largest)
        numbers = x.numel() if constant else x.numel() // max(1, x.shape[0])
        ctx.factor = 1 / math.sqrt(max(1, numbers) * max(zero_point - low, high - zero_point))
        y = _rounded(x, *ctx.grid)
        ctx.save_for_backward(x, y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, y, scale = ctx.saved_tensors
        inner = _inside(gradient, x, *_edges(*ctx.grid))
        # dy/ds: (y - x) / s inside the range, y / s (its end, an integer) outside.
        moved = torch.sum((y - x).mul_(inner)) + torch.sum((gradient - inner).mul_(y))
        slope = moved * (ctx.factor / ctx.grid[0])
        smallest, largest = ctx.bounds
        # The optimizer goes against the gradient.
        if ctx.own <= smallest:
            slope = slope.clamp(max=0)
        if ctx.own >= largest:
            slope = slope.clamp(min=0)
        return inner, slope.reshape(scale.shape), *[None] * 6


class _PerChannel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, axis: int, smallest: Tensor | None) -> Tensor:
        shape = [-1 if dim == axis % x.dim() else 1 for dim in range(x.dim())]
        used = scale if smallest is None else torch.maximum(scale, smallest)
        step = used.reshape(shape)
        ratio = x * (1 / step)
        integers = ratio.round()
        ctx.save_for_backward(ratio, integers, scale, smallest)
        ctx.shape = shape
        y = torch.empty_like(x)  # of the same strides, see _rounded
        return torch.clamp(integers, -_WEIGHT_BOUND, _WEIGHT_BOUND, out=y).mul_(step)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ratio, integers, scale, smallest = ctx.saved_tensors
        inner = _inside(gradient, integers, -_WEIGHT_BOUND - 0.5, _WEIGHT_BOUND + 0.5)
        slope = None
        if smallest is not None and ctx.needs_input_grad[1]:
            ends = integers.clamp(-_WEIGHT_BOUND, _WEIGHT_BOUND)
            moved = (integers - ratio).mul_(inner) + (gradient - inner).mul_(ends)
            others = [dim for dim, size in enumerate(ctx.shape) if size == 1]
            moved = moved.sum(others) if others else moved
            slope = moved.reshape(scale.shape) / math.sqrt(ratio.numel() / scale.numel() * _WEIGHT_BOUND)
            slope = torch.where(scale <= smallest, slope.clamp(max=0), slope)
        return inner, slope, None, None
