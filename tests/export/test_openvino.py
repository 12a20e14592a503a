"""The ONNX files in OpenVINO: the answers that ONNX Runtime gives, in integer kernels too."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.openvino.coverage import count
from edgekit.formats.options import ExportOptions
from edgekit.formats.parity.file_parity import file_parity
from edgekit.formats.parity.layers import first_wrong
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.pipeline import compress
from edgekit.report import Report
from edgekit.runtimes.device.runtime_onnxruntime import OnnxRuntimeModel
from edgekit.runtimes.device.runtime_openvino import OpenVINOModel
from edgekit.runtimes.device.runtimes import Model
from tests.networks import IMAGE_NETWORKS, Concatenated, Mobile, Residual, images, quantized, seeded, snr_db
from tests.pipeline import tiny

openvino = pytest.importorskip("openvino", reason="needs the extra: pip install 'edgekit-toolkit[openvino]'")


def run(kind: type[Model], path: Path, x: Tensor, batch: int = 16) -> Tensor:
    kind.prepare()  # type: ignore[attr-defined]
    model = kind(str(path), threads=1)  # type: ignore[call-arg]
    rows = []
    for part in x.split(batch):
        model.bind(model.arrange(part.numpy()))
        model.invoke()
        rows.append(torch.from_numpy(model.output()))
    return torch.cat(rows)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[type[nn.Module], str], Path]:
    """(network, precision) -> file."""
    folder, made = tmp_path_factory.mktemp("files"), {}
    for build in IMAGE_NETWORKS:
        for precision, source in zip(("fp32", "int8"), quantized(build), strict=True):
            path = made[build, precision] = folder / f"{build.__name__}_{precision}.onnx"
            export(source, images(1), path, format="onnx", precision=precision, metadata={})  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_float_gives_the_answers_of_onnx_runtime(files: dict[Any, Path], build: type[nn.Module]) -> None:
    x, path = images(20, seed=5), files[build, "fp32"]
    answers = run(OpenVINOModel, path, x)
    torch.testing.assert_close(answers, run(OnnxRuntimeModel, path, x), rtol=1e-4, atol=1e-5)
    assert count(path).share == 0.0


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_int8_agrees_with_the_int8_graph_and_with_onnx_runtime(
    files: dict[Any, Path], build: type[nn.Module]
) -> None:
    x, path = images(64, seed=5), files[build, "int8"]
    answers = run(OpenVINOModel, path, x)
    assert snr_db(quantized(build)[1](x), answers) > 30
    assert snr_db(run(OnnxRuntimeModel, path, x), answers) > 30


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_openvino_runs_every_layer_on_integers(files: dict[Any, Path], build: type[nn.Module]) -> None:
    counted = count(files[build, "int8"])
    assert counted.floats() == []
    assert counted.total_macs == FORMATS["onnx"].coverage(files[build, "int8"]).total_macs


class Mixed(nn.Module):
    """A convolution, a depthwise one and linear layers of as many channels: their zero points are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=16)
        self.one, self.other, self.last = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.first(x).relu()).flatten(2).transpose(1, 2)
        answers: Tensor = self.last(self.other(F.gelu(self.one(x))).mean(1))
        return answers


def test_layers_of_different_kinds_share_no_zero_points(tmp_path: Path) -> None:
    """They would compute in float (2026.4): most linear layers of a vision transformer did."""
    graph = calibrate(capture(Mixed().eval(), images(1)), [images(32)])
    export(graph, images(1), tmp_path / "x.onnx", format="onnx", precision="int8", metadata={})
    counted = count(tmp_path / "x.onnx")
    assert counted.floats() == []
    assert counted.share == 1.0
    assert FORMATS["onnx"].coverage(tmp_path / "x.onnx").share == 1.0


