"""int8 coverage of an ONNX file, as ONNX Runtime executes it.

The file is run under the profiler, whose trace names every kernel executed after the runtime's own
optimisation, with types and shapes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import MeasurementError
from edgekit.formats.coverage import INTEGERS, Coverage, Layer, only_sums, telling
from edgekit.formats.onnx.recurrent import KERNEL
from edgekit.scratch import scratch

if TYPE_CHECKING:
    from edgekit.devices.device import Device
    from edgekit.devices.transport import Transport

__all__ = ["of_onnx"]


def of_onnx(path: Path, device: Device | None = None, link: Transport | None = None) -> Coverage:
    """Count what ONNX Runtime executes of a file, which it decides where it runs.

    Args:
        path: an ``.onnx`` file.
        device: where; None is this machine.
        link: the way to the device.

    Raises MeasurementError: the runtime can't load or run the file.
    """
    with telling(path):
        if device is None or link is None or device.here:
            return _onnx(path)
        return _onnx_there(path, device, link)


def _onnx(path: Path) -> Coverage:
    import onnx
    import onnxruntime

    with scratch() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "trace")
        options.optimized_model_filepath = str(Path(folder) / "executed.onnx")
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        named = _named(path, Path(folder) / "named.onnx")
        session = onnxruntime.InferenceSession(str(named), options, providers=["CPUExecutionProvider"])
        feeds = {}
        for value in session.get_inputs():
            shape = [size if isinstance(size, int) else 1 for size in value.shape]
            feeds[value.name] = np.zeros(shape, _NUMPY[value.type])
        for _ in range(_PROFILED):
            session.run(None, feeds)
        trace = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        executed = onnx.load(options.optimized_model_filepath)
    return _counted(trace, executed)


def _onnx_there(path: Path, device: Device, link: Transport) -> Coverage:
    """The same on a device, which runs the file and sends home the trace and the graph."""
    import onnx

    with scratch() as folder:
        local = Path(folder)
        script = link.push(Path(__file__).with_name("trace_onnx.py"))
        there = link.push(_named(path, local / f"named-{path.name}"))
        argv = [device.interpreter, script, there, str(_PROFILED)]
        done = link.run(argv, timeout_seconds=device.timeout_seconds)
        if done.returncode:
            raise MeasurementError(
                "can't count the integer kernels",
                where=f"{path.name} on {device.name}",
                got=done.stderr[-500:],
            )
        for name in ("trace.json", "executed.onnx"):
            link.pull(f"{link.folder}/{name}", local / name)
        link.run(["rm", "-f", "trace.json", "executed.onnx"], timeout_seconds=device.timeout_seconds)
        return _counted(json.loads((local / "trace.json").read_text()), onnx.load(local / "executed.onnx"))


def _counted(trace: Sequence[dict[str, Any]], executed: Any) -> Coverage:
    """What a trace says was executed; ``executed`` is the ONNX graph after the runtime's optimisation."""
    constants = {tensor.name: tensor for tensor in executed.graph.initializer}
    nodes = {node.name: node for node in executed.graph.node}
    layers = {}
    times: dict[str, int] = {}
    spent: dict[str, int] = {}
    for event in trace:
        name = event.get("name", "").removesuffix("_kernel_time")
        if event.get("cat") == "Node" and name in nodes and event["name"].endswith("_kernel_time"):
            # The trace leaves prepacked weights out, so their shapes come from the graph as executed.
            weights = [constants[value] for value in nodes[name].input if value in constants]
            if _only_sums(nodes[name], weights):
                layer = None
            elif nodes[name].op_type == "Einsum":
                layer = _einsum(nodes[name], event["args"])
            else:
                layer = _onnx_layer(name, event["args"], [w for w in weights if len(w.dims) >= 2])
                layer = _without_zeros(layer, nodes[name], weights)
            if layer is not None:
                layers[name] = layer
            kernel = f"{event['args']['op_name']}{_kind(event['args'])}"
            times[kernel] = times.get(kernel, 0) + int(event["dur"])
            spent[name] = spent.get(name, 0) + int(event["dur"])
    total = sum(spent.values())
    timed = [
        replace(layer, time_share=spent[name] / total if total else None) for name, layer in layers.items()
    ]
    return Coverage(tuple(timed), *_in_float(times))


def _only_sums(node: Any, weights: Sequence[Any]) -> bool:
    """Whether a node is a depthwise convolution of ones: a pooling, spelled so."""
    from onnx import numpy_helper

    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if "Conv" not in node.op_type or groups == 1:
        return False
    kernels = [one for one in weights if len(one.dims) >= 3]
    return len(kernels) == 1 and only_sums(numpy_helper.to_array(kernels[0]))


