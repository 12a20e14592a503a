"""Batch, types at the ends, instruction sets and versions: other spellings of the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekit.devices.device import Device
from edgekit.errors import ExportError
from edgekit.formats import INT8_GRAPH, PRECISIONS, pairs
from edgekit.formats.exporting import export
from edgekit.formats.onnx.writing import with_shapes
from edgekit.formats.options import ExportOptions, Target, opset_of
from edgekit.formats.spellings import seven_bit_weights
from edgekit.formats.unsupported import explained, missing_op
from edgekit.graph import ops
from tests.export.runtimes import nhwc, run_litert, run_onnx, signature, write
from tests.networks import IMAGE_NETWORKS, Residual, ZeroPaddedShortcut, images, quantized, seeded, snr_db

LOCAL = Device(name="x", transport="local")


def about(machine: str, *isa: str, **runtimes: str) -> dict[str, Any]:
    return {"machine": machine, "isa": list(isa), "runtimes": runtimes}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (about("x86_64", "avx2", "avx512_vnni"), Target("uint8", 8)),
        (about("x86_64", "avx2", "avx_vnni"), Target("uint8", 8)),
        (about("x86_64", "avx512f", "amx_int8"), Target("uint8", 8)),
        (about("x86_64", "avx2", "fma"), Target("uint8", 7)),
        (about("AMD64", "avx512f"), Target("uint8", 7)),
        (about("aarch64", "asimd", "asimddp"), Target("int8", 8)),
        (about("armv7l", "neon"), Target("int8", 8)),
        (about("riscv64", "v"), Target("uint8", 8)),
        (about("x86_64"), Target("uint8", 8)),
        ({}, Target()),
        (about("x86_64", onnxruntime="1.17.3"), Target(onnxruntime="1.17.3")),
    ],
)
def test_targets_by_instruction_set(found: dict[str, Any], expected: Target) -> None:
    assert Target.of(LOCAL, found) == expected
    assert Target.of(None, found) == expected


def test_a_profile_says_the_architecture_of_a_device_that_is_out_of_reach() -> None:
    board = Device(name="board", transport="local", arch="aarch64")
    assert Target.of(board) == Target("int8", 8)
    assert Target.of(board, about("x86_64", "avx2")) == Target("int8", 8)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("", (20, 10)), ("1.14.1", (18, 8)), ("1.16.3", (18, 9)), ("1.17.3", (20, 9)), ("1.31.1", (20, 10))],
)
def test_opsets_by_version(version: str, expected: tuple[int, int]) -> None:
    assert opset_of(version) == expected


@pytest.mark.parametrize("version", ["1.13.1", "0.9", "latest"])
def test_a_version_that_cannot_be_served_is_refused(version: str) -> None:
    with pytest.raises(ExportError, match="ONNX Runtime"):
        opset_of(version)


def test_pairs_leave_out_what_a_format_has_not() -> None:
    everything = pairs(("onnx", "litert"), tuple(PRECISIONS))
    assert len(everything) == 9
    assert ("onnx", "int16x8") not in everything


def test_int16_for_onnx_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"onnx has no int16x8(.|\n)*next: .*--format litert"):
        write(tmp_path, quantized(Residual)[1], "onnx", "int16x8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [ExportOptions(batch=0), ExportOptions(io="int8")])
def test_contradicting_options_are_refused(tmp_path: Path, options: ExportOptions) -> None:
    with pytest.raises(ExportError):
        write(tmp_path, quantized(Residual)[1], "litert", "int16x8", options)
    assert list(tmp_path.iterdir()) == []


class Bessel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


class Odd(nn.Module):
    """An op that no converter knows, two modules deep."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.neck = nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), Bessel())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neck(self.body(x)).mean((2, 3))


