"""Recurrent layers in files: int8 weights, integer kernels where there are some, and the graph's answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, fx, nn

from edgekit.errors import ExportError
from edgekit.formats import FORMATS
from edgekit.formats.coverage import Coverage
from edgekit.formats.exporting import export
from edgekit.formats.litert import splits, tflite_edit
from edgekit.formats.options import ExportOptions, Target
from edgekit.formats.parity.file_parity import file_parity
from edgekit.formats.parity.layers import first_wrong
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import run_litert, run_onnx
from tests.networks import snr_db
from tests.recurrent import STEPS, Quiet, Steps, draw, powers
from tests.spelling import backend_for, spelled

OPTIONS = ExportOptions(target=Target(weight_bits=7 if spelled() else 8))
DECIBELS = 35.0  # between file and graph, which doesn't round what the layers read at each step


def quantized(model: nn.Module) -> fx.GraphModule:
    return calibrate(capture(model, draw(2)), [draw(32, 1), draw(32, 2)])


def written(
    graph: Any, folder: Path, format: str, precision: Any = "int8", options: ExportOptions = OPTIONS
) -> Path:
    path = folder / f"{precision}{spelled()}{FORMATS[format].suffix}"
    export(graph, draw(1), path, format=format, precision=precision, metadata={}, options=options)
    return path


def answers(path: Path, x: Tensor) -> Tensor:
    if path.suffix == ".onnx":
        return torch.cat([run_onnx(path, row) for row in x.split(1)])
    return run_litert(path, x)


def macs(model: Steps, *, steps: int = STEPS) -> int:
    """Of the recurrent layers: every weight once for each step."""
    weights = sum(one.numel() for name, one in model.memory.named_parameters() if "weight" in name)
    return steps * weights


CELLS: list[Any] = [
    pytest.param(nn.LSTM, {}, "onnx", marks=pytest.mark.wide),
    pytest.param(nn.LSTM, {"layers": 2, "bidirectional": True, "given": True}, "onnx"),
    pytest.param(nn.LSTM, {"bias": False, "first": False}, "onnx", marks=pytest.mark.wide),
    pytest.param(nn.GRU, {"layers": 2, "bidirectional": True, "given": True}, "onnx", marks=pytest.mark.wide),
    pytest.param(nn.GRU, {"bias": False, "first": False}, "onnx", marks=pytest.mark.wide),
    pytest.param(nn.LSTM, {}, "litert", marks=pytest.mark.wide),
    pytest.param(nn.LSTM, {"layers": 2, "bidirectional": True}, "litert", marks=pytest.mark.wide),
    pytest.param(nn.LSTM, {"given": True, "bias": False}, "litert", marks=pytest.mark.wide),
    pytest.param(nn.LSTM, {"proj_size": 4}, "litert", marks=pytest.mark.wide),
    pytest.param(nn.GRU, {"given": True}, "litert"),
    pytest.param(nn.GRU, {"layers": 2, "bidirectional": True}, "litert", marks=pytest.mark.wide),
    pytest.param(nn.GRU, {"bias": False, "first": False}, "litert", marks=pytest.mark.wide),
]


@pytest.mark.parametrize(("kind", "settings", "format"), CELLS)
def test_files_multiply_the_graph_s_integers(kind: Any, settings: Any, format: str, tmp_path: Path) -> None:
    if format == "litert":
        pytest.importorskip("litert_torch", reason="needs the extra litert")
    model = Steps(kind, **settings)
    graph = quantized(model)
    path = written(graph, tmp_path, format)
    x = draw(16, 9)
    with torch.no_grad():
        assert snr_db(graph(x), answers(path, x)) >= DECIBELS
        assert snr_db(model(x), answers(path, x)) >= 25
    wrong = first_wrong(file_parity(graph, path, format, x[:4], options=OPTIONS, fused=not backend_for(path)))
    assert wrong is None
    counted = FORMATS[format].coverage(path)
    check_coverage(counted, model, format)


def check_coverage(counted: Coverage, model: Steps, format: str) -> None:
    if model.kind is nn.GRU and format == "onnx":
        # ONNX Runtime's GRU is float, and told as such; what stands around it is integer.
        assert {layer.kernel for layer in counted.floats()} == {"GRU"}
        assert all("float alone" in layer.reason for layer in counted.floats())
        assert counted.total_macs - counted.integer_macs == macs(model)
        return
    assert counted.share == 1
    if format == "onnx":
        (kernel,) = {layer.kernel for layer in counted.layers if "LSTM" in layer.kernel}
        assert kernel == "DynamicQuantizeLSTM"
        assert sum(layer.macs for layer in counted.layers if layer.kernel == kernel) == macs(model)


@pytest.mark.parametrize("format", ["onnx", pytest.param("litert", marks=pytest.mark.wide)])
def test_inputs_that_8_bits_dont_hold_keep_their_digits(format: str, tmp_path: Path) -> None:
    """They are multiplied in float, and told; the states, and the layers behind, on integers."""
    if format == "litert":
        pytest.importorskip("litert_torch", reason="needs the extra litert")
    graph = calibrate(capture(Quiet(), draw(2)), [powers(32, 1)])
    path = tmp_path / f"int8{spelled()}{FORMATS[format].suffix}"
    export(graph, powers(1), path, format=format, precision="int8", metadata={}, options=OPTIONS)
    x = powers(16, 9)
    with torch.no_grad():
        assert snr_db(graph(x), answers(path, x)) >= DECIBELS
    counted = FORMATS[format].coverage(path)
    weights = 4 * 8 * 8  # of inputs and of states alike
    floats = counted.total_macs - counted.integer_macs
    assert floats == STEPS * weights * (2 if format == "onnx" else 1)
    assert counted.integer_macs >= (STEPS - 1) * 2 * weights


@pytest.mark.parametrize("kind", [pytest.param(nn.LSTM, marks=pytest.mark.wide), nn.GRU])
def test_weights_are_stored_in_a_byte_each(kind: Any, tmp_path: Path) -> None:
    model = Steps(kind, hidden=64)
    small = written(quantized(model), tmp_path, "onnx")
    large = written(model, tmp_path, "onnx", "fp32")
    weights = sum(one.numel() for one in model.parameters() if one.dim() == 2)
    assert large.stat().st_size - small.stat().st_size > 2.7 * weights
    stored = [one for one in onnx.load(small).graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(one.dims)) for one in stored) <= 8 * 64  # biases and scales


@pytest.mark.wide
def test_the_weights_of_all_steps_are_one_tensor(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="needs the extra litert")
    model = Steps(nn.LSTM)
    path = written(quantized(model), tmp_path, "litert")
    file = tflite_edit.read(path.read_bytes())
    graph, kinds = file.subgraphs[0], tflite_edit.kinds(file)
    read = Counter(
        int(one.inputs[1]) for one in graph.operators if kinds[one.opcodeIndex] == "FULLY_CONNECTED"
    )
    shapes = {tuple(map(int, graph.tensors[index].shape)): times for index, times in read.items()}
    assert shapes[64, 16] >= STEPS - 1  # the first step's state is zeros
    assert shapes[64, 8] == 1
    counted = FORMATS["litert"].coverage(path)
    assert counted.share == 1
    assert not counted.outside
    assert sum(kinds[one.opcodeIndex] == "SPLIT" for one in graph.operators) >= STEPS - 1  # of the four gates


@pytest.mark.wide
def test_microcontrollers_get_float_steps(tmp_path: Path) -> None:
    """LiteRT for Microcontrollers has no kernels of float tensors and int8 weights."""
    pytest.importorskip("litert_torch", reason="needs the extra litert")
    graph = quantized(Steps(nn.GRU))
    path = written(graph, tmp_path, "litert", options=ExportOptions(whole_kernels=True))
    floats = FORMATS["litert"].coverage(path).floats()
    assert floats
    assert all("float32, float32, float32" in one.reason for one in floats)


@pytest.mark.wide
def test_gates_are_cut_at_once_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("litert_torch", reason="needs the extra litert")
    model, x = Steps(nn.LSTM), draw(4, 3)
    split = answers(written(model, tmp_path, "litert", "fp32"), x)
    size = (tmp_path / f"fp32{spelled()}.tflite").stat().st_size
    monkeypatch.setattr(splits, "split_at_once", lambda model: 0)
    whole = written(model, tmp_path, "litert", "fp32")
    assert torch.equal(split, answers(whole, x))
    assert size < whole.stat().st_size


def test_seven_bits_where_the_processor_wants_them(tmp_path: Path) -> None:
    graph = quantized(Steps(nn.LSTM))
    path = written(graph, tmp_path, "onnx", options=ExportOptions(target=Target(weight_bits=7)))
    (node,) = (one for one in onnx.load(path).graph.node if one.op_type == "DynamicQuantizeLSTM")
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    for name in node.input[1:3]:
        assert constants[name].dtype == np.int8
        assert 32 < int(np.abs(constants[name].astype(int)).max()) <= 64
    assert snr_db(graph(draw(8, 3)), answers(path, draw(8, 3))) >= 30


def test_a_projection_is_refused_where_the_exporter_loses_it(tmp_path: Path) -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = nn.LSTM(8, 16, proj_size=4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.memory(x)[0]
            return result

    with pytest.raises(ExportError, match="projection") as caught:
        written(Projected().eval(), tmp_path, "onnx", "fp32")
    assert "memory" in str(caught.value.where)


def test_a_float_layer_keeps_its_float_weights(tmp_path: Path) -> None:
    from edgekit.int8.calibration import CalibrationOptions

    options = CalibrationOptions(float_layers=("memory",))
    graph = calibrate(capture(Steps(nn.LSTM), draw(2)), [draw(8, 1)], options)
    assert not any(
        source.target in ops.DEQUANTIZE and source.args[0].args[0].op == "get_attr"
        for node in graph.graph.nodes
        if node.target in ops.RECURRENT
        for source in node.all_input_nodes[1:]
    )
    counted = FORMATS["onnx"].coverage(written(graph, tmp_path, "onnx"))
    assert {layer.kernel for layer in counted.floats()} == {"LSTM"}


def test_with_int16_activations_old_runtimes_are_told_not_to_try(tmp_path: Path) -> None:
    """tflite-runtime 2.14 would load int8 weights between floats, and answer wrongly."""
    path = written(quantized(Steps(nn.LSTM).eval()), tmp_path, "litert", "int16x8")
    content = path.read_bytes()
    versions = dict(tflite_edit.operators(tflite_edit.read(content)))
    assert versions["FULLY_CONNECTED"] >= 12
    assert tflite_edit.read_metadata(content, tflite_edit.RUNTIME).startswith("ai-edge-litert")