def test_coverage_counts_macs_as_by_hand(files: dict[Any, Path]) -> None:
    by_hand = 64 * 3 * 16 + 16 * 16 * 9 + 16 * 16 * 8 + 8 * 5
    assert count(files[Mobile, "int8"]).total_macs == by_hand
    layers = count(files[Mobile, "fp32"]).layers
    assert [layer.macs for layer in layers] == [64 * 3 * 16, 16 * 16 * 9, 16 * 16 * 8, 8 * 5]
    assert all("OpenVINO executes" in layer.reason for layer in layers)


class Activated(nn.Module):
    """Every activation that OpenVINO computes inside of a layer, a gate, and a stream that is turned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(size, 16, 3, padding=1) for size in (3, 16, 16))
        self.down, self.up = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.one, self.other, self.last = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.first(x))
        x = F.silu(self.second(x))
        x = x * F.hardsigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        x = F.relu6(self.third(x)).permute(0, 2, 3, 1)
        x = F.layer_norm(x, (16,)).flatten(1, 2)
        answers: Tensor = self.last(self.other(F.gelu(self.one(x))).transpose(1, 2).mean(2))
        return answers


@pytest.fixture(scope="module")
def activated(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, fx.GraphModule, Path, Path]:
    """The float model, its int8 graph, its plain file and the one for OpenVINO."""
    model = seeded(Activated)
    graph = calibrate(capture(model, images(1)), [images(64)])
    folder = tmp_path_factory.mktemp("activated")
    plain, own = folder / "plain.onnx", folder / "own.onnx"
    for path, format in ((plain, "onnx"), (own, "openvino")):
        export(graph, images(1), path, format=format, precision="int8", metadata={})
    return model, graph, plain, own


def kernels(path: Path) -> dict[str, int]:
    """What OpenVINO executes, by kind."""
    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape([1, 3, 8, 8])
    executed = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    kinds = [one.get_rt_info()["layerType"] for one in executed.get_ordered_ops()]
    return Counter(str(getattr(kind, "value", kind)) for kind in kinds)


def test_activations_are_part_of_their_layers_kernel(activated: Any) -> None:
    _, graph, plain, own = activated
    functions = {node.target for node in FORMATS["openvino"].spelled(graph, ExportOptions()).graph.nodes}
    whole = {ops.aten.hardswish.default, ops.aten.silu.default, ops.aten.hardsigmoid.default}
    assert whole <= functions
    assert kernels(own)["Subgraph"] < kernels(plain)["Subgraph"] - 3
    assert count(own).floats() == []
    assert count(own).share == count(plain).share == 1.0


def test_its_answers_are_those_of_the_graph_that_it_has(activated: Any) -> None:
    model, graph, plain, own = activated
    x = images(64, seed=5)
    answers = run(OpenVINOModel, own, x)
    assert snr_db(FORMATS["openvino"].spelled(graph, ExportOptions())(x), answers) > 35
    assert snr_db(graph(x), answers) > 25
    with torch.no_grad():
        float_answers = model(x)
    assert snr_db(float_answers, answers) > snr_db(float_answers, run(OpenVINOModel, plain, x)) - 0.5


def test_its_layers_are_compared_with_the_graph_that_it_has(activated: Any, tmp_path: Path) -> None:
    _, graph, _, own = activated
    layers = file_parity(graph, own, "openvino", images(4, seed=5), options=ExportOptions())
    assert first_wrong(layers) is None
    assert {"third", "gelu", "last"} <= {layer.layer for layer in layers}
    broken = onnx.load(own)
    weight = next(one for one in broken.graph.initializer if list(one.dims) == [16, 16, 3, 3])
    values = numpy_helper.to_array(weight).copy()
    values[[0, 1]] = values[[1, 0]]
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(broken, tmp_path / "broken.onnx")
    wrong = first_wrong(file_parity(graph, tmp_path / "broken.onnx", "openvino", images(4, seed=5)))
    assert wrong is not None


def test_a_graph_without_activations_and_moves_has_no_file_of_its_own(activated: Any) -> None:
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    graph = calibrate(capture(plain, images(1)), [images(32)])
    assert FORMATS["openvino"].differs(activated[1])
    assert not FORMATS["openvino"].differs(graph)
    assert not FORMATS["openvino"].differs(plain)


RECIPE = """
name: tiny
stages: [{kind: qat, calibration_samples: 64, training: {epochs: 0}}]
exports: {formats: [onnx], precisions: [int8]}
benchmark: {threads: [1], min_seconds: 0.02, min_runs: 5}
recommend: {max_accuracy_drop: 100}
diagnose: {samples: 16}
"""


def test_compress_writes_and_measures_it_beside_the_onnx_file(tmp_path: Path) -> None:
    workload = tiny.workload()
    workload = dataclasses.replace(workload, model=Swishing(workload.model))
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    (tmp_path / "here.yaml").write_text("name: here\ntransport: local\nruntimes: [onnxruntime, openvino]\n")
    compress(workload, tmp_path / "tiny.yaml", devices=[tmp_path / "here.yaml"], out=tmp_path / "run")
    report = Report.load(tmp_path / "run")
    names = {Path(one.file).name: one for one in report.artifacts}
    assert set(names) == {"original_fp32.onnx", "tiny_int8.onnx", "tiny_int8_openvino.onnx"}
    own = names["tiny_int8_openvino.onnx"]
    assert own.int8_coverage == 1.0
    timed = {one.runtime for one in report.measurements if one.artifact == own.file}
    assert timed == {"openvino"}


class Swishing(nn.Module):
    """The tiny workload's network, with SiLU for a ReLU."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        net = self.net
        x = F.max_pool2d(F.silu(net.norm(net.first(x))), 2)  # type: ignore[operator]
        answers: Tensor = net.head(F.relu(net.second(x)).mean((2, 3)))  # type: ignore[operator]
        return answers