@pytest.mark.parametrize(("format", "runtime"), [("onnx", "ONNX"), ("litert", "LiteRT")])
def test_an_op_that_a_converter_lacks_is_named_with_its_layer(
    tmp_path: Path, format: str, runtime: str
) -> None:
    with pytest.raises(ExportError) as caught:
        write(tmp_path, Odd().eval(), format, "fp32")
    told = str(caught.value)
    assert "layer 'neck.1'" in told
    assert f"the {runtime} converter has no" in told
    assert "bessel_j0" in caught.value.got
    assert f"leave {format} out of exports.formats" in caught.value.next
    assert list(tmp_path.iterdir()) == []


def test_any_other_fault_is_told_by_the_line_that_says_something() -> None:
    graph = quantized(Residual)[1]
    try:
        try:
            raise ValueError("\nthe weight has no shape\n  at line 5")
        except ValueError as error:
            raise RuntimeError("see above") from error
    except RuntimeError as error:
        assert missing_op(error) is None
        assert (
            explained(error, graph, "onnx", "ONNX", "x.onnx").got == "RuntimeError: the weight has no shape"
        )


# --- 7-bit weights ---------------------------------------------------------------------------------------


def test_seven_bit_weights_are_the_float_weights_on_a_grid_twice_as_coarse() -> None:
    """Against plain NumPy: round, clip, scale back."""
    graph = quantized(Residual)[1]
    coarse = seven_bit_weights(graph)
    checked = 0
    for node in (n for n in coarse.graph.nodes if n.target is ops.qd.dequantize_per_channel.default):
        weight, scale, zero, axis, low, high, dtype = arguments(coarse, node.args[0])
        old = arguments(graph, next(n for n in graph.graph.nodes if n.name == node.args[0].name))
        assert node.args[4:6] == (low, high)
        step = scale.reshape(-1, *[1] * (weight.ndim - 1))
        integers = np.rint(weight / step)
        quantize = ops.qd.quantize_per_channel.default
        grid = quantize(*map(torch.from_numpy, (weight, scale, zero)), axis, low, high, dtype).numpy()
        assert np.abs(grid).max() <= 64
        assert (np.clip(integers, low, high) != grid).mean() < 0.05  # ties
        if high == 64:
            checked += 1
            np.testing.assert_array_equal(scale, 2 * old[1])
            assert np.abs(grid * step - weight).max() <= step.max() / 2 + 1e-6
        else:  # these integers were small enough
            np.testing.assert_array_equal(scale, old[1])
    assert checked >= 2
    assert snr_db(graph(images(32, 5)), coarse(images(32, 5))) > 25
    assert "-64" not in graph.code  # the graph that was given stays as it was


def arguments(graph: torch.fx.GraphModule, node: torch.fx.Node) -> list[Any]:
    return [
        ops.attribute(graph, str(a.target)).detach().numpy() if isinstance(a, torch.fx.Node) else a
        for a in node.args
    ]


def test_a_seven_bit_file_holds_weights_within_64(tmp_path: Path) -> None:
    model, graph = quantized(Residual)
    path = write(tmp_path, graph, "onnx", "int8", ExportOptions(target=Target("uint8", 7)))
    assert path.name.endswith("_int8_7bit.onnx")
    weights = [onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if len(t.dims) > 1]
    assert len(weights) == 3
    assert all(w.dtype == np.int8 and np.abs(w.astype(int)).max() <= 64 for w in weights)
    assert snr_db(model(images(32, 5)), run_onnx(path, images(32, 5))) > 25


# --- ONNX ------------------------------------------------------------------------------------------------


def test_int8_activations_give_the_same_numbers_as_uint8_ones(tmp_path: Path) -> None:
    graph = quantized(ZeroPaddedShortcut)[1]
    path = write(tmp_path, graph, "onnx", "int8", ExportOptions(target=Target("int8")))
    model = onnx.load(path)
    types = {t.name: t.data_type for t in model.graph.initializer}
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {types[node.input[2]] for node in quantizers} == {onnx.TensorProto.INT8}
    other = write(tmp_path, graph, "onnx", "int8")
    x = images(32, 5)
    assert snr_db(run_onnx(other, x), run_onnx(path, x)) > 45  # kernels differ in how they round


