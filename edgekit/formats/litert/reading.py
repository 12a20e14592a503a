"""What is inside a LiteRT (.tflite) file, read with the schema that ai-edge-litert ships."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.formats.litert.delegated import delegated
from edgekit.formats.summary import INTEGERS, by_size, dtype_totals, grid, tensor_bytes
from edgekit.memory.arena import Step, plan

__all__ = ["IDENTIFIER", "read"]

IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every file
_LIMIT = 1_000_000  # tensors or ops: a damaged count must not be believed
# Multiplying ops, and which of their inputs is the weight, and the bias.
_WEIGHTED = {
    "CONV_2D": (1, 2),
    "CONV_3D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (1, 3),
    "BATCH_MATMUL": (1, 9),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (1, 9),
}
_VIEWS = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}  # LiteRT lets their output share the input's memory


def read(path: Path) -> dict[str, Any]:
    """Ops, types, scales, tensors and arena of a LiteRT file, as JSON.

    The runtime should have accepted the file before: on a damaged one this raises whatever reading beyond its
    end raises (struct.error, IndexError, ValueError, …).
    """
    from ai_edge_litert import schema_py_generated as schema

    content = path.read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    graphs = [model.Subgraphs(index) for index in range(_count(model.SubgraphsLength()))]
    if not graphs:
        raise ValueError("no LiteRT model: it holds no graph")
    main, names = graphs[0], _op_names(model, schema)
    tensors = [_tensor(main.Tensors(i), model, schema) for i in range(_count(main.TensorsLength()))]
    ops = _ops(main, names)
    for row in tensors:
        row |= {"role": "activation", "used_by": ""}
    _give_roles(tensors, ops)
    constants = [row for row in tensors if row["constant"]]
    activations = [row for row in tensors if not row["constant"]]
    inputs, outputs = _numbers(main.InputsAsNumpy()), _numbers(main.OutputsAsNumpy())
    every = Counter(name for graph in graphs for name, _, _ in _ops(graph, names))
    weights = [row for row in constants if row["role"] == "weight"]
    floats = [row for row in weights if row["dtype"] not in INTEGERS]
    return {
        "versions": {"schema": model.Version(), "min_runtime": _min_runtime(model)},
        "description": _text(model.Description()),
        "metadata": _metadata(model),
        "signatures": _signatures(model),
        "subgraphs": len(graphs),
        "inputs": [_without(tensors[index]) for index in inputs],
        "outputs": [_without(tensors[index]) for index in outputs],
        "operators": dict(every.most_common()),
        "constant_dtypes": dtype_totals(constants),
        "activation_dtypes": dict(Counter(row["dtype"] for row in activations)),
        "float_weights": [{key: row[key] for key in ("name", "dtype", "bytes", "used_by")} for row in floats],
        "integer_weights": {
            "tensors": len(weights) - len(floats),
            "bytes": sum(row["bytes"] for row in weights if row["dtype"] in INTEGERS),
        },
        "arena": _arena(tensors, ops, inputs, outputs),
        "tensors": [_without(row, "constant") for row in by_size(constants, len(content))],
        "activations": [_without(row) for row in activations],
    }


def _count(length: int) -> int:
    if not 0 <= length <= _LIMIT:
        raise ValueError(f"a count of {length}")
    return length


def _op_names(model: Any, schema: Any) -> list[str]:
    codes = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    found = []
    for index in range(_count(model.OperatorCodesLength())):
        code = model.OperatorCodes(index)
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = codes.get(number, f"unknown op {number}")
        found.append(f"CUSTOM {_text(code.CustomCode())}" if name == "CUSTOM" else name)
    return found


def _ops(graph: Any, names: list[str]) -> list[tuple[str, list[int], list[int]]]:
    """(name, inputs, outputs) of each op in the order of execution; -1 is an input that is left out."""
    found = []
    for index in range(_count(graph.OperatorsLength())):
        op = graph.Operators(index)
        found.append((names[op.OpcodeIndex()], _numbers(op.InputsAsNumpy()), _numbers(op.OutputsAsNumpy())))
    return found


def _numbers(array: Any) -> list[int]:
    """A vector of the schema: an array, or 0 where it is left out."""
    return [int(value) for value in np.atleast_1d(array)] if isinstance(array, np.ndarray) else []


def _tensor(tensor: Any, model: Any, schema: Any) -> dict[str, Any]:
    types = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    shape, dtype = _numbers(tensor.ShapeAsNumpy()), types.get(tensor.Type(), f"unknown ({tensor.Type()})")
    buffer = model.Buffers(tensor.Buffer())
    stored = max(buffer.DataLength(), buffer.Size())
    row: dict[str, Any] = {
        "name": _text(tensor.Name()),
        "dtype": dtype,
        "shape": shape,
        "bytes": int(stored) or tensor_bytes(dtype, shape),
        "constant": bool(stored),
    }
    quantization = tensor.Quantization()
    if quantization is not None and quantization.ScaleLength():
        row |= grid(
            quantization.ScaleAsNumpy(),
            quantization.ZeroPointAsNumpy() if quantization.ZeroPointLength() else [],
            quantization.QuantizedDimension(),
        )
    return row


def _give_roles(tensors: list[dict[str, Any]], ops: list[tuple[str, list[int], list[int]]]) -> None:
    """Write into constants what they are for; ops and tensors are named by their number in short files."""
    for name, inputs, outputs in ops:
        where = f"{name} → {tensors[outputs[0]]['name']}" if outputs else name
        weight, bias = _WEIGHTED.get(name, (-1, -1))
        for position, index in enumerate(inputs):
            if index < 0 or not tensors[index]["constant"] or tensors[index]["used_by"]:
                continue
            role = {weight: "weight", bias: "bias"}.get(position, "constant")
            tensors[index] |= {"role": role, "used_by": where}


def _arena(
    tensors: list[dict[str, Any]],
    ops: list[tuple[str, list[int], list[int]]],
    inputs: list[int],
    outputs: list[int],
) -> dict[str, Any]:
    """Peak memory of what isn't constant; see ``inspecting.arena``."""
    sizes: dict[Any, int] = {
        index: tensor_bytes(row["dtype"], row["shape"])
        for index, row in enumerate(tensors)
        if not row["constant"]
    }
    shares: dict[Any, Any] = {
        made[0]: read[0] for name, read, made in ops if name in _VIEWS and made and read and read[0] in sizes
    }
    steps = [
        Step(f"{position} {name}", tuple(i for i in read if i in sizes), tuple(i for i in made if i in sizes))
        for position, (name, read, made) in enumerate(ops)
    ]
    arena = plan(sizes, steps, inputs=inputs, outputs=outputs, shares=shares)
    described = arena.describe()
    described["largest"] = [
        {"name": tensors[int(row["name"])]["name"], "bytes": row["bytes"]} for row in described["largest"]
    ]
    return described


