"""What is inside an ONNX file, read with the onnx package alone; no runtime is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from edgekit.errors import InputError
from edgekit.formats.onnx.ends import size_of
from edgekit.formats.summary import INTEGERS, by_size, dtype_totals, grid, tensor_bytes
from edgekit.scratch import scratch

__all__ = ["check", "read"]

# Multiplying ops, and which of their inputs is the weight.
_WEIGHTED = {
    "Conv": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
    "LSTM": 1,
    "GRU": 1,
    "RNN": 1,
}
# Ops that carry scales themselves: (tensor, scale, zero point) of each, by position; "out" is the output.
_CARRIES_SCALES: dict[str, tuple[tuple[int | str, int, int], ...]] = {
    "QLinearConv": ((0, 1, 2), (3, 4, 5), ("out", 6, 7)),
    "QLinearMatMul": ((0, 1, 2), (3, 4, 5), ("out", 6, 7)),
    "QGemm": ((0, 1, 2), (3, 4, 5), ("out", 7, 8)),
    "QLinearAdd": ((0, 1, 2), (3, 4, 5), ("out", 6, 7)),
    "QLinearMul": ((0, 1, 2), (3, 4, 5), ("out", 6, 7)),
}
_REWRITES = {"QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape", "Cast", "Identity", "Clip"}
_DEPTH = 8  # of such ops between a weight and its layer; a damaged file may hold a circle


def read(path: Path) -> dict[str, Any]:
    """Ops, types, scales and tensors of an ONNX file, as JSON.

    Raises whatever the parser raises on a damaged file; external data is named, not loaded.
    """
    model = onnx.load(str(path), load_external_data=False)
    if not model.ir_version or not (model.graph.node or model.graph.initializer):
        raise ValueError("no ONNX model: it holds no graph")
    _check_text(model)
    scales = _scales(model)
    readers = _readers(model)
    constants = [_constant(tensor, readers, scales) for tensor in _tensors(model)]
    known = {row["name"] for row in constants}
    activations = [
        {"name": name, "dtype": one["dtype"], **one["grid"]}
        for name, one in scales.items()
        if name not in known
    ]
    return {
        "versions": {
            "ir": model.ir_version,
            "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
            "producer": f"{model.producer_name} {model.producer_version}".strip(),
        },
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
        "inputs": [_port(value, scales) for value in model.graph.input if value.name not in known],
        "outputs": [_port(value, scales) for value in model.graph.output],
        "operators": dict(Counter(node.op_type for node in _nodes(model.graph)).most_common()),
        "constant_dtypes": dtype_totals(constants),
        "activation_dtypes": dict(Counter(row["dtype"] for row in activations)),
        "float_weights": _float_weights(constants),
        "integer_weights": _integer_weights(constants),
        "tensors": by_size(constants, size_of(path)),
        "activations": activations,
    }


def _check_text(model: ModelProto) -> None:
    """Names that aren't UTF-8 come out of the parser as bytes: the file is damaged there."""
    graph = model.graph
    texts = [text for node in _nodes(graph) for text in (node.name, node.op_type, *node.input, *node.output)]
    texts += [item.name for items in (graph.initializer, graph.input, graph.output) for item in items]
    texts += [text for entry in model.metadata_props for text in (entry.key, entry.value)]
    texts += [entry.domain for entry in model.opset_import]
    texts += [model.producer_name, model.producer_version]
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"text that isn't UTF-8: {text!r}")


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes, those inside of If and Loop too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(inner)


