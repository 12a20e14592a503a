"""fp16, int8-dynamic and int16x8: smaller or more accurate, and loaded by real runtimes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from edgekit.errors import ExportError
from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.compatibility import faults
from edgekit.formats.onnx.weights import halve, quantize_weights
from edgekit.formats.options import ExportOptions, Target
from edgekit.formats.spellings import int16_activations
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import nhwc, run_litert, run_onnx, signature, write
from tests.networks import Mobile, Residual, ZeroPaddedShortcut, images, quantized, seeded, snr_db

FORMATS: tuple[str, ...] = ("onnx", "litert")


class Wide(nn.Module):
    """Enough weights for their precision to decide the size of the file: (N, 3, 8, 8) to (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 48, 3, padding=1)
        self.second = nn.Conv2d(48, 48, 3, padding=1)
        self.hidden, self.head = nn.Linear(48, 96), nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x)))).mean((2, 3))
        return self.head(torch.relu(self.hidden(x)))


@pytest.fixture(scope="module")
def wide() -> nn.Module:
    return seeded(Wide)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, wide: nn.Module) -> dict[tuple[str, str], Path]:
    """(format, precision) -> file."""
    folder = tmp_path_factory.mktemp("precisions")
    precisions: Any = ("fp32", "fp16", "int8-dynamic")
    return {(f, p): write(folder, wide, f, p) for f in FORMATS for p in precisions}


def answers(path: Path, format: str) -> Tensor:
    x = images(32, 5)
    return run_onnx(path, x) if format == "onnx" else run_litert(path, nhwc(x))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("precision", "decibels", "smaller"), [("fp16", 55, 1.8), ("int8-dynamic", 30, 3.2)])
def test_smaller_weights(
    files: dict[Any, Path], wide: nn.Module, format: str, precision: str, decibels: float, smaller: float
) -> None:
    path = files[format, precision]
    assert snr_db(wide(images(32, 5)), answers(path, format)) > decibels
    assert files[format, "fp32"].stat().st_size > smaller * path.stat().st_size


def test_onnx_runtime_widens_weights_once_when_it_loads_them(files: dict[Any, Path], tmp_path: Path) -> None:
    for precision in ("fp16", "int8-dynamic"):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "executed.onnx")
        options.log_severity_level = 4
        file = str(files["onnx", precision])
        onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        executed = onnx.load(tmp_path / "executed.onnx")
        kinds = [node.op_type for node in executed.graph.node]
        assert kinds.count("Cast") == 0
        products = [kind for kind in kinds if "Integer" in kind or "DynamicQuantize" in kind]
        assert bool(products) == (precision == "int8-dynamic")


def test_dynamic_weights_have_seven_bits_where_sums_saturate(wide: nn.Module, tmp_path: Path) -> None:
    options = ExportOptions(target=Target(weight_bits=7))
    path = write(tmp_path, wide, "onnx", "int8-dynamic", options)
    weights = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    assert max(np.abs(w.astype(int)).max() for w in weights if w.dtype == np.int8) == 64
    assert snr_db(wide(images(32, 5)), run_onnx(path, images(32, 5))) > 25


