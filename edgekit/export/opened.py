"""An exported int8 file that tells all of its integer tensors, not only its output.

The very file is asked: the tensors between its layers become further outputs, and nothing is converted
anew. A layer's result stands in integers in the file either way; looking at it changes no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.export.options import Format

__all__ = ["Grid", "Opened", "opened", "real"]

_SIGNED = {"int8": 0, "uint8": 128}  # what a zero point lies above that of int8


@dataclass(frozen=True)
class Grid:
    """``scale``, and ``zero_point`` as in int8 (one of uint8 is 128 above)."""

    scale: float
    zero_point: int

    @classmethod
    def of(cls, scale: Any, zero_point: Any, dtype: Any) -> Grid:
        """From what stands in a file or a graph, in the integers' own type (numpy's)."""
        shift = _SIGNED.get(np.dtype(dtype).name, 0)
        return cls(float(np.float32(scale)), int(zero_point) - shift)


@dataclass(frozen=True)
class Opened:
    """A file with all of its integer tensors as outputs.

    ``grids``: of each tensor, in the file's order: the one that it was written on, and those that it is read
    on, where these differ. ``run``: takes one preprocessed row (1, …), or one of raw
    pixels (1, H, W, C) where the file preprocesses by itself; gives the file's answer as real numbers, and
    the tensors as integers.
    """

    grids: Sequence[tuple[Grid, ...]]
    run: Callable[[NDArray[Any]], tuple[NDArray[Any], list[NDArray[Any]]]]


def opened(path: Path, format: Format, *, fused: bool = True) -> Opened:
    """Open an ONNX or LiteRT file of an int8 graph, written for any batch or for single rows.

    Args:
        path: of the file; it is not changed.
        format: "onnx" or "litert".
        fused: whether ONNX Runtime may fuse.
    """
    return _onnx(path, fused) if format == "onnx" else _litert(path)


def _onnx(path: Path, fused: bool) -> Opened:
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    model = onnx.load(str(path))
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    grids: dict[str, list[Grid]] = {}
    types: dict[str, int] = {}
    for node in model.graph.node:
        source = node.input[0] if node.input else ""
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and source not in constants:
            scale, zero = constants[node.input[1]], constants[node.input[2]]
            if scale.size == 1:
                name = node.output[0] if node.op_type == "QuantizeLinear" else source
                types[name] = onnx.helper.np_dtype_to_tensor_dtype(zero.dtype)
                grids.setdefault(name, []).append(Grid.of(scale.item(), zero.item(), zero.dtype))
        else:
            # Integers that are only moved keep their grid.
            for held in [name for name in node.input if name in grids][:1]:
                for name in node.output:
                    grids[name], types[name] = grids[held][:1], types[held]
    first = model.graph.output[0].name
    held_back = [name for name in grids if name != first]
    for name in held_back:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, types[name], None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    entry = session.get_inputs()[0].name

    def run(row: NDArray[Any]) -> tuple[NDArray[Any], list[NDArray[Any]]]:
        answer, *values = session.run(None, {entry: row})
        return answer, values

    return Opened([tuple(dict.fromkeys(grids[name])) for name in held_back], run)


def _litert(path: Path) -> Opened:
    from ai_edge_litert.interpreter import Interpreter

    from edgekit.export import tflite_edit

    model = tflite_edit.read(path.read_bytes())
    graph = model.subgraphs[0]
    made = [int(index) for one in graph.operators for index in one.outputs]
    kept = [index for index in made if graph.tensors[index].type in tflite_edit.QUANTIZED_8]
    own = [int(index) for index in graph.outputs]
    graph.outputs = [*own, *(index for index in kept if index not in own)]
    model.signatureDefs = None  # they would have to tell the new outputs, too
    interpreter = Interpreter(model_content=tflite_edit.write(model), num_threads=1)
    interpreter.allocate_tensors()
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    details = {one["index"]: one for one in interpreter.get_tensor_details()}
    # A scale for each channel is a weight's.
    kept = [index for index in kept if len(details[index]["quantization_parameters"]["scales"]) == 1]
    grids = [(_grid(details[index]),) for index in kept]
    # An input in integers is rounded here, on ties perhaps otherwise than in the graph.
    rounded = entry["dtype"] in (np.int8, np.uint8) and entry["quantization"][0] > 0
    if rounded:
        grids = [(_grid(entry),), *grids]

    def run(row: NDArray[Any]) -> tuple[NDArray[Any], list[NDArray[Any]]]:
        if row.ndim == 4 and row.dtype != np.uint8:  # raw pixels have their channels last already
            row = np.moveaxis(row, 1, -1)
        if entry["dtype"] is not np.float32 and np.issubdtype(row.dtype, np.floating):
            scale, zero_point = entry["quantization"]
            limits = np.iinfo(entry["dtype"])
            row = np.clip(np.rint(row / np.float32(scale)) + zero_point, limits.min, limits.max)
        row = np.ascontiguousarray(row.astype(entry["dtype"]))
        interpreter.set_tensor(entry["index"], row)
        interpreter.invoke()
        answer = interpreter.get_tensor(exit_["index"])
        if np.issubdtype(answer.dtype, np.integer):
            answer = real(answer, _grid(exit_))
        values = [interpreter.get_tensor(index) for index in kept]
        return answer, [row, *values] if rounded else values

    return Opened(grids, run)


def real(value: NDArray[Any], grid: Grid) -> NDArray[Any]:
    """The numbers that integers of either sign stand for, in float32."""
    zero_point = grid.zero_point + _SIGNED.get(value.dtype.name, 0)
    return (value.astype(np.float32) - np.float32(zero_point)) * np.float32(grid.scale)


def _grid(detail: Any) -> Grid:
    scale, zero_point = detail["quantization"]
    return Grid.of(scale, zero_point, detail["dtype"])