def _tensors(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in _nodes(model.graph):
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _readers(model: ModelProto) -> dict[str, list[tuple[NodeProto, int]]]:
    """Tensor → the ops that read it, and as which input."""
    found: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in _nodes(model.graph):
        for index, name in enumerate(node.input):
            found.setdefault(name, []).append((node, index))
    return found


def _scales(model: ModelProto) -> dict[str, dict[str, Any]]:
    """Tensors with a scale: their integer type and grid. Scales that are computed are left out."""
    values = {name: tensor for name, tensor in _tensors(model) if not _is_external(tensor)}
    found: dict[str, dict[str, Any]] = {}

    def note(name: str, scale: str, zero: str, axis: int | None) -> None:
        if name and name not in found and scale in values:
            zero_point = values.get(zero)
            points = _array(zero_point) if zero_point is not None else np.zeros(1)
            dtype = _dtype(zero_point.data_type) if zero_point is not None else "uint8"
            found[name] = {"dtype": dtype, "grid": grid(_array(values[scale]), points, axis)}

    for node in _nodes(model.graph):
        inputs = [*node.input, "", ""]
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and len(node.input) > 1:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            name = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
            note(name, inputs[1], inputs[2], axis)
        for position, scale, zero in _CARRIES_SCALES.get(node.op_type, ()):
            if max(scale, zero) < len(node.input):
                name = node.output[0] if position == "out" else node.input[int(position)]
                note(name, node.input[scale], node.input[zero], 0)
    return found


def _is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _array(tensor: TensorProto) -> Any:
    return numpy_helper.to_array(tensor)


def _constant(
    item: tuple[str, TensorProto],
    readers: dict[str, list[tuple[NodeProto, int]]],
    scales: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    name, tensor = item
    dtype, shape = _dtype(tensor.data_type), list(tensor.dims)
    size = len(tensor.raw_data) or tensor_bytes(dtype, shape)
    row: dict[str, Any] = {"name": name, "dtype": dtype, "shape": shape, "bytes": size}
    row["role"], row["used_by"] = _role(name, readers)
    if _is_external(tensor):
        row["external"] = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if name in scales and dtype in INTEGERS | {"int32"}:
        row |= scales[name]["grid"]
    return row


def _role(name: str, readers: dict[str, list[tuple[NodeProto, int]]], depth: int = 0) -> tuple[str, str]:
    """("weight", the layer that it belongs to): found through the ops that only rewrite a constant."""
    for node, index in readers.get(name, []):
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and index:
            return ("scale" if index == 1 else "zero point"), ""
        if node.op_type in _REWRITES and index == 0 and node.output and depth < _DEPTH:
            return _role(node.output[0], readers, depth + 1)
        where = f"{node.op_type} {node.name}".strip()
        position = _WEIGHTED.get(node.op_type)
        if position is None:
            return "constant", where
        if index == position or (node.op_type == "MatMul" and index == 0):
            return "weight", where
        if any(index in pair[1:] for pair in _CARRIES_SCALES.get(node.op_type, ())):
            return "scale", where
        return "bias", where
    return "unused", ""


def _float_weights(constants: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Weights of multiplying ops that are stored as float, the largest first."""
    rows = [row for row in constants if row["role"] == "weight" and row["dtype"] not in INTEGERS]
    keys = ("name", "dtype", "bytes", "used_by")
    return sorted(({key: row[key] for key in keys} for row in rows), key=lambda row: -row["bytes"])


def _integer_weights(constants: list[dict[str, Any]]) -> dict[str, int]:
    rows = [row for row in constants if row["role"] == "weight" and row["dtype"] in INTEGERS]
    return {"tensors": len(rows), "bytes": sum(row["bytes"] for row in rows)}


def _port(value: ValueInfoProto, scales: dict[str, dict[str, Any]]) -> dict[str, Any]:
    kind = value.type.tensor_type
    shape = [
        size.dim_value if size.HasField("dim_value") else size.dim_param or "?" for size in kind.shape.dim
    ]
    row = {"name": value.name, "dtype": _dtype(kind.elem_type), "shape": shape}
    return row | (scales[value.name]["grid"] if value.name in scales else {})


def _dtype(code: int) -> str:
    try:
        name = helper.tensor_dtype_to_string(code).removeprefix("TensorProto.").lower()
    except KeyError:
        return f"unknown ({code})"
    return {"float": "float32", "double": "float64"}.get(name, name)


def check(path: str) -> None:
    """Let the parser and ONNX Runtime read a file. Raises InputError: one of them doesn't.

    Nothing is optimised: that would compute what no input has a part in, which may fill any memory.
    """
    import onnxruntime

    try:
        read(Path(path))
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        load(Path(path), options)
    except Exception as error:  # whatever they raise is the file's fault
        raise InputError(
            "this is not an ONNX file, or it is damaged",
            where=path,
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:600]}",
            next="export it again",
        ) from error


# --- in its runtime ---------------------------------------------------------------------------------------


def load(path: Path, options: Any = None) -> Any:
    """A session of ONNX Runtime. Raises what it raises."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def executed(path: Path) -> dict[str, Any]:
    """What ONNX Runtime executes after its own optimisation. Raises what it raises."""
    import onnx
    import onnxruntime

    with scratch() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / "executed.onnx")
        load(path, options)
        model = onnx.load(options.optimized_model_filepath, load_external_data=False)
    operators = Counter(node.op_type for node in model.graph.node)
    return {
        "operators": dict(operators.most_common()),
        "xnnpack_partitions": None,
        "outside_xnnpack": {},
        "arena_bytes": None,
    }
