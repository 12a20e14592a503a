"""LiteRT's fixed-point arithmetic: the parameters of the generated kernels, and a slow truth beside them.

Jacob et al. 2018, Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference (arXiv 1712.05877), §2.2; rounding as in gemmlowp's and LiteRT's reference kernels: twice, once in
the high half of the product, once in the shift.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.c99.reading import Tensor

__all__ = [
    "Unsupported",
    "activation_range",
    "high_mul",
    "multiplier",
    "on_grid",
    "once",
    "rescale",
    "rounding_shift",
]


class Unsupported(Exception):
    """Why an op can't be written in C; its message is the reason. Never leaves this package."""


def multiplier(real: float) -> tuple[int, int]:
    """``real`` as (m, shift): m / 2³¹ · 2^shift with m in [2³⁰, 2³¹), or (0, 0) for next to nothing.

    Raises:
        Unsupported: a factor of 2³⁰ or more, which no trained network has.
    """
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    fixed = int(math.copysign(math.floor(abs(fraction) * 2**31 + 0.5), fraction))
    if abs(fixed) == 2**31:
        fixed, shift = fixed // 2, shift + 1
    if shift < -31:
        return 0, 0
    if shift > 30:
        raise Unsupported(f"a scale factor of {real:g}")
    return fixed, shift


def once(real: float, furthest: int) -> tuple[int, int]:
    """``real`` as (m, shift) for the kernel "rescale_once": m / 2^(32 + shift), m a double's 53 bits.

    The kernel rounds x · real once. LiteRT rounds it to a double before it rounds it to an integer. All x
    beside a tie are tried, up to where every answer is clamped, and m is moved by its last bits until both
    give the same.

    Args:
        real: positive.
        furthest: the largest magnitude of x.

    Raises:
        Unsupported: answers beyond 32 bits, or no m that gives LiteRT's.
    """
    if furthest * real >= 2**30:
        raise Unsupported(f"a scale factor of {real:g}")
    if furthest * real < 0.25:
        return 0, 1
    fraction, exponent = math.frexp(real)
    m, shift = int(fraction * 2**53), 53 - exponent - 32
    if shift < 1:
        raise Unsupported(f"a scale factor of {real:g}")
    ties = np.arange(257) + 0.5
    beside = np.floor(ties / real).astype(np.int64)[:, None] + np.arange(-1, 3)
    beside = np.unique(beside[(beside >= 0) & (beside <= furthest)])
    products = beside * real
    wanted = np.floor(products) + (products - np.floor(products) >= 0.5)
    for moved in (0, 1, -1, 2, -2):
        if np.array_equal(_once(beside, m + moved, shift), wanted):
            return m + moved, shift
    raise Unsupported(f"a scale factor of {real!r}, whose rounding in doubles no integer follows")


def _once(x: NDArray[np.int64], m: int, shift: int) -> NDArray[np.int64]:
    """The kernel's arithmetic, for x >= 0."""
    high = x * (m >> 32) + ((x.astype(np.uint64) * np.uint64(m & 0xFFFFFFFF)) >> np.uint64(32)).astype(
        np.int64
    )
    return (high + (1 << (shift - 1))) >> shift


def high_mul(a: int, b: int) -> int:
    """The product / 2³¹, rounded to nearest, ties upwards."""
    return (a * b + (1 << 30)) >> 31


def rounding_shift(x: int, exponent: int) -> int:
    """Division by 2^exponent, rounded to nearest, ties away from zero."""
    if exponent == 0:
        return x
    half = 1 << (exponent - 1)
    return (x + half) >> exponent if x >= 0 else -((-x + half) >> exponent)


def rescale(x: int, m: int, shift: int) -> int:
    """What the kernels compute for x · m / 2³¹ · 2^shift: rounded twice; a left shift wraps at 32 bits."""
    if shift > 0:
        shifted = (x << shift) & 0xFFFFFFFF
        return high_mul(shifted - (1 << 32) if shifted >> 31 else shifted, m)
    return rounding_shift(high_mul(x, m), -shift)


def activation_range(activation: int, output: Tensor) -> tuple[int, int]:
    """(least, most) of an int8 output behind a fused activation.

    Raises:
        Unsupported: an activation that isn't a clamp.
    """
    from ai_edge_litert.schema_py_generated import ActivationFunctionType as Kind

    limits = {
        Kind.NONE: (None, None),
        Kind.RELU: (0.0, None),
        Kind.RELU_N1_TO_1: (-1.0, 1.0),
        Kind.RELU6: (0.0, 6.0),
    }
    if activation not in limits:
        raise Unsupported(f"the fused activation number {activation}")
    low, high = limits[activation]
    least = -128 if low is None else max(-128, on_grid(low, output))
    most = 127 if high is None else min(127, on_grid(high, output))
    return least, most


def on_grid(value: float, tensor: Tensor) -> int:
    """A number in float32, on a tensor's grid, ties away from zero; not clamped."""
    steps = float(np.float32(value) / tensor.scale)
    return int(math.copysign(math.floor(abs(steps) + 0.5), steps)) + tensor.zero_point
