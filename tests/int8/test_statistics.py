"""Norms written by hand on samples of unlike loudness: quiet ones come out as right as loud ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.int8.trainable import trainable
from tests.export.runtimes import files_of
from tests.networks import seeded, snr_db

pytestmark = pytest.mark.wide


class Loudness(nn.Module):
    """A norm over the sample between two layers, in one of its spellings."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        self.first, self.second = nn.Conv1d(1, 16, 9, 2, 4, bias=False), nn.Conv1d(16, 24, 5, 2, 2)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(self.norm(self.first(x)))).mean(2))

    def norm(self, y: Tensor) -> Tensor:
        if self.spelling == "module":
            return F.group_norm(y, 1, eps=1e-8)
        if self.spelling == "two means":  # E[y²] - E[y]²
            mean = y.mean((1, 2), keepdim=True)
            variance = (y * y).mean((1, 2), keepdim=True) - mean.pow(2)
            return (y - mean) * torch.rsqrt(variance + 1e-8)
        mean = y.mean((1, 2), keepdim=True)
        if self.spelling == "twice":  # the difference that is squared is another than that which is divided
            return (y - mean) / torch.sqrt(((y - mean) ** 2).mean((1, 2), keepdim=True) + 1e-8)
        centred = y - mean
        if self.spelling == "sums":
            return centred / ((centred * centred).sum((1, 2), keepdim=True) / 1024 + 1e-8) ** 0.5
        return centred / torch.sqrt((centred**2).mean((1, 2), keepdim=True) + 1e-8)


def sounds() -> Tensor:
    """(96, 1, 128), loudness over one and a half decades, the loudest first."""
    g = torch.Generator().manual_seed(1)
    pitch = torch.arange(96)[:, None] % 4 * 4 + 4 + torch.rand(96, 1, generator=g)
    x = torch.sin(6.28 * pitch * torch.linspace(0, 1, 128)) + 0.4 * torch.randn(96, 128, generator=g)
    return x[:, None] * 10 ** (-1.5 * torch.linspace(0, 1, 96).reshape(96, 1, 1))


SLOW = [pytest.param(one, marks=pytest.mark.slow) for one in ("means", "sums")]


@pytest.mark.parametrize("spelling", ["twice", "two means", *SLOW])
def test_quiet_samples_are_as_right_as_with_the_module(spelling: str, tmp_path: Path) -> None:
    x, order = sounds(), torch.randperm(96, generator=torch.Generator().manual_seed(0))
    ratios, graphs = {}, {}
    for kind in ("module", spelling):
        model = seeded(lambda kind=kind: Loudness(kind))
        graphs[kind] = calibrate(
            capture(model, x[:1]),
            list(x[order].split(16)),
        )
        with torch.no_grad():
            pairs = zip(model(x), graphs[kind](x), strict=True)
            ratios[kind] = [snr_db(wanted, got) for wanted, got in pairs]
    assert min(ratios[spelling]) > min(ratios["module"]) - 0.5
    assert np.mean(ratios[spelling]) > np.mean(ratios["module"]) - 0.5
    quiet = x[-4:]
    reference = graphs[spelling](quiet).detach()
    for name, got in files_of(graphs[spelling], quiet, tmp_path).items():
        assert all(snr_db(one, other) > 25 for one, other in zip(reference, got, strict=True)), name


def test_no_gradient_is_ever_nan() -> None:
    x = sounds()
    graph = trainable(calibrate(capture(seeded(lambda: Loudness("means")), x[:1]), list(x.split(16))))
    (graph(x / 100) ** 2).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in graph.parameters() if p.grad is not None)
