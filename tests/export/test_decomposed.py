"""Programs that need no decomposition are left as they are, and the others are decomposed as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from edgekit.formats.exporting import export
from edgekit.formats.onnx import decomposed
from edgekit.formats.onnx import writing as onnx_format
from edgekit.graph.capture import capture, export_program
from edgekit.int8.calibration import calibrate
from tests.models.resnets import Resnet8

aten = torch.ops.aten


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(x + 1)


class Composite(nn.Module):
    """Batch norm is made of another op in torch, and no table of decompositions names it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Plain(nn.Module):
    """Sizes are computed with Python's own operators."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x).reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3])


def program(model: nn.Module) -> torch.export.ExportedProgram:
    return decomposed.sparing(export_program(model.eval(), torch.randn(2, 3, 8, 8)))


def targets(found: torch.export.ExportedProgram) -> set[Any]:
    return {node.target for node in found.graph.nodes if node.op == "call_function"}


# A table that keeps what an exporter knows, as torch.onnx makes one.
TABLE = {aten.hardsigmoid.default: lambda x: torch.clamp(x / 6 + 0.5, 0, 1)}


def test_what_no_table_names_is_left_alone() -> None:
    plain = program(Plain())
    assert plain.run_decompositions(TABLE) is plain


@pytest.mark.parametrize(
    ("model", "op"), [(InPlace(), aten.relu_.default), (Composite(), aten.batch_norm.default)]
)
def test_ops_that_change_under_tracing_are_traced(model: nn.Module, op: Any) -> None:
    whole = program(model)
    assert op in targets(whole)
    assert op not in targets(whole.run_decompositions(TABLE))


def test_ops_of_the_table_are_decomposed() -> None:
    assert aten.hardsigmoid.default not in targets(program(nn.Hardsigmoid()).run_decompositions(TABLE))


def test_the_exporter_knows_what_is_left_to_it() -> None:
    registry = ONNXRegistry.from_torchlib()
    assert {forms[0].fx_target for forms in registry.functions.values()} >= decomposed._KNOWN


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_files_answer_alike_either_way(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    example = torch.randn(2, 3, 32, 32)
    graph = capture(Resnet8().eval(), example)
    if precision == "int8":
        graph = calibrate(graph, [torch.randn(8, 3, 32, 32)])
    spared, usual = tmp_path / "spared.onnx", tmp_path / "usual.onnx"
    options: dict[str, Any] = {"format": "onnx", "precision": precision, "metadata": {}}
    export(graph, example[:1], spared, **options)
    monkeypatch.setattr(onnx_format, "sparing", lambda made: made)
    export(graph, example[:1], usual, **options)

    def ops(path: Path) -> list[str]:
        return [node.op_type for node in onnx.load(path).graph.node]

    assert ops(spared) == ops(usual)
    answers = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
            None, {"input": example.numpy()}
        )[0]
        for path in (spared, usual)
    ]
    assert (answers[0] == answers[1]).all()
