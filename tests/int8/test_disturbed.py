"""Roundings that are moved: so many of them, by one step, inside of their grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from edgekit.graph import ops
from edgekit.int8.disturbed import disturbed

STEP, LOW, HIGH = 0.5, -3, 5


class Rounding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        grid = (STEP, 0, LOW, HIGH, torch.int8)
        integers = ops.qd.quantize_per_tensor.default(x, *grid)
        return ops.qd.dequantize_per_tensor.default(integers, *grid)


def moved_by(share: float, samples: Tensor, seed: int = 0) -> Tensor:
    graph = fx.symbolic_trace(Rounding())
    return ((disturbed(graph, samples, share, seed=seed) - graph(samples)) / STEP).round()


@pytest.mark.parametrize("share", [1e-3, 0.02, 0.3])
def test_so_many_move_up_and_down(share: float) -> None:
    steps = moved_by(share, torch.zeros(4, 3, 100, 100))
    assert set(steps.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert float(steps.abs().mean()) == pytest.approx(share, rel=0.2)
    assert abs(float(steps.mean())) < 0.2 * share


@given(seed=st.integers(0, 1000), share=st.floats(0, 1), count=st.integers(1, 40))
def test_by_one_step_at_most_and_never_off_the_grid(seed: int, share: float, count: int) -> None:
    samples = torch.linspace(-4, 4, count)[None]
    steps = moved_by(share, samples, seed)
    assert float(steps.abs().max()) <= 1
    integers = (samples / STEP).round().clamp(LOW, HIGH) + steps
    assert float(integers.min()) >= LOW
    assert float(integers.max()) <= HIGH


def test_no_share_moves_nothing_and_a_small_one_moves_one_now_and_then() -> None:
    samples = torch.zeros(1, 10)
    assert not moved_by(0.0, samples).any()
    moved = [float(moved_by(0.01, samples, seed).abs().sum()) for seed in range(400)]
    assert set(moved) == {0.0, 1.0}  # a tenth of an integer for each seed
    assert 20 <= sum(moved) <= 65
