"""A LiteRT file that tells all of its integer tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.formats.opened import Grid, Opened, real

__all__ = ["open_litert"]


def open_litert(path: Path) -> Opened:
    """Open a LiteRT file of an int8 graph, written for single rows; it is not changed."""
    from ai_edge_litert.interpreter import Interpreter

    from edgekit.formats.litert import tflite_edit

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


def _grid(detail: Any) -> Grid:
    scale, zero_point = detail["quantization"]
    return Grid.of(scale, zero_point, detail["dtype"])
