"""Files with several inputs and outputs: their names, their numbers, and that a wrong output is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgekit.execution import call
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.litert import tflite_edit
from edgekit.formats.options import ExportOptions
from edgekit.formats.parity.file_parity import file_parity
from edgekit.formats.parity.layers import first_wrong
from edgekit.graph.capture import capture
from edgekit.int8 import storage
from edgekit.int8.calibration import CalibrationOptions, calibrate
from edgekit.noise import Noise
from edgekit.runtimes.device import runtimes
from edgekit.tensors import NamedTensors, Tensors, cat, from_numpy, pairs, to_numpy
from tests.named import nets
from tests.spelling import backend_for, spelled


@pytest.fixture(scope="module")
def graphs() -> dict[str, Any]:
    """The network, and its int8 graph."""
    made = nets.workload(count=64)
    return {"float": made.model, "int8": calibrate(capture(made.model, made.example(1)), [made.example(32)])}


@pytest.fixture(scope="module")
def example() -> NamedTensors:
    found = nets.workload(count=8).example(6)
    assert isinstance(found, NamedTensors)
    return found


def written(folder: Path, graphs: dict[str, Any], example: Tensors, format: str, precision: str) -> Path:
    path = folder / f"garden_{precision}{FORMATS[format].suffix}"
    graph = graphs["int8" if precision == "int8" else "float"]
    export(graph, example, path, format=format, precision=precision, metadata={})
    return path


def loaded(path: Path, format: str, runtime: str = "") -> Any:
    name = runtime or FORMATS[format].runtime
    backend = backend_for(path) if name == "onnxruntime" and "int8" in path.name else ""
    return runtimes.find(name)(str(path), 1, backend)


def answers(model: Any, inputs: Tensors) -> NamedTensors:
    """Row by row, as a file for one sample takes them."""
    found = []
    for row in inputs.split(1):
        model.bind(model.arrange(to_numpy(row)))
        model.invoke()
        found.append(from_numpy(model.output()))
    whole = cat(found)
    assert isinstance(whole, NamedTensors)
    return whole


def worst(wanted: Tensors, got: Tensors) -> dict[str, float]:
    """In dB, the worst channel of each output."""
    found = {}
    for name, one, other in pairs(wanted, got):
        noise = Noise()
        noise.add(one, other.reshape(one.shape))
        found[name] = min(noise.by_channel(silent=False))
    return found


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_names_and_answers_are_those_of_the_model(
    format: str, precision: str, graphs: dict[str, Any], example: NamedTensors, tmp_path: Path
) -> None:
    model = loaded(written(tmp_path, graphs, example, format, precision), format)
    assert [port.name for port in model.ports] == ["image", "numbers"]
    found = answers(model, example)
    assert found.names == ("scores", "boxes", "map")
    with torch.no_grad():
        wanted = call(graphs["int8" if precision == "int8" else "float"], example)
    assert min(worst(wanted, found).values()) > (30 if precision == "int8" else 90)


def test_the_int8_graph_holds_every_output(graphs: dict[str, Any], example: NamedTensors) -> None:
    with torch.no_grad():
        found = worst(call(graphs["float"], example), call(graphs["int8"], example))
    # Boxes of some hundred pixels have no grid in common with scores around 1.
    assert found.keys() == {"scores", "boxes", "map"}
    assert min(found.values()) > 20


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_an_output_that_stays_out_of_int8_keeps_its_digits(
    format: str, graphs: dict[str, Any], example: NamedTensors, tmp_path: Path
) -> None:
    made = nets.workload(count=64)
    options = CalibrationOptions(keep_float=("boxes",))
    kept = calibrate(capture(made.model, made.example(1)), [made.example(32)], options)
    with torch.no_grad():
        wanted = call(graphs["float"], example)
        before, after = worst(wanted, call(graphs["int8"], example)), worst(wanted, call(kept, example))
    assert after["boxes"] > before["boxes"]
    assert after["map"] == pytest.approx(before["map"], abs=1)
    path = written(tmp_path, {"int8": kept}, example, format, "int8")
    weights = [len(one) for one in _float_weights(path, format)]
    assert weights == [4 * 16]  # of the boxes alone
    found = answers(loaded(path, format), example)
    with torch.no_grad():
        assert min(worst(call(kept, example), found).values()) > 30


def _float_weights(path: Path, format: str) -> list[np.ndarray[Any, Any]]:
    if format == "onnx":
        constants = [numpy_helper.to_array(one) for one in onnx.load(str(path)).graph.initializer]
        return [one.reshape(-1) for one in constants if one.dtype == np.float32 and one.ndim > 1]
    model = tflite_edit.read(path.read_bytes())
    tensors = [one for one in model.subgraphs[0].tensors if one.type == 0 and len(one.shape) > 1]
    held = [one for one in tensors if model.buffers[one.buffer].data is not None]
    return [tflite_edit.constant(model, one, np.float32) for one in held]


def test_openvino_reads_them_by_name(graphs: dict[str, Any], example: NamedTensors, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = written(tmp_path, graphs, example, "onnx", "fp32")
    found = answers(loaded(path, "onnx", "openvino"), example)
    with torch.no_grad():
        assert min(worst(call(graphs["float"], example), found).values()) > 80


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_executorch_takes_them_by_name(
    precision: str, graphs: dict[str, Any], example: NamedTensors, tmp_path: Path
) -> None:
    pytest.importorskip("executorch")
    path = written(tmp_path, graphs, example, "executorch", precision)
    found = answers(loaded(path, "executorch"), example)
    with torch.no_grad():
        wanted = call(graphs["int8" if precision == "int8" else "float"], example)
    assert min(worst(wanted, found).values()) > (30 if precision == "int8" else 90)


@pytest.mark.slow
def test_a_compiled_package_takes_them_by_name(
    graphs: dict[str, Any], example: NamedTensors, tmp_path: Path
) -> None:
    path = tmp_path / "garden.pt2"
    options = ExportOptions(processor="cpu")
    about: dict[str, Any] = {"format": "aotinductor", "metadata": {}, "options": options}
    export(graphs["float"], example, path, precision="bf16", **about)
    found = answers(loaded(path, "aotinductor"), example)
    with torch.no_grad():
        assert min(worst(call(graphs["float"], example), found).values()) > 25


def test_a_graph_that_was_kept_has_its_names(
    graphs: dict[str, Any], example: NamedTensors, tmp_path: Path
) -> None:
    storage.save(graphs["int8"], example, tmp_path / "graph.pt2")
    kept = storage.load(tmp_path / "graph.pt2")
    with torch.no_grad():
        for _, one, other in pairs(call(graphs["int8"], example), call(kept, example)):
            assert torch.equal(one, other)


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_layer_by_layer_a_right_file_is_right(
    format: str, graphs: dict[str, Any], example: NamedTensors, tmp_path: Path
) -> None:
    path = written(tmp_path, graphs, example, format, "int8")
    layers = file_parity(graphs["int8"], path, format, example[:2], fused=not spelled())
    names = {layer.layer for layer in layers}
    assert {"image", "numbers", "stem", "block.first", "numbers" if format == "onnx" else "stem"} <= names
    assert first_wrong(layers) is None


def test_an_error_in_one_output_of_three_is_found_by_name(
    graphs: dict[str, Any], example: NamedTensors, tmp_path: Path
) -> None:
    path = written(tmp_path, graphs, example, "onnx", "int8")
    model = onnx.load(str(path))
    biases = {one.name: one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT32}
    made = {output: node for node in model.graph.node for output in node.output}
    node = made["boxes"]
    while node.op_type not in ("Gemm", "MatMul"):  # back from the output to its layer
        node = made[node.input[0]]
    bias = next(name for name in made[node.input[2]].input if name in biases)
    wrong = numpy_helper.to_array(biases[bias]).copy()
    wrong[1] += 20 * abs(wrong).max()
    biases[bias].CopyFrom(numpy_helper.from_array(wrong, bias))
    onnx.save(model, str(path))
    found = first_wrong(file_parity(graphs["int8"], path, "onnx", example[:2], fused=not spelled()))
    assert found is not None
    assert found.layer == "boxes"


class TestRefusals:
    """A file is asked for what it has."""

    @pytest.fixture
    def model(self, graphs: dict[str, Any], example: NamedTensors, tmp_path: Path) -> Any:
        return loaded(written(tmp_path, graphs, example, "onnx", "fp32"), "onnx")

    def test_of_one_array_for_several_inputs(self, model: Any) -> None:
        with pytest.raises(ValueError, match="takes the inputs image, numbers, the samples have one array"):
            model.arrange(np.zeros((1, 3, 16, 16), np.float32))

    def test_of_other_names(self, model: Any, example: NamedTensors) -> None:
        rows = to_numpy(NamedTensors({"image": example["image"], "number": example["numbers"]}))
        with pytest.raises(ValueError, match="the samples have image, number"):
            model.arrange(rows)

    def test_of_another_shape(self, model: Any, example: NamedTensors) -> None:
        rows = to_numpy(NamedTensors({"image": example["image"], "numbers": example["numbers"][:, :7]}))
        with pytest.raises(ValueError, match=r"shape \(8,\), got \(7,\)"):
            model.arrange(rows)

    def test_random_ones_fit(self, model: Any) -> None:
        rows = model.random(0)
        assert rows.dtype.names == ("image", "numbers")
        model.bind(model.arrange(rows))
        model.invoke()
        assert model.output().dtype.names == ("scores", "boxes", "map")