@pytest.mark.parametrize("version", ["1.14.1", "1.17.3", ""])
def test_files_are_stamped_for_the_runtime(tmp_path: Path, version: str) -> None:
    graph = quantized(Residual)[1]
    path = write(tmp_path, graph, "onnx", "int8", ExportOptions(target=Target(onnxruntime=version)))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == opset_of(version)
    assert snr_db(graph(images(16, 5)), run_onnx(path, images(16, 5))) > 40


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_the_batch_is_free_or_fixed(tmp_path: Path, batch: int | None) -> None:
    model, _ = quantized(Residual)
    path = write(tmp_path, model, "onnx", "fp32", ExportOptions(batch=batch))
    first = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0]
    assert (first.dim_value or first.dim_param) == (batch or "batch")
    x = images(batch or 5, 5)
    torch.testing.assert_close(run_onnx(path, x), model(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_the_shape_of_every_value_is_known(tmp_path: Path, build: type[torch.nn.Module]) -> None:
    plain = onnx.load(write(tmp_path, quantized(build)[1], "onnx", "int8"))
    assert not plain.graph.value_info  # names cost bytes
    values = {value.name for value in with_shapes(plain).graph.value_info}
    outputs = {value.name for value in plain.graph.output}
    assert {name for node in plain.graph.node for name in node.output} == values | outputs


def test_shapes_can_be_kept_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    options = ExportOptions(shapes=True)
    export(seeded(Residual), images(1), path, format="onnx", precision="fp32", metadata={}, options=options)
    model = onnx.load(path)
    assert len(model.graph.value_info) == len(model.graph.node) - 1


# --- LiteRT ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def litert(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """io -> file of one int8 network."""
    folder, graph = tmp_path_factory.mktemp("io"), quantized(Residual)[1]
    options = {io: ExportOptions(io=io) for io in ("float32", "int8", "uint8")}  # type: ignore[arg-type]
    return {io: write(folder, graph, "litert", "int8", one) for io, one in options.items()}


def test_ends_have_the_type_that_was_asked_for(litert: dict[str, Path]) -> None:
    for io, path in litert.items():
        runner = signature(path)
        source = runner.get_input_details()["input"]
        result = runner.get_output_details()["output"]
        assert {np.dtype(source["dtype"]).name, np.dtype(result["dtype"]).name} == {io}
        assert list(source["shape"]) == [1, 8, 8, 3]
        assert bool(source["quantization"][0]) == (io != "float32")
    assert litert["int8"].name == "GraphModule_int8.litert"
    assert litert["uint8"].name == "GraphModule_int8_uint8-io.litert"


def test_the_ends_change_no_answer(litert: dict[str, Path]) -> None:
    x = nhwc(images(32, 5))
    plain = run_litert(litert["int8"], x)
    for io in ("float32", "uint8"):
        torch.testing.assert_close(run_litert(litert[io], x), plain, rtol=0, atol=1e-6)


def test_constants_are_aligned_as_the_schema_demands(litert: dict[str, Path]) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    content = litert["uint8"].read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [one._tab.Vector(one._tab.Offset(4)) for one in buffers if one.DataLength()]
    assert len(starts) > 5
    assert {start % 16 for start in starts} == {0}


def test_a_litert_batch(tmp_path: Path) -> None:
    graph = quantized(Residual)[1]
    path = write(tmp_path, graph, "litert", "int8", ExportOptions(batch=4))
    assert path.name.endswith("_batch4.litert")
    assert list(signature(path).get_input_details()["input"]["shape"]) == [4, 8, 8, 3]
    assert snr_db(graph(images(8, 5)), run_litert(path, nhwc(images(8, 5)))) > 40


def test_what_needs_an_int8_graph_is_said_once() -> None:
    assert set(INT8_GRAPH) == {"int8", "int16x8"}
