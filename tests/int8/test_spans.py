"""Tensors of which one int8 grid keeps nearly nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekit.graph.capture import capture
from edgekit.int8.calibration import CalibrationOptions, estimate
from edgekit.int8.ranges import Histogram
from edgekit.int8.spans import too_wide
from tests.networks import images


def said(values: Tensor) -> str:
    low, high = float(values.min()), float(values.max())
    histogram = Histogram(min(low, 0.0), max(high, 0.0))
    histogram.add(values.reshape(1, -1))
    return too_wide(histogram, (max(high, 0.0) - min(low, 0.0)) / 255)


def normal(count: int = 20_000) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def test_ordinary_numbers_are_held() -> None:
    assert said(normal()) == ""
    assert said(normal().relu()) == ""  # half of them are 0 anyway
    assert said(normal().exp()) == ""


def test_a_few_that_are_much_larger_make_all_others_zero() -> None:
    values = normal()
    values[:20] = 2000.0
    told = said(values)
    assert "100% of its numbers other than 0 become 0 in int8" in told
    assert "3.5 decades" in told


def test_more_than_the_bins_tell_apart_is_told_as_at_least() -> None:
    values = normal()
    values[:20] = 1e7
    assert "span at least" in said(values)


def test_zeros_are_not_lost() -> None:
    values = torch.zeros(20_000)
    values[:2000] = 5 + normal(2000).clamp(-3, 3)
    assert said(values) == ""


class Loud(nn.Module):
    """One channel is a million times as loud as the others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 64, 3)
        self.last = nn.Conv2d(64, 4, 3)
        with torch.no_grad():
            self.first.weight[0] *= 1e5

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x)).mean((2, 3))


def test_calibration_names_the_layer() -> None:
    told: list[str] = []
    graph = capture(Loud().eval(), images(1))
    estimate(graph, [images(16), images(16, 1)], CalibrationOptions(), doubt=told.append)
    assert len(told) == 1
    assert told[0].startswith("layer first: ")
