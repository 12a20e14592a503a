"""What is said against calibration data that ranges can't rest on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekit.int8.doubts import doubts


def pictures(count: int, seed: int = 0) -> Tensor:
    """Each with a brightness of its own."""
    generator = torch.Generator().manual_seed(seed)
    light = torch.randn(count, 1, 1, 1, generator=generator)
    return light + 0.5 * torch.randn(count, 3, 8, 8, generator=generator)


def told(calibration: Tensor, validation: Tensor) -> str:
    return "; ".join(doubts(calibration.split(16), validation.split(16)))


def test_samples_of_one_kind_are_believed() -> None:
    assert told(pictures(64), pictures(64, 1)) == ""


@pytest.mark.parametrize(
    ("calibration", "validation", "said"),
    [
        (pictures(8), pictures(64, 1), "8 samples are few"),
        (torch.zeros(64, 3, 8, 8), pictures(64), "every value is the same"),
        (pictures(1).repeat(64, 1, 1, 1), pictures(64), "all samples are the same"),
        (pictures(1) + 0.01 * pictures(64), pictures(64, 1), "resemble each other: validation samples lie"),
        (pictures(64), pictures(64, 1) + 2, "higher on average"),
        (pictures(64), pictures(64, 1) - 2, "lower on average"),
        (pictures(64), 4 * pictures(64, 1), "spread 3.9 times as much"),
        (pictures(64).clamp(-1, 1), pictures(64, 1), "lie well outside of what was seen (-1 to 1"),
    ],
)
def test_each_doubt_is_said(calibration: Tensor, validation: Tensor, said: str) -> None:
    assert said in told(calibration, validation)


def test_whole_numbers_are_only_asked_whether_they_differ() -> None:
    tokens = torch.randint(0, 100, (64, 12), generator=torch.Generator().manual_seed(0))
    assert told(tokens, tokens + 1000) == ""
    assert "all samples are the same" in told(tokens[:1].repeat(64, 1), tokens)