def _metadata(model: Any) -> dict[str, str]:
    """Text entries of the file; edgekit's own, a JSON object of strings, in its parts."""
    found: dict[str, str] = {}
    for name, content in _entries(model):
        text = content.rstrip(b"\0").decode("utf-8", "replace")
        if name == "edgekit":
            try:
                found.update({str(key): str(value) for key, value in json.loads(text).items()})
                continue
            except (ValueError, AttributeError):
                pass
        if name != "min_runtime_version":
            found[name] = text if len(text) <= 2000 and text.isprintable() else f"({len(content)} bytes)"
    return found


def _min_runtime(model: Any) -> str:
    entries = dict(_entries(model))
    return entries.get("min_runtime_version", b"").rstrip(b"\0").decode("utf-8", "replace")


def _entries(model: Any) -> list[tuple[str, bytes]]:
    found = []
    for index in range(_count(model.MetadataLength())):
        entry = model.Metadata(index)
        buffer = model.Buffers(entry.Buffer())
        content = buffer.DataAsNumpy().tobytes() if buffer.DataLength() else b""
        found.append((_text(entry.Name()), content))
    return found


def _signatures(model: Any) -> list[dict[str, Any]]:
    found = []
    for index in range(_count(model.SignatureDefsLength())):
        one = model.SignatureDefs(index)
        found.append(
            {
                "key": _text(one.SignatureKey()),
                "inputs": [_text(one.Inputs(i).Name()) for i in range(_count(one.InputsLength()))],
                "outputs": [_text(one.Outputs(i).Name()) for i in range(_count(one.OutputsLength()))],
            }
        )
    return found


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _without(row: dict[str, Any], *keys: str) -> dict[str, Any]:
    dropped = keys or ("constant", "role", "used_by")
    return {key: value for key, value in row.items() if key not in dropped}


def describe(path: str) -> dict[str, Any]:
    """``read`` for a child process (``guarded``): a damaged file may end it."""
    return read(Path(path))


# --- in its runtime ---------------------------------------------------------------------------------------


def load(path: Path, **options: Any) -> Any:
    """LiteRT's interpreter, with tensors. Raises what it raises."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1, **options)
    interpreter.allocate_tensors()
    return interpreter


def executed(path: Path) -> dict[str, Any]:
    """What LiteRT executes, in how many pieces it hands that to XNNPACK, and what its own planner
    reserves for tensors, scratch space of its kernels included. Raises what LiteRT raises.
    """
    from ai_edge_litert.interpreter import OpResolverType

    plain = load(path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    names = Counter(operation["op_name"] for operation in plain._get_ops_details())
    taken = delegated(load(path))
    return {
        "operators": dict(names.most_common()),
        "xnnpack_partitions": taken.partitions,
        "outside_xnnpack": taken.outside,
        "arena_bytes": _planned_bytes(plain),
    }


def _planned_bytes(interpreter: Any) -> int:
    """How far apart the tensors of LiteRT's arena lie, from their addresses.

    Constants lie in the file's own memory, apart from the arena: only what ops write counts, and the inputs.
    """
    written = {int(i) for op in interpreter._get_ops_details() for i in op["outputs"] if i >= 0}
    written |= {detail["index"] for detail in interpreter.get_input_details()}
    spans = []
    for index in written:
        with contextlib.suppress(ValueError, RuntimeError):
            view = np.asarray(interpreter.tensor(index)())
            spans.append((view.ctypes.data, view.ctypes.data + view.nbytes))
    return max(end for _, end in spans) - min(start for start, _ in spans) if spans else 0