def _without_zeros(layer: Layer | None, node: Any, weights: Sequence[Any]) -> Layer | None:
    """Products with zeros that widened groups brought (``groups.py``) are none of the network's."""
    kernels = [one for one in weights if len(one.dims) >= 3]
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if layer is None or not layer.integer or "Conv" not in node.op_type or len(kernels) != 1:
        return layer
    from onnx import numpy_helper

    from edgekit.formats.onnx.groups import merged

    return replace(layer, macs=layer.macs // merged(numpy_helper.to_array(kernels[0]), groups))


def _named(path: Path, copy: Path) -> Path:
    """A copy of the file in which every node has a name: the profiler tells kernels by it alone."""
    import onnx

    model = onnx.load(path)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    onnx.save(model, copy)
    return copy


def _kind(arguments: dict[str, Any]) -> str:
    """What is told of a kernel: " in float" for one that computes on floats or converts from or to them."""
    ends = [*arguments.get("input_type_shape", ()), *arguments.get("output_type_shape", ())]
    kinds = {kind for item in ends for kind in item}
    quantised_constants = (
        arguments["op_name"].startswith("QLinear") or arguments["op_name"] in _INTEGER_KERNELS
    )
    return "" if quantised_constants or "float" not in kinds else " in float"


def _in_float(times: dict[str, int]) -> tuple[float | None, tuple[str, ...]]:
    total = sum(times.values())
    if not total:
        return None, ()
    floats = {name: time for name, time in times.items() if name.endswith(" in float")}
    order = sorted(floats, key=lambda name: -floats[name])
    return sum(floats.values()) / total, tuple(name.removesuffix(" in float") for name in order)


_PROFILED = 5  # runs, whose times are added up
# Take scales as float inputs beside their integer operands.
_INTEGER_KERNELS = {
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "MatMulIntegerToFloat",
    "NhwcMaxPool",
    "QLinearAdd",
    KERNEL,
}
_NUMPY = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
_NUMPY |= {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float16)": np.float16}


def _onnx_layer(name: str, arguments: dict[str, Any], weights: Sequence[Any]) -> Layer | None:
    from onnx import TensorProto

    kernel = arguments["op_name"]
    if kernel in {"LSTM", "GRU", "RNN", KERNEL}:
        return _recurrent(name, kernel, arguments, weights)
    if not any(word in kernel for word in ("Conv", "Gemm", "MatMul")):
        return None
    tensors = [next(iter(item.items())) for item in arguments["input_type_shape"]]
    operands = [(kind, shape) for kind, shape in tensors if len(shape) >= 2]
    for weight in weights[:1]:
        kind = TensorProto.DataType.Name(weight.data_type).lower()
        operands[1:2] = [(kind, list(weight.dims))]
    if len(operands) < 2:
        return None
    (x_kind, x), (w_kind, w) = operands[:2]
    y = next(iter(arguments["output_type_shape"][0].values()))
    macs = _convolution_macs(x, w, y, "Transpose" in kernel) if "Conv" in kernel else math.prod(y) * x[-1]
    integer = x_kind in INTEGERS and w_kind in INTEGERS
    reason = "" if integer else f"ONNX Runtime executes {kernel} on {x_kind} and {w_kind}"
    return Layer(name, kernel, macs, integer, reason)


def _einsum(node: Any, arguments: dict[str, Any]) -> Layer | None:
    """A product of all labels' sizes: each of them is gone through once. None for one operand alone."""
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation")
    shapes = [next(iter(item.values())) for item in arguments["input_type_shape"]]
    labels = equation.replace(" ", "").partition("->")[0].split(",")
    if len(labels) < 2 or "." in equation or len(labels) != len(shapes):
        return None
    sizes = {
        label: size
        for part, shape in zip(labels, shapes, strict=True)
        for label, size in zip(part, shape, strict=True)
    }
    return Layer(
        node.name, "Einsum", math.prod(sizes.values()), False, "ONNX Runtime has Einsum in float alone"
    )


def _recurrent(name: str, kernel: str, arguments: dict[str, Any], weights: Sequence[Any]) -> Layer:
    """X (T, N, F): both weights (directions, gates * hidden, F or hidden; integer ones turned) at each of the
    T * N positions.
    """
    steps, rows = next(iter(arguments["input_type_shape"][0].values()))[:2]
    macs = steps * rows * sum(math.prod(weight.dims) for weight in weights if len(weight.dims) == 3)
    if kernel == KERNEL:
        return Layer(name, kernel, macs, True)
    if kernel == "LSTM":
        return Layer(
            name, kernel, macs, False, "an LSTM with float weights, or with inputs that 8 bits don't hold"
        )
    return Layer(name, kernel, macs, False, f"ONNX Runtime has {kernel} in float alone")


def _convolution_macs(x: Sequence[int], weight: Sequence[int], y: Sequence[int], transposed: bool) -> int:
    """MACs from the shapes: x (N, C, ...), y (N, out, ...), weight (out, in / groups, ...).

    A transposed convolution's weight is (in, out / groups, ...).
    """
    return (math.prod(x) if transposed else math.prod(y)) * math.prod(weight[1:])
