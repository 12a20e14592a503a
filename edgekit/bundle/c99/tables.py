"""Functions of one int8 number as 256 answers, computed as LiteRT's kernels compute them.

LOGISTIC and TANH are tables in LiteRT, too (float32 on the grids of input and output). HARD_SWISH and
LEAKY_RELU are 16 and 32 bit arithmetic there; their answers are worked out here, once for each number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.c99.fixed_point import Unsupported, multiplier, rescale, rounding_shift
from edgekit.bundle.c99.reading import Tensor

__all__ = ["TABLES", "table"]


def table(kind: str, source: Tensor, output: Tensor, options: Any = None) -> NDArray[np.int8]:
    """The answers for -128 to 127: (256,).

    Raises:
        Unsupported: grids that LiteRT's kernel refuses.
    """
    return TABLES[kind](source, output, options)


def _through_floats(function: Callable[[float], float], source: Tensor, output: Tensor) -> NDArray[np.int8]:
    """float32 at every step, as in LiteRT; the function itself is rounded once, from float64."""
    inverse = np.float32(1) / output.scale
    answers = []
    for value in range(-128, 128):
        real = source.scale * np.float32(value - source.zero_point)
        steps = float(np.float32(function(float(real))) * inverse)
        nearest = math.copysign(math.floor(abs(steps) + 0.5), steps)
        answers.append(min(127, max(-128, int(nearest) + output.zero_point)))
    return np.array(answers, np.int8)


def _logistic(source: Tensor, output: Tensor, options: Any) -> NDArray[np.int8]:
    if output.scale != np.float32(1 / 256):
        raise Unsupported(f"LOGISTIC on a grid of {output.scale}, not 1/256")

    def function(x: float) -> float:
        with np.errstate(over="ignore"):
            return float(np.float32(1) / (np.float32(1) + np.float32(np.exp(np.float64(-x)))))

    return _through_floats(function, source, output)


def _tanh(source: Tensor, output: Tensor, options: Any) -> NDArray[np.int8]:
    return _through_floats(math.tanh, source, output)


def _leaky_relu(source: Tensor, output: Tensor, options: Any) -> NDArray[np.int8]:
    same = multiplier(float(source.scale / output.scale))
    slope = multiplier(float(source.scale * np.float32(options.alpha) / output.scale))
    answers = []
    for value in range(-128 - source.zero_point, 128 - source.zero_point):
        answer = rescale(value, *(same if value >= 0 else slope)) + output.zero_point
        answers.append(min(127, max(-128, answer)))
    return np.array(answers, np.int8)


def _hard_swish(source: Tensor, output: Tensor, options: Any) -> NDArray[np.int8]:
    """Hard swish, x · relu6(x + 3) / 6, in 16 bits: x on the output's grid times a share in Q0.15.

    The share is x / 3 in Q0.15, saturated, then moved from [-1, 1] to [0, 1] (Howard et al. 2019, arXiv
    1905.02244, §5.2; the 16 bit arithmetic is LiteRT's).
    """
    fine = np.float32(1 / 128) * source.scale  # seven bits finer than the input
    output_factor, output_shift = _short(float(fine / output.scale))
    share_factor, share_shift = _short(float(fine / (np.float32(3) / np.float32(32768))))
    if output_shift > 0:
        raise Unsupported("HARD_SWISH to a grid that is much finer than that of its input")
    answers = []
    for value in range(-128 - source.zero_point, 128 - source.zero_point):
        x = value * 128
        share = x
        if share_shift > 0:
            share = _short_range(share << (share_shift - 1))
        share = _high_mul_16(share, share_factor)
        if share_shift > 0:
            share = _short_range(share << 1)
        if share_shift < 0:
            share = rounding_shift(share, -share_shift)
        share = (share + 32768) >> 1
        product = share * _high_mul_16(x, output_factor)
        high = -((-product) >> 15) if product < 0 else product >> 15  # cut towards zero
        answer = rounding_shift(high, -output_shift) + output.zero_point
        answers.append(min(127, max(-128, answer)))
    return np.array(answers, np.int8)


def _short(real: float) -> tuple[int, int]:
    """A multiplier of 16 bits and its shift."""
    m, shift = multiplier(real)
    return (32767 if m >= 0x7FFF0000 else (m + (1 << 15)) >> 16), shift


def _short_range(x: int) -> int:
    return min(32767, max(-32768, x))


def _high_mul_16(a: int, b: int) -> int:
    """The product / 2¹⁵, rounded to nearest, ties upwards."""
    return (a * b + (1 << 14)) >> 15


TABLES: dict[str, Callable[[Tensor, Tensor, Any], NDArray[np.int8]]] = {
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": _leaky_relu,
    "LOGISTIC": _logistic,
    "TANH": _tanh,
}
