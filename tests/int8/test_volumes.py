"""Three-dimensional convolutions, which LiteRT computes in float: what stands behind them stays."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import files_of
from tests.networks import seeded, snr_db


class Volumes(nn.Module):
    """Two of them, a ReLU behind each."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(2, 8, 3, padding=1), nn.Conv3d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x)))).mean((2, 3, 4)))


def test_the_relu_between_two_volumes_stays(tmp_path: Path) -> None:
    low = torch.randn(64, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    x = F.interpolate(low, (6, 12, 12), mode="trilinear")
    model = seeded(Volumes)
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    with torch.no_grad():
        wanted, reference = model(x[:8]), graph(x[:8])
    assert snr_db(wanted, reference) > 30
    for name, got in files_of(graph, x[:8], tmp_path).items():
        assert snr_db(reference, got) > 30, name
        assert snr_db(wanted, got) > 30, name
