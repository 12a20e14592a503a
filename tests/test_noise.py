"""Signal-to-noise ratios that are summed up part by part: those of the plain formula over everything."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgekit import noise
from edgekit.noise import EXACT_DB, Noise, decibels


def plain(wanted: Tensor, got: Tensor) -> float:
    """Ten times the logarithm of the ratio of powers, in NumPy."""
    one, other = wanted.numpy().astype(np.float64), got.numpy().astype(np.float64)
    signal, lacks = float(np.sum(one**2)), float(np.sum((other - one) ** 2))
    if lacks == 0:
        return EXACT_DB
    return max(-EXACT_DB, min(EXACT_DB, 10 * math.log10(signal / lacks))) if signal else 0.0


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    scale=st.floats(-12, 12),
    cuts=st.lists(st.integers(0, 5), max_size=4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_in_parts_it_is_what_it_is_in_one(shape: list[int], scale: float, cuts: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.randn(shape, generator=generator) * 10**scale
    got = wanted + torch.randn(shape, generator=generator) * 10 ** (scale - 2)
    ends = sorted({0, len(wanted), *(cut for cut in cuts if cut <= len(wanted))})
    found = Noise()
    for start, end in itertools.pairwise(ends):
        found.add(wanted[start:end], got[start:end])
    assert found.db == pytest.approx(plain(wanted, got), abs=1e-6)
    samples = [plain(one, other) for one, other in zip(wanted, got, strict=True)]
    assert found.by_sample() == pytest.approx(samples, abs=1e-6)
    channels = [plain(wanted[:, c], got[:, c]) for c in range(shape[1])] if len(shape) > 1 else []
    assert found.by_channel() == pytest.approx(channels, abs=1e-6)
    assert found.largest == pytest.approx(float((got.double() - wanted.double()).abs().max()))


def test_one_channel_that_is_wrong_stands_out() -> None:
    wanted = torch.ones(10, 4, 3)
    wanted[:, 0] *= 1000
    got = wanted.clone()
    got[:, 3] = 0
    found = Noise()
    found.add(wanted, got)
    assert found.db > 60
    assert found.by_channel() == [EXACT_DB, EXACT_DB, EXACT_DB, 0.0]


def test_no_signal_no_noise_and_no_numbers() -> None:
    assert decibels(1.0, 0.0) == EXACT_DB
    assert decibels(0.0, 1.0) == 0.0
    assert decibels(1.0, math.nan) == decibels(1.0, math.inf) == -EXACT_DB
    assert Noise().db == EXACT_DB  # nothing differs from nothing
    broken = Noise()
    broken.add(torch.ones(2, 2), torch.tensor([[1.0, math.nan], [1.0, 1.0]]))
    assert broken.db == -EXACT_DB
    assert broken.by_sample() == [-EXACT_DB, EXACT_DB]
    assert broken.largest == math.inf
    with pytest.raises(ValueError, match="one shape"):
        broken.add(torch.ones(2, 2), torch.ones(2, 3))


def test_large_parts_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in float64 at once has a bound, whatever comes in."""
    seen: list[int] = []
    add = Noise._add

    def counting(self: Noise, wanted: Tensor, got: Tensor, axis: int | None) -> None:
        seen.append(wanted.numel())
        add(self, wanted, got, axis)

    monkeypatch.setattr(Noise, "_add", counting)
    monkeypatch.setattr(noise, "_CHUNK", 64)
    found, wanted = Noise(), torch.randn(33, 4, 4)
    found.add(wanted, wanted + 0.1)
    assert max(seen) <= 64
    assert sum(seen) == wanted.numel()
    assert found.db == pytest.approx(plain(wanted, wanted + 0.1))
