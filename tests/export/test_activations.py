"""Activations that models write out are those that PyTorch has by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.formats.litert.delegated import delegated
from edgekit.formats.litert.reading import load
from edgekit.graph.capture import capture
from edgekit.graph.ops import aten
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import files_of
from tests.networks import seeded, snr_db

WRITTEN: dict[str, tuple[Callable[[Tensor], Tensor], object]] = {
    "gelu_new": (
        lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0)))),
        aten.gelu.default,
    ),
    "gelu_fast": (
        lambda x: 0.5 * x * (1 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x))),
        aten.gelu.default,
    ),
    "gelu": (lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))), aten.gelu.default),
    "mish": (lambda x: x * torch.tanh(functional.softplus(x)), aten.mish.default),
    "behind a ReLU": (lambda x: (y := x.relu()) * 0.5 * (1 + torch.erf(y / math.sqrt(2))), aten.gelu.default),
    "another factor": (lambda x: 0.51 * x * (1.0 + torch.erf(x / math.sqrt(2.0))), None),
    "of two tensors": (lambda x: x * 0.5 * (1.0 + torch.erf(x.flip(1) / math.sqrt(2.0))), None),
    "read on the way": (lambda x: x * 0.5 * (y := 1.0 + torch.erf(x / math.sqrt(2.0))) + y, None),
}


class Written(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.first, self.last, self.name = nn.Linear(8, 16), nn.Linear(16, 4), name

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(WRITTEN[self.name][0](self.first(x)))
        return found


@pytest.mark.parametrize("name", WRITTEN)
def test_it_is_recognised_by_its_numbers(name: str) -> None:
    model, x = seeded(lambda: Written(name)), 4 * torch.randn(64, 8)
    graph = capture(model, x[:2])
    found = {node.target for node in graph.graph.nodes} & {aten.gelu.default, aten.mish.default}
    known = WRITTEN[name][1]
    assert found == ({known} if known else set())
    with torch.no_grad():
        assert snr_db(model(x), graph(x)) > 110


def test_files_of_a_gelu_that_is_written_out(tmp_path: Path) -> None:
    model, x = seeded(lambda: Written("gelu_new")), 2 * torch.randn(64, 8)
    graph = calibrate(capture(model, x[:1]), [x])
    with torch.no_grad():
        wanted = graph(x[:8])
        assert snr_db(model(x[:8]), wanted) > 30
    for format, answered in files_of(graph, x[:8], tmp_path).items():
        assert snr_db(wanted, answered) > 40, format
    found = delegated(load(tmp_path / "graph.litert"))
    assert (found.partitions, found.outside) == (1, {})


class Learned(nn.Module):
    """SiLU as long as what is learned is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.beta = nn.Linear(8, 16), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        found: Tensor = y * torch.sigmoid(self.beta * y)
        return found


def test_what_is_learned_and_what_ends_far_away_is_kept() -> None:
    x = torch.randn(4, 8)
    assert aten.silu.default not in {node.target for node in capture(Learned(), x).graph.nodes}
    clamped = capture(nn.Sequential(nn.Linear(8, 8), nn.Hardtanh(-64, 64), nn.SiLU()), x)
    assert len([node for node in clamped.graph.nodes if node.op == "call_function"]) == 3