def transposed(folder: Path, groups: int) -> Path:
    weight = np.random.default_rng(0).standard_normal((4, 6 // groups, 3, 3)).astype(np.float32)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=groups, strides=[2, 2])
    graph = helper.make_graph(
        [node],
        "transposed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6, 11, 11])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = folder / f"{groups}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("groups", [1, 2])
def test_macs_of_a_transposed_convolution(tmp_path: Path, groups: int) -> None:
    (layer,) = count(transposed(tmp_path, groups)).layers
    assert (layer.macs, layer.integer) == (4 * 5 * 5 * 6 // groups * 9, False)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 12), batch=st.integers(1, 8))
def test_any_batch_size_gives_the_same_answers(files: dict[Any, Path], rows: int, batch: int) -> None:
    x, path = images(12, seed=5), files[Concatenated, "int8"]
    torch.testing.assert_close(run(OpenVINOModel, path, x[:rows], batch), run(OpenVINOModel, path, x)[:rows])


def test_the_runtime_takes_memory_that_is_read_only(files: dict[Any, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images(1).numpy())
    OpenVINOModel.prepare()
    model = OpenVINOModel(str(files[Residual, "int8"]), threads=1)
    model.bind(model.arrange(np.load(tmp_path / "x.npy", mmap_mode="r")))
    model.invoke()
    assert torch.equal(
        torch.from_numpy(model.output()), run(OpenVINOModel, files[Residual, "int8"], images(1))
    )


def test_the_runtime_says_what_it_takes(files: dict[Any, Path]) -> None:
    OpenVINOModel.prepare()
    model = OpenVINOModel(str(files[Residual, "int8"]), threads=1)
    assert (model.batch, model.shape, str(model.dtype)) == (None, (3, 8, 8), "float32")
    assert model.version.startswith("20")
    with pytest.raises(ValueError, match="takes samples of shape"):
        model.arrange(images(1)[:, :, :4].numpy())


def test_garbage_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"garbage")
    with pytest.raises(RuntimeError):
        count(tmp_path / "x.onnx")
