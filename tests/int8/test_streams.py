"""The residual stream of a pre-norm transformer: a small token isn't lost beside large ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from edgekit.formats.litert.islands import keep_islands
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.int8.streams import float_streams
from edgekit.int8.unify import per_tensor
from tests.export.runtimes import files_of
from tests.networks import Residual, images, seeded, snr_db

pytestmark = pytest.mark.wide


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


def near(model: nn.Module, x: Tensor, folder: Path) -> None:
    """The int8 graph is near to the model, and each file to the graph."""
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    with torch.no_grad():
        assert snr_db(model(x), graph(x)) > 30
        reference = graph(x[:4])
    for name, got in files_of(graph, x[:4], folder).items():
        assert snr_db(reference, got) > 35, name


def test_a_small_token_is_as_right_as_large_ones(tmp_path: Path) -> None:
    model, x = seeded(Stream), images(64)[:, 0]
    with torch.no_grad():
        model.token.copy_(torch.linspace(-0.02, 0.02, 8))
    near(model, x, tmp_path)


class ForItself(nn.Module):
    """A small class token that is cut out of the stream for layers of its own, and joined to it again; other
    tokens go through a convolution (as in CaiT, XCiT and CoaT). Branches are scaled by constants.
    """

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.linspace(-0.02, 0.02, 8).reshape(1, 1, 8))
        self.embed, self.own = nn.Linear(8, 8), nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.full((8,), 0.1))
        self.places = nn.Conv1d(8, 8, 3, padding=1, groups=8)
        self.norm, self.last, self.head = nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), 4 * self.embed(x)], 1)
        for _ in range(2):
            others = self.places(x[:, 1:].transpose(1, 2)).transpose(1, 2) + x[:, 1:]
            x = torch.cat([x[:, :1], others], 1)
            own = self.own(self.norm(x)[:, :1])
            x = x + self.scale * torch.cat([own, x[:, 1:]], 1)
        return self.head(self.last(x)[:, 0])


def test_a_small_token_with_layers_of_its_own(tmp_path: Path) -> None:
    model, x = seeded(ForItself), images(64)[:, 0]
    with torch.no_grad():
        model.token.copy_(torch.linspace(-0.02, 0.02, 8))
        model.own.weight.mul_(0.05)
    near(model, x, tmp_path)


def test_the_converter_draws_no_grid_in_front_of_a_cut() -> None:
    """It would bring all of the stream onto the grid behind the cut (as in coat_lite_tiny)."""
    model, x = seeded(ForItself), images(64)[:, 0]
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))

    def cuts() -> list[fx.Node]:
        found = []
        for quantize in per_tensor(graph):
            node = quantize.args[0]
            while node.target in ops.MOVES:
                node = node.args[0]
                if len(node.users) > 1 and node.target not in ops.DEQUANTIZE:
                    found.append(quantize)
                    break
        return found

    assert cuts()
    keep_islands(graph)
    assert not cuts()


def test_sums_that_layers_read_stay_on_integers() -> None:
    assert not float_streams(capture(seeded(Residual), images(1)))
    stream = float_streams(capture(seeded(Stream), images(1)[:, 0]))
    assert sum(node.target in ops.SUMS for node in stream) == 1
    assert sum(node.target in ops.CONCATENATIONS for node in stream) == 1


class Averaged(nn.Module):
    """Pictures whose places are averaged, and the average normed, as in front of ConvNeXt's head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 16, 3), nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stem(x).mean((2, 3))))


def test_a_mean_that_only_a_norm_reads_is_not_rounded(tmp_path: Path) -> None:
    model, x = seeded(Averaged), images(64)
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    (mean,) = [node for node in graph.graph.nodes if node.target in ops.MEANS]
    assert not any(user.target in ops.QUANTIZE for user in mean.users)
    with torch.no_grad():
        assert snr_db(model(x), graph(x)) > 35
        reference = graph(x[:4])
    for name, got in files_of(graph, x[:4], tmp_path).items():
        assert snr_db(reference, got) > 35, name
