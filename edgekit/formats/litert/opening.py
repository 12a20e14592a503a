"""A LiteRT file that tells all of its integer tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.formats.opened import Grid, Opened, real
from edgekit.runtimes.device.runtimes import parts

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
    entries, exits = interpreter.get_input_details(), interpreter.get_output_details()[: len(own)]
    details = {one["index"]: one for one in interpreter.get_tensor_details()}
    # A scale for each channel is a weight's.
    kept = [index for index in kept if len(details[index]["quantization_parameters"]["scales"]) == 1]
    grids = [(_grid(details[index]),) for index in kept]
    # Inputs in integers are rounded here, on ties perhaps otherwise than in the graph.
    rounded = [
        entry for entry in entries if entry["dtype"] in (np.int8, np.uint8) and entry["quantization"][0] > 0
    ]
    grids = [*((_grid(entry),) for entry in rounded), *grids]

    def run(row: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]:
        by_name = dict(parts(row))
        given = []
        for entry in entries:
            given.append(_taken(by_name[None] if None in by_name else by_name[entry["name"]], entry))
            interpreter.set_tensor(entry["index"], given[-1])
        interpreter.invoke()
        answers = {}
        for exit_ in exits:
            answer = interpreter.get_tensor(exit_["index"])
            whole = np.issubdtype(answer.dtype, np.integer) and exit_["quantization"][0] > 0
            answers[exit_["name"]] = real(answer, _grid(exit_)) if whole else answer
        integers = [one for one, entry in zip(given, entries, strict=True) if entry in rounded]
        return answers, [*integers, *(interpreter.get_tensor(index) for index in kept)]

    return Opened(grids, run)


def _taken(row: NDArray[Any], entry: Any) -> NDArray[Any]:
    """A row in the type and order of an input."""
    if row.ndim == 4 and row.dtype != np.uint8:  # raw pixels have their channels last already
        row = np.moveaxis(row, 1, -1)
    if entry["dtype"] is not np.float32 and np.issubdtype(row.dtype, np.floating):
        scale, zero_point = entry["quantization"]
        limits = np.iinfo(entry["dtype"])
        row = np.clip(np.rint(row / np.float32(scale)) + zero_point, limits.min, limits.max)
    return np.ascontiguousarray(row.astype(entry["dtype"]))


def _grid(detail: Any) -> Grid:
    scale, zero_point = detail["quantization"]
    return Grid.of(scale, zero_point, detail["dtype"])
