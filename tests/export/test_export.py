"""Exported files in their real runtimes: same answers, integer kernels, self-contained, honest metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from edgekit.errors import ExportError, MeasurementError, MissingExtraError
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.subsampling import subsample_by_convolution
from edgekit.graph.capture import capture
from edgekit.int8.grid import spell
from tests.networks import (
    IMAGE_NETWORKS,
    Concatenated,
    Mobile,
    Residual,
    ZeroPaddedShortcut,
    images,
    quantized,
    seeded,
    snr_db,
)
from tests.spelling import session

METADATA = {"classes": '["a\\"b", "ü"]', "recipe": "test"}
LITERT_NETWORKS = [ZeroPaddedShortcut, Concatenated]  # a conversion takes seconds: the two that are hardest


def run_onnx(path: Path, x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(session(path).run(None, {"input": x.numpy()})[0])


def run_litert(path: Path, x: torch.Tensor) -> torch.Tensor:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for row in x.permute(0, 2, 3, 1).contiguous().numpy():
        interpreter.set_tensor(source["index"], to_grid(row[None], source))
        interpreter.invoke()
        rows.append(from_grid(interpreter.get_tensor(result["index"]), result))
    return torch.from_numpy(np.concatenate(rows))


def to_grid(x: NDArray[np.float32], detail: dict[str, Any]) -> NDArray[Any]:
    scale, zero = detail["quantization"]
    if detail["dtype"] is np.float32:
        return x
    return np.clip(np.round(x / scale) + zero, -128, 127).astype(detail["dtype"])


def from_grid(y: NDArray[Any], detail: dict[str, Any]) -> NDArray[np.float32]:
    scale, zero = detail["quantization"]
    return y if detail["dtype"] is np.float32 else ((y.astype(np.float32) - zero) * scale).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], Path]:
    """(network, format, precision) -> file."""
    folder, made = tmp_path_factory.mktemp("files"), {}
    for build in IMAGE_NETWORKS:
        model, graph = quantized(build)
        for format, precision, source in (
            ("onnx", "fp32", model),
            ("onnx", "int8", graph),
            ("litert", "fp32", model),
            ("litert", "int8", graph),
        ):
            if format == "litert" and (
                build not in LITERT_NETWORKS or (precision == "fp32" and build is Concatenated)
            ):
                continue
            path = folder / f"{build.__name__}_{precision}.{format}"
            export(source, images(1), path, format=format, precision=precision, metadata=METADATA)  # type: ignore[arg-type]
            made[build.__name__, format, precision] = path
    return made


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_float_onnx_gives_the_models_answers(files: dict[Any, Path], build: type[nn.Module]) -> None:
    x = images(9, seed=5)
    torch.testing.assert_close(
        run_onnx(files[build.__name__, "onnx", "fp32"], x),
        quantized(build)[0](x).detach(),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_int8_onnx_agrees_with_the_int8_graph(files: dict[Any, Path], build: type[nn.Module]) -> None:
    x = images(64, seed=5)
    assert snr_db(quantized(build)[1](x).detach(), run_onnx(files[build.__name__, "onnx", "int8"], x)) > 30


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_onnx_runtime_runs_every_layer_in_integer_kernels(
    files: dict[Any, Path], build: type[nn.Module]
) -> None:
    counted = FORMATS["onnx"].coverage(files[build.__name__, "onnx", "int8"])
    assert counted.floats() == []
    assert counted.share == 1.0
    assert FORMATS["onnx"].coverage(files[build.__name__, "onnx", "fp32"]).share == 0.0


def test_coverage_counts_macs_as_by_hand(files: dict[Any, Path]) -> None:
    by_hand = 8 * 8 * 8 * 3 * 9 + 8 * 8 * 8 * 8 * 9 + 8 * 5
    assert FORMATS["onnx"].coverage(files["Residual", "onnx", "int8"]).total_macs == by_hand
    depthwise = 64 * 3 * 16 + 16 * 16 * 9 + 16 * 16 * 8 + 8 * 5
    assert FORMATS["onnx"].coverage(files["Mobile", "onnx", "int8"]).total_macs == depthwise


@pytest.mark.parametrize("build", LITERT_NETWORKS)
def test_int8_litert_agrees_with_the_int8_graph(files: dict[Any, Path], build: type[nn.Module]) -> None:
    x = images(64, seed=5)
    path = files[build.__name__, "litert", "int8"]
    assert snr_db(quantized(build)[1](x).detach(), run_litert(path, x)) > 30
    counted = FORMATS["litert"].coverage(path)
    assert counted.share == 1.0
    spelled = sum(layer.macs for layer in counted.layers if layer.kernel == "DEPTHWISE_CONV_2D")
    same = FORMATS["onnx"].coverage(files[build.__name__, "onnx", "int8"]).total_macs
    assert counted.total_macs - (spelled if build is ZeroPaddedShortcut else 0) == same


def test_float_litert_gives_the_models_answers(files: dict[Any, Path]) -> None:
    x = images(5, seed=5)
    path = files["ZeroPaddedShortcut", "litert", "fp32"]
    torch.testing.assert_close(
        run_litert(path, x), quantized(ZeroPaddedShortcut)[0](x).detach(), rtol=1e-4, atol=1e-5
    )
    assert FORMATS["litert"].coverage(path).share == 0.0


def test_int8_onnx_holds_integer_weights_and_one_activation_type(files: dict[Any, Path]) -> None:
    model = onnx.load(files["ZeroPaddedShortcut", "onnx", "int8"])
    onnx.checker.check_model(model, full_check=True)
    floats = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1]
    assert floats == []
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    types = {t.name: t.data_type for t in model.graph.initializer}
    assert {types[node.input[2]] for node in quantizers} == {onnx.TensorProto.UINT8}
    assert {"stem", "body", "head"} <= {node.name for node in model.graph.node}


def test_metadata_is_kept_inside_the_files(files: dict[Any, Path]) -> None:
    properties = onnx.load(files["Residual", "onnx", "int8"]).metadata_props
    assert {item.key: item.value for item in properties} == METADATA
    content = files["ZeroPaddedShortcut", "litert", "int8"].read_bytes()
    assert json.dumps(METADATA, sort_keys=True).encode() in content


def test_int8_of_a_float_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="needs an int8 graph"):
        export(seeded(Residual), images(1), tmp_path / "x.onnx", format="onnx", precision="int8", metadata={})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_names_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[litert\]"):
        FORMATS["litert"].require()


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_coverage_of_garbage_is_an_error(tmp_path: Path, format: str) -> None:
    (tmp_path / "x").write_bytes(b"garbage")
    with pytest.raises(MeasurementError, match="can't count"):
        FORMATS[format].coverage(tmp_path / "x")


def test_mobile_keeps_no_clip(files: dict[Any, Path]) -> None:
    kinds = {node.op_type for node in onnx.load(files[Mobile.__name__, "onnx", "int8"]).graph.node}
    assert not kinds & {"Clip", "Relu"}


def test_subsampling_is_spelled_as_a_convolution_without_changing_a_bit(files: dict[Any, Path]) -> None:
    spelled = spell(quantized(ZeroPaddedShortcut)[1], torch.int8)
    x = images(16, seed=5)
    before = spelled(x)
    assert subsample_by_convolution(spelled) == 1
    assert torch.equal(spelled(x), before)
    path = files["ZeroPaddedShortcut", "litert", "int8"]
    assert "DEPTHWISE_CONV_2D" in FORMATS["litert"].executed(path)["operators"]
    kernels = {layer.kernel for layer in FORMATS["litert"].coverage(path).layers}
    assert "DEPTHWISE_CONV_2D" not in kernels  # it multiplies with ones


def test_other_slices_stay_slices() -> None:
    class Crop(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, 2::2, ::2] + x[:, :, :3, :4] + x[:, 1:2, ::2, ::2][:, :, :3]

    graph = capture(Crop(), images(1))
    assert subsample_by_convolution(graph) == 0
