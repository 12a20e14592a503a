"""Concatenations between layers: nothing is lost on a grid that is not its own, in either file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.int8.unify import grid_of, is_shared, per_tensor
from tests.export.runtimes import files_of
from tests.networks import images, seeded, snr_db

pytestmark = pytest.mark.wide


class SplitAndJoined(nn.Module):
    """A slice made thirty times larger, beside the other slice; both come from one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        small, rest = self.first(x).split([2, 6], 1)
        return self.second(torch.cat([small * 30, rest], 1))


class SigmoidMovedAndJoined(nn.Module):
    """The fixed grid of a sigmoid, behind moves, beside a tensor of a larger range and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.token = nn.Parameter(torch.linspace(-6, 6, 4).reshape(1, 4, 1))
        self.last = nn.Linear(129, 5)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.first(x).sigmoid().flatten(2), 2 * self.second(x).flatten(2)
        return self.last(torch.cat([self.token.expand(x.shape[0], -1, -1), gate, value], 2))


class Dense(nn.Module):
    """Each layer reads all before it, joined anew."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 4 * i, 4, 3, padding=1) for i in range(5))
        self.head = nn.Conv2d(23, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for index, layer in enumerate(self.layers):
            seen.append(F.relu(layer(torch.cat(seen, 1))) * (1 + index))
        return self.head(torch.cat(seen, 1))


@pytest.mark.parametrize(
    "build", [SplitAndJoined, SigmoidMovedAndJoined, pytest.param(Dense, marks=pytest.mark.slow)]
)
def test_what_is_joined_between_layers_keeps_its_digits(build: type[nn.Module], tmp_path: Path) -> None:
    model, x = seeded(build), images(64)
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    one_grid_around_every_join(graph)
    with torch.no_grad():
        assert snr_db(model(x), graph(x)) > 30
        reference = graph(x[:4])
    for name, got in files_of(graph, x[:4], tmp_path).items():
        assert snr_db(reference, got) > 35, name


def one_grid_around_every_join(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        if not is_shared(node) or not any(user.target in ops.QUANTIZE for user in node.users):
            continue
        around = [source.args[0] for source in node.all_input_nodes if source.target in ops.DEQUANTIZE]
        around += [user for user in node.users if user.target in ops.QUANTIZE]
        assert len({grid_of(quantize) for quantize in around}) == 1, node


def test_the_finer_tensor_keeps_its_grid_for_its_other_readers() -> None:
    x = images(64)
    graph = calibrate(capture(seeded(SplitAndJoined), x[:1]), list(x.split(16)))
    layer = next(node for node in graph.graph.nodes if node.target in ops.CONVOLUTIONS)
    (joined,) = (node for node in graph.graph.nodes if node.target in ops.CONCATENATIONS)
    fine, coarse = (grid_of(next(iter(node.users)))[0] for node in (layer, joined))
    assert coarse > 8 * fine
    again = [q for q in per_tensor(graph) if q.args[0].target in ops.DEQUANTIZE]
    assert len(again) == 1  # one slice of two: the other reader is the product
