"""The residual stream of a pre-norm transformer: a small token isn't lost beside large ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit.int8 import ops
from edgekit.int8.calibration import calibrate
from edgekit.int8.capture import capture
from edgekit.int8.streams import float_streams
from tests.export.runtimes import files_of
from tests.networks import Residual, images, seeded, snr_db


class Stream(nn.Module):
    """A class token a hundred times smaller than the others; the answer is read from it."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.linspace(-0.02, 0.02, 8).reshape(1, 1, 8))
        self.embed, self.mix = nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm, self.last, self.head = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), 4 * self.embed(x)], 1)
        x = x + 0.01 * self.mix(self.norm(x))
        return self.head(self.last(x)[:, 0])


def test_a_small_token_is_as_right_as_large_ones(tmp_path: Path) -> None:
    model, x = seeded(Stream), images(64)[:, 0]
    with torch.no_grad():
        model.token.copy_(torch.linspace(-0.02, 0.02, 8))
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    with torch.no_grad():
        assert snr_db(model(x), graph(x)) > 30
        reference = graph(x[:4])
    for name, got in files_of(graph, x[:4], tmp_path).items():
        assert snr_db(reference, got) > 35, name


def test_sums_that_layers_read_stay_on_integers() -> None:
    assert not float_streams(capture(seeded(Residual), images(1)))
    stream = float_streams(capture(seeded(Stream), images(1)[:, 0]))
    assert sum(node.target in ops.SUMS for node in stream) == 1
    assert sum(node.target in ops.CONCATENATIONS for node in stream) == 1
