"""Average poolings in int8 files: the same numbers, by kernels that are fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.formats import FORMATS
from edgekit.formats.averaging import average_by_convolution
from edgekit.formats.exporting import export
from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.delegated import delegated
from edgekit.formats.litert.reading import load
from edgekit.formats.options import ExportOptions
from edgekit.formats.parity.divergence import layer_parity
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import files_of
from tests.networks import seeded, snr_db


class Averaged(nn.Module):
    """A pooling with the settings given, between two convolutions."""

    def __init__(self, dims: int, settings: dict[str, Any]) -> None:
        super().__init__()
        conv, pool = {1: (nn.Conv1d, nn.AvgPool1d), 2: (nn.Conv2d, nn.AvgPool2d)}[dims]
        self.first, self.last = conv(4, 8, 3), conv(8, 4, 1)
        self.pool = pool(**settings)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pool(torch.relu(self.first(x))))


SETTINGS = {
    "halves": ({"kernel_size": 2}, (4, 14, 12)),
    "overlapping": ({"kernel_size": 3, "stride": 2}, (4, 15, 14)),
    "padded": ({"kernel_size": 3, "stride": 1, "padding": 1}, (4, 12, 11)),
    "border not counted": (
        {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False},
        (4, 12, 11),
    ),
    "border not counted, in steps": (
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        (4, 13, 12),
    ),
    "flat": ({"kernel_size": (1, 4), "stride": (1, 2), "padding": (0, 2)}, (4, 8, 14)),
    "another divisor": ({"kernel_size": 2, "divisor_override": 3}, (4, 14, 12)),
    "last windows cut off": ({"kernel_size": 3, "stride": 2, "ceil_mode": True}, (4, 14, 14)),
    "of features": ({"kernel_size": 3, "stride": 2, "padding": 1}, (4, 21)),
}


FIRST = ("padded", "border not counted")


@pytest.mark.parametrize(
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.wide) for name in SETTINGS]
)
def test_files_are_right_and_have_no_pooling(name: str, tmp_path: Path) -> None:
    settings, shape = SETTINGS[name]
    model = seeded(Averaged, len(shape) - 1, settings)
    x = torch.randn(32, *shape, generator=torch.Generator().manual_seed(1))
    graph = calibrate(capture(model, x[:1]), [x])
    with torch.no_grad():
        wanted = graph(x[:4])
    for format, answers in files_of(graph, x[:4], tmp_path).items():
        assert snr_db(wanted, answers) > 45, format
        assert max(layer.peak for layer in layer_parity(graph, format, x[:4])) < 1.001, format
        coverage = FORMATS[format].coverage(tmp_path / f"graph.{format}")  # type: ignore[index]
        assert (coverage.share, len(coverage.layers)) == (1, 2), format
    ops = {node.op_type for node in onnx.load(tmp_path / "graph.onnx").graph.node}
    assert "AveragePool" not in ops
    assert "AVERAGE_POOL_2D" not in kinds(tmp_path / "graph.litert")


def test_whole_for_a_microcontroller(tmp_path: Path) -> None:
    settings, shape = SETTINGS["halves"]
    model, x = seeded(Averaged, 2, settings), torch.randn(8, *shape)
    graph, path = calibrate(capture(model, x[:1]), [x]), tmp_path / "whole.tflite"
    whole = ExportOptions(whole_kernels=True)
    export(graph, x[:1], path, format="litert", precision="int8", metadata={}, options=whole)
    assert "AVERAGE_POOL_2D" in kinds(path)


def test_a_float_graph_keeps_its_poolings() -> None:
    settings, shape = SETTINGS["halves"]
    assert average_by_convolution(capture(seeded(Averaged, 2, settings), torch.randn(1, *shape))) == 0


class Maximum(nn.Module):
    """As in ResNets: a maximum over padded windows, behind a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.max_pool2d(torch.relu(self.first(x)), 3, 2, 1))


def test_a_maximum_behind_a_relu_is_padded_with_zeros(tmp_path: Path) -> None:
    model, x = seeded(Maximum), torch.randn(32, 4, 16, 16)
    graph = calibrate(capture(model, x[:1]), [x])
    with torch.no_grad():
        wanted = graph(x[:4])
    assert snr_db(wanted, files_of(graph, x[:4], tmp_path)["litert"]) > 45
    assert {"PAD", "MAX_POOL_2D"} < kinds(tmp_path / "graph.litert")
    assert "PADV2" not in kinds(tmp_path / "graph.litert")
    assert delegated(load(tmp_path / "graph.litert")).outside == {}


def kinds(path: Path) -> set[str]:
    model = tflite_edit.read(path.read_bytes())
    names = tflite_edit.kinds(model)
    return {names[one.opcodeIndex] for one in model.subgraphs[0].operators}
