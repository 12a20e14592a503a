"""Tiny files for both runtimes, and a transport that notes what is said."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.devices.device import Device
from edgekit.devices.local import LocalProcess, LocalTransport

CONVERT = """
import sys, torch, litert_torch
torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1), torch.nn.Tanh()
).eval()
last = litert_torch.to_channel_last_io(net, args=[0], outputs=[0]).eval()
litert_torch.convert(last, (torch.zeros(1, 8, 6, 3),)).export(sys.argv[1])
torch.manual_seed(1)
inputs = torch.randn(5, 3, 8, 6)
torch.save({"inputs": inputs, "outputs": net(inputs).detach()}, sys.argv[2])
"""


@pytest.fixture(scope="session")
def device() -> Device:
    return Device(name="here", transport="local", timeout_seconds=60)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: tuple[int, Sequence[int | str]],
    outputs: tuple[int, Sequence[int | str]],
    **weights: np.ndarray[Any, Any],
) -> Path:
    """Write an ONNX file with input x and output y."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info("x", *inputs)],
        [helper.make_tensor_value_info("y", *outputs)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def make_conv(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int | str], Path]:
    """A convolution, a ReLU and a mean over pixels: (N, 3, 8, 6) → (N, 4)."""

    def make(batch: int | str) -> Path:
        rng = np.random.default_rng(0)
        return save(
            tmp_path_factory.mktemp("conv") / f"conv-{batch}.onnx",
            [
                helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
                helper.make_node("Relu", ["c"], ["r"]),
                helper.make_node("ReduceMean", ["r"], ["y"], axes=[2, 3], keepdims=0),
            ],
            (TensorProto.FLOAT, [batch, 3, 8, 6]),
            (TensorProto.FLOAT, [batch, 4]),
            w=rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        )

    return make


@pytest.fixture(scope="session")
def conv(make_conv: Callable[[int | str], Path]) -> Path:
    return make_conv("n")


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding of int64 token ids: (N, T) → (N, T, 2)."""
    return save(
        tmp_path_factory.mktemp("tokens") / "tokens.onnx",
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        (TensorProto.INT64, ["n", "t"]),
        (TensorProto.FLOAT, ["n", "t", 2]),
        w=np.arange(20, dtype=np.float32).reshape(10, 2),
    )


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose inference never ends: a loop of 2^62 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Sin", ["v"], ["v_next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 3, 8, 6]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_next", TensorProto.FLOAT, [1, 3, 8, 6]),
        ],
    )
    return save(
        tmp_path_factory.mktemp("endless") / "endless.onnx",
        [helper.make_node("Loop", ["rounds", "", "x"], ["y"], body=body)],
        (TensorProto.FLOAT, [1, 3, 8, 6]),
        (TensorProto.FLOAT, [1, 3, 8, 6]),
        rounds=np.array(2**62, dtype=np.int64),
    )


@pytest.fixture(scope="session")
def channels_last(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A float LiteRT file, NHWC in and out, and what torch says to five inputs (NCHW, torch.save)."""
    folder = tmp_path_factory.mktemp("litert")
    files = folder / "float.tflite", folder / "torch.pt"
    subprocess.run([sys.executable, "-c", CONVERT, *map(str, files)], check=True, capture_output=True)
    return files


@pytest.fixture(scope="session")
def integer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LiteRT file with int8 input and output: one fully connected layer, (1, 6) → (1, 3).

    y = 0.05·(W @ q(x)) + b with the scales below; written through the format's own schema.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (3, 6), dtype=np.int8)
    bias = np.array([100, -200, 300], dtype=np.int32)

    def tensor(name: str, shape: list[int], kind: int, buffer: int, scale: float, zero: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), shape, kind, buffer
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [scale], [zero]
        return made

    def buffer(values: np.ndarray[Any, Any] | None = None) -> Any:
        made = schema.BufferT()
        made.data = None if values is None else np.frombuffer(values.tobytes(), dtype=np.uint8)
        return made

    int8, int32 = schema.TensorType.INT8, schema.TensorType.INT32
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("x", [1, 6], int8, 0, 0.05, 3),
        tensor("w", [3, 6], int8, 1, 0.01, 0),
        tensor("b", [3], int32, 2, 0.0005, 0),
        tensor("y", [1, 3], int8, 0, 0.1, -5),
    ]
    graph.inputs, graph.outputs = [0], [3]
    layer = schema.OperatorT()
    layer.opcodeIndex, layer.inputs, layer.outputs = 0, [0, 1, 2], [3]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [layer]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [buffer(), buffer(weights), buffer(bias)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path_factory.mktemp("integer") / "int8.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Seven samples, (7, 3, 8, 6)."""
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(3).standard_normal((7, 3, 8, 6)).astype(np.float32))
    return path


class NotingProcess(LocalProcess):
    """A real worker; what is sent to it is noted, under the name of its file."""

    def __init__(self, argv: Sequence[str], notes: list[tuple[str, str]], kill: tuple[str, str]) -> None:
        super().__init__(argv)
        self.notes, self.kill, self.file = notes, kill, ""

    def send(self, message: dict[str, Any]) -> None:
        if "artifact" in message:
            self.file = Path(message["artifact"]).name
        self.notes.append((self.file, message["do"]))
        if (self.file, message["do"]) == self.kill:
            self._popen.kill()
        super().send(message)


class NotingTransport(LocalTransport):
    """The local transport; a worker gets SIGKILL, as when memory runs out, on the message ``kill``."""

    def __init__(self, kill: tuple[str, str] = ("", "")) -> None:
        super().__init__()
        self.notes: list[tuple[str, str]] = []
        self.kill = kill
        self.spawned: list[NotingProcess] = []

    def spawn(self, argv: Sequence[str]) -> NotingProcess:
        process = NotingProcess(argv, self.notes, self.kill)
        self.spawned.append(process)
        self._processes.append(process)
        return process


@pytest.fixture
def noting() -> type[NotingTransport]:
    return NotingTransport
