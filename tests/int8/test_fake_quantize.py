"""The fake-quantise ops against aten's and against plain NumPy, gradients included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from edgekit.int8.fake_quantize import (
    fake_quantize,
    fake_quantize_channels,
    learned_fake_quantize,
    learned_fake_quantize_channels,
)

SCALES = st.floats(1e-4, 50).map(lambda value: float(np.float32(value)))
ZEROS = st.integers(-128, 127)
SEEDS = st.integers(0, 1000)
INFINITY = float("inf")


def numbers(seed: int, scale: float, count: int = 512) -> Tensor:
    """Half of them random, inside and outside of the grid; half of them at ties and at the grid's ends."""
    random = torch.randn(count // 2, generator=torch.Generator().manual_seed(seed)) * 120 * scale
    ties = (torch.arange(count - count // 2) - count // 4 + 0.5) * scale
    return torch.cat([random, ties])


def gradients(y: Tensor, wanted: list[Tensor], seed: int = 7) -> list[Tensor]:
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    return list(torch.autograd.grad(y, wanted, weights))


@given(SCALES, ZEROS, SEEDS)
def test_numbers_and_gradients_are_those_of_aten(scale: float, zero: int, seed: int) -> None:
    x = numbers(seed, scale).requires_grad_()
    own = fake_quantize(x, scale, zero, -128, 127)
    aten = torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)
    assert torch.equal(own, aten)
    assert torch.equal(gradients(own, [x])[0], gradients(aten, [x])[0])


@given(st.sampled_from([(4, 3, 3, 3), (6, 1, 5), (5, 7)]), st.integers(0, 1), SEEDS)
def test_weights_are_those_of_aten(shape: tuple[int, ...], axis: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, requires_grad=True)
    scale = torch.rand(shape[axis], generator=generator) * 0.02 + 1e-3
    own = fake_quantize_channels(x, scale, axis)
    zero = torch.zeros(shape[axis], dtype=torch.int32)
    aten = torch.fake_quantize_per_channel_affine(x, scale, zero, axis, -127, 127)
    assert torch.equal(own, aten)
    assert torch.equal(gradients(own, [x])[0], gradients(aten, [x])[0])


def lsq_slowly(
    x: NDArray[np.float32], gradient: NDArray[np.float32], scale: float, low: int, high: int, n: int
) -> float:
    """Equation 3 of arXiv 1902.08153 number by number, with the factor of section 2.2."""
    total = 0.0
    for value, weight in zip(x.ravel(), gradient.ravel(), strict=True):
        ratio = float(np.float32(value) * np.float32(np.float32(1) / np.float32(scale)))
        if np.rint(ratio) < low:
            slope = float(low)
        elif np.rint(ratio) > high:
            slope = float(high)
        else:
            slope = float(np.rint(ratio)) - ratio
        total += slope * float(weight)
    return total / np.sqrt(n * max(-low, high))


@given(SCALES, ZEROS, SEEDS)
def test_gradient_of_a_learned_scale_is_that_of_the_paper(scale: float, zero: int, seed: int) -> None:
    x = numbers(seed, scale, 96).reshape(4, 24).requires_grad_()
    parameter = torch.tensor(scale, requires_grad=True)
    y = learned_fake_quantize(x, parameter, zero, -128, 127, scale / 16, INFINITY)
    assert torch.equal(y, fake_quantize(x, scale, zero, -128, 127))
    to_x, to_scale = gradients(y, [x, parameter])
    assert torch.equal(to_x, gradients(fake_quantize(x, scale, zero, -128, 127), [x])[0])
    weights = torch.randn(4, 24, generator=torch.Generator().manual_seed(7)).numpy()
    wanted = lsq_slowly(x.detach().numpy(), weights, scale, -128 - zero, 127 - zero, n=24)
    assert float(to_scale) == pytest.approx(wanted, rel=1e-3, abs=2e-4)


@given(st.integers(0, 1), SEEDS)
def test_gradient_of_learned_weight_scales_is_that_of_the_paper(axis: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 6, 3, generator=generator, requires_grad=True)
    channels = x.shape[axis]
    scale = (torch.rand(channels, generator=generator) * 0.02 + 5e-3).requires_grad_()
    y = learned_fake_quantize_channels(x, scale, axis, scale.detach() / 16)
    assert torch.equal(y, fake_quantize_channels(x, scale.detach(), axis))
    (slope,) = gradients(y, [scale])
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).numpy()
    values = x.detach().numpy()
    for channel in range(channels):
        one, other = np.take(values, channel, axis), np.take(weights, channel, axis)
        wanted = lsq_slowly(one, other, float(scale[channel].detach()), -127, 127, n=one.size)
        assert float(slope[channel]) == pytest.approx(wanted, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("start", [0.5, 2.0])
def test_a_learned_scale_finds_the_range_and_stays_positive(start: float) -> None:
    """Values that fill the grid at scale 1: a scale that starts too small or too large comes nearer to it."""
    x = torch.rand(64, 32, generator=torch.Generator().manual_seed(0)) * 254 - 127
    scale = torch.nn.Parameter(torch.tensor(start))
    optimizer = torch.optim.Adam([scale], lr=0.02)
    errors = []
    for _ in range(150):
        loss = (learned_fake_quantize(x, scale, 0, -128, 127, start / 16, INFINITY) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert 0.85 < float(scale.detach()) < 1.15
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize(("own", "used"), [(0.01, 0.1), (-3.0, 0.1), (5.0, 0.4)])
def test_a_scale_beyond_its_bounds_is_clipped_and_gets_no_gradient_farther_out(
    own: float, used: float
) -> None:
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)) * 40
    for sign in (1.0, -1.0):
        scale = torch.tensor(own, requires_grad=True)
        y = learned_fake_quantize(x, scale, 0, -128, 127, float(np.float32(0.1)), float(np.float32(0.4)))
        assert torch.equal(y, fake_quantize(x, float(np.float32(used)), 0, -128, 127))
        (slope,) = torch.autograd.grad((sign * y * y).sum(), scale)
        # The optimizer goes against it: from below only upwards, from above only downwards.
        assert slope <= 0 if own < used else slope >= 0


def test_orders_of_memory_are_kept_and_inputs_are_not_written_to() -> None:
    """Strides too where sizes of 1 leave them open: kernels are chosen by them."""
    for shape, strides in (
        ((2, 3, 4, 4), (48, 1, 12, 3)),
        ((8, 1, 5, 5), (25, 1, 5, 1)),
        ((2, 8, 1, 1), (8, 1, 8, 8)),
    ):
        x = torch.randn(2 * 3 * 4 * 5 * 5).as_strided(shape, strides)
        before = x.clone()
        scale = torch.full((shape[0],), 0.25)
        for y in (fake_quantize(x, 0.25, 3, -128, 127), fake_quantize_channels(x, scale, 0)):
            assert y.stride() == strides
        assert torch.equal(x, before)
