"""Ops that runtimes have no fast kernel for, spelled otherwise in files: the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

from edgekit.formats.exporting import export
from edgekit.formats.litert.delegated import delegated
from edgekit.formats.litert.reading import load
from edgekit.formats.parity.divergence import layer_parity
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import files_of, nhwc, run_litert, run_onnx
from tests.networks import seeded, snr_db


class Between(nn.Module):
    """A layer between two convolutions."""

    def __init__(self, layer: nn.Module, channels: int, dims: int = 2) -> None:
        super().__init__()
        conv = nn.Conv1d if dims == 1 else nn.Conv2d
        self.first, self.layer, self.last = conv(4, 8, 1), layer, conv(channels, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.layer(torch.relu(self.first(x)))))


class Repeated(nn.Module):
    """Channels that are repeated in five dimensions, which LiteRT's converter refused."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.unsqueeze(2).expand(-1, -1, 2, -1, -1).reshape(n, 2 * c, h, w)


FORMS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "two kernels for each channel": (
        lambda: Between(nn.Conv2d(8, 16, 3, padding=1, groups=8), 16),
        (4, 9, 8),
    ),
    "three, in steps": (lambda: Between(nn.Conv2d(8, 24, 3, stride=2, groups=8, bias=False), 24), (4, 9, 8)),
    "of features": (lambda: Between(nn.Conv1d(8, 16, 5, padding=2, groups=8), 16, 1), (4, 20)),
    "large ones": (lambda: Between(nn.Conv2d(8, 16, 7, padding=3, groups=8), 16), (4, 9, 8)),
    "a group norm of one group": (lambda: Between(Norm(), 8), (4, 9, 8)),
    "twice as large": (lambda: Between(nn.Upsample(scale_factor=2), 8), (4, 5, 4)),
    "eight times as large": (lambda: Between(nn.Upsample(scale_factor=8), 8), (4, 3, 4)),
    "repeated in five dimensions": (lambda: Between(Repeated(), 16), (4, 9, 8)),
}
FIRST = ("two for each channel", "a group norm of one group", "twice as large")


class Norm(nn.GroupNorm):
    def __init__(self) -> None:
        super().__init__(1, 8)
        nn.init.uniform_(self.weight, 0.5, 2)
        nn.init.normal_(self.bias)


@pytest.mark.parametrize(
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.wide) for name in FORMS]
)
def test_the_same_numbers(name: str, tmp_path: Path) -> None:
    build, shape = FORMS[name]
    model: Any = seeded(build)
    x = torch.randn(32, *shape, generator=torch.Generator().manual_seed(1))
    graph = capture(model, x[:1])
    int8 = calibrate(graph, [x])
    rows = nhwc(x[:4]) if x.dim() == 4 else x[:4]
    with torch.no_grad():
        exact, wanted = graph(x[:4]), int8(x[:4])
    for format, run, given in (("onnx", run_onnx, x[:4]), ("litert", run_litert, rows)):
        path = tmp_path / f"fp32.{format}"
        how: Any = {"format": format, "precision": "fp32", "metadata": {}}
        export(graph, x[:1], path, **how)
        assert snr_db(exact, in_order(run(path, given), exact)) > 100, format
    for format, answers in files_of(int8, x[:4], tmp_path).items():
        assert snr_db(wanted, answers) > 45, format
        assert max(layer.peak for layer in layer_parity(int8, format, x[:4])) < 1.001, format
    if "large" in name and "kernel" not in name and "ones" not in name:
        shapes = [one.op_type for one in onnx.load(tmp_path / "graph.onnx").graph.node]
        assert shapes.count("Reshape") == 2, "ONNX Runtime would take Resize with channels last"
    elif "repeated" not in name:
        assert delegated(load(tmp_path / "graph.litert")).outside == {}


def in_order(answers: Tensor, like: Tensor) -> Tensor:
    return answers if answers.shape == like.shape else answers.movedim(-1, 1)