@pytest.mark.parametrize("rewrite", [halve, quantize_weights])
def test_what_does_not_fit_stays_as_it_is(rewrite: Any) -> None:
    """Numbers beyond float16, tiny constants, weights that two layers read, an alpha that isn't 1."""
    rng = np.random.default_rng(0)
    shared, large = rng.normal(size=(2, 8, 8)).astype(np.float32) * np.array([[[1]], [[1e6]]], np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["a"]),
        helper.make_node("MatMul", ["a", "shared"], ["b"]),
        helper.make_node("Gemm", ["b", "large"], ["c"], alpha=0.5),
        helper.make_node("Mul", ["c", "tiny"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in "xy"]
    constants = [
        numpy_helper.from_array(value, name)
        for name, value in (("shared", shared), ("large", large), ("tiny", np.float32([1e-6])))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    before = [numpy_helper.to_array(t) for t in model.graph.initializer]
    assert rewrite(model) == (1 if rewrite is halve else 0)  # float16 holds `shared`
    onnx.checker.check_model(model, full_check=True)
    kept = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    np.testing.assert_array_equal(kept["large"], before[1])
    np.testing.assert_array_equal(kept["tiny"], before[2])


# --- int16x8 ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[ZeroPaddedShortcut, Mobile])
def int16(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[type[nn.Module], Path]:
    folder = tmp_path_factory.mktemp("int16")
    return request.param, write(folder, quantized(request.param)[1], "litert", "int16x8")


def test_int16_activations_are_nearer_to_the_float_model(int16: tuple[type[nn.Module], Path]) -> None:
    build, path = int16
    model, graph = quantized(build)
    x = images(64, 5)
    found = run_litert(path, nhwc(x))
    assert snr_db(int16_activations(graph)(x), found) > 55
    assert snr_db(model(x), found) > snr_db(model(x), graph(x).detach()) + 3
    runner = signature(path)
    details = runner.get_input_details()["input"], runner.get_output_details()["output"]
    assert {np.dtype(detail["dtype"]).name for detail in details} == {"int16"}
    assert {detail["quantization"][1] for detail in details} == {0}


def test_int16_grids_are_symmetric_and_no_finer_than_needed() -> None:
    graph = quantized(Residual)[1]
    wide = int16_activations(graph)
    per_tensor = ops.qd.quantize_per_tensor.default
    old = [n for n in graph.graph.nodes if n.target is per_tensor]
    new = [n for n in wide.graph.nodes if n.target is per_tensor]
    for before, after in zip(old, new, strict=True):
        _, scale, zero, low, high, _ = before.args
        assert after.args[2:] == (0, -32768, 32767, torch.int16)
        assert after.args[1] * 32767 == pytest.approx(max(abs(low - zero), abs(high - zero)) * scale)


def test_relus_that_the_int8_grid_did_are_back() -> None:
    graph = quantized(Residual)[1]
    assert not relus(graph)
    assert len(relus(int16_activations(graph))) == 2


def relus(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.target is ops.aten.relu.default]


class Crooked(nn.Module):
    """A ReLU that is nothing but another grid of a tensor, a number, and an op without an int16 kernel."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.body, self.activation, self.head = nn.Conv2d(3, 8, 1), activation, nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.body(x))
        return self.head(x - torch.relu(x) * 0.5).mean((2, 3))


def calibrated(model: nn.Module) -> fx.GraphModule:
    return calibrate(capture(model, images(1)), [images(16, seed) for seed in range(2)])


def test_grids_that_begin_at_zero_keep_negative_numbers_out() -> None:
    torch.manual_seed(0)
    model = Crooked(nn.Identity()).eval()
    graph = calibrated(model)
    x = images(32, 5)
    assert snr_db(model(x), int16_activations(graph)(x)) > snr_db(model(x), graph(x)) + 2


@pytest.mark.parametrize(
    ("activation", "says"),
    [(nn.Hardswish(), "refuses an 'add' in int16x8"), (nn.GELU(), "has no 'gelu' in int16x8")],
    ids=["a number added to what is read twice", "no kernel"],
)
def test_what_int16_has_no_kernel_for_is_named(activation: nn.Module, says: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        write(tmp_path, calibrated(Crooked(activation).eval()), "litert", "int16x8")
    assert says in caught.value.what
    assert "layer 'activation'" in str(caught.value.where)


# --- runtimes --------------------------------------------------------------------------------------------


def test_files_say_which_runtime_they_need(
    files: dict[Any, Path], int16: tuple[type[nn.Module], Path]
) -> None:
    for path in (files["litert", "fp32"], files["litert", "fp16"], int16[1]):
        assert tflite_edit.read_metadata(path.read_bytes()) == '{"recipe": "test"}'
        assert needs_of(path) == "tflite-runtime 2.14.0"
    # Its kernels would load channelwise weights of a hybrid linear layer, and answer wrongly.
    needs = needs_of(files["litert", "int8-dynamic"])
    assert needs == "ai-edge-litert: FULLY_CONNECTED version 12 (it has 10)"


def needs_of(path: Path) -> str:
    return tflite_edit.read_metadata(path.read_bytes(), tflite_edit.RUNTIME)


def test_ops_that_an_old_runtime_has_not() -> None:
    assert faults([("CONV_2D", 7), ("ADD", 1)]) == []
    assert faults([("CONV_2D", 8), ("STABLEHLO_ADD", 1)]) == [
        "CONV_2D version 8 (it has 7)",
        "STABLEHLO_ADD version 1 (it has none)",
    ]


OLD = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
x, path = np.load(sys.argv[1]), sys.argv[2]
interpreter = Interpreter(path)
interpreter.allocate_tensors()
source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
scale, zero = source["quantization"]
limits = np.iinfo(source["dtype"]) if scale else None
rows = []
for row in x:
    if scale:
        row = np.clip(np.rint(row / scale) + zero, limits.min, limits.max)
    interpreter.set_tensor(source["index"], row[None].astype(source["dtype"]))
    interpreter.invoke()
    rows.append(interpreter.get_tensor(result["index"]).astype(np.float32))
scale, zero = result["quantization"]
y = np.concatenate(rows)
np.save(sys.argv[3], (y - zero) * scale if scale else y)
"""


@pytest.mark.slow
def test_tflite_runtime_2_14_gives_the_same_answers(
    files: dict[Any, Path], int16: tuple[type[nn.Module], Path], tmp_path: Path
) -> None:
    """In an environment of its own: EDGEKIT_TFLITE_PYTHON names a Python with tflite-runtime 2.14.0."""

    python = shutil.which(os.environ.get("EDGEKIT_TFLITE_PYTHON", ""))
    if python is None:
        pytest.skip("EDGEKIT_TFLITE_PYTHON names no Python")
    x = nhwc(images(16, 5))
    np.save(tmp_path / "x.npy", x.numpy())
    int8 = write(tmp_path, quantized(Residual)[1], "litert", "int8", ExportOptions(io="uint8"))
    for path in (files["litert", "fp32"], files["litert", "fp16"], int16[1], int8):
        command = [python, "-c", OLD, str(tmp_path / "x.npy"), str(path), str(tmp_path / "y.npy")]
        subprocess.run(command, check=True, timeout=120, capture_output=True)
        old = torch.from_numpy(np.load(tmp_path / "y.npy"))
        assert snr_db(run_litert(path, x), old) > 40
