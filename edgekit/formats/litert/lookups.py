"""Tables of embeddings in integers: the converter leaves them in float in front of a quantiser."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert import tflite_edit

__all__ = ["integer_tables"]

_FLOAT, _INT8 = schema.TensorType.FLOAT32, schema.TensorType.INT8
_VERSION = {"EMBEDDING_LOOKUP": 3}  # the first that looks up int8


def integer_tables(model: Any) -> int:
    """Have EMBEDDING_LOOKUP take int8 rows where an int8 quantiser follows; how many tables became integers.

    Exact: the graph has the table on the quantiser's own grid. Between the two may stand reshapes, which move
    integers as they move floats. A table that something else reads stays as it is.
    """
    graph, kinds = model.subgraphs[0], tflite_edit.kinds(model)  # others are bodies of its operators
    readers: dict[int, list[Any]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            readers.setdefault(int(index), []).append(operator)
    count = 0
    for operator in list(graph.operators):
        if kinds[operator.opcodeIndex] != "EMBEDDING_LOOKUP":
            continue
        table, moved = int(operator.inputs[1]), [int(operator.outputs[0])]
        after = readers.get(moved[-1], [])
        while len(after) == 1 and kinds[after[0].opcodeIndex] == "RESHAPE":
            moved.append(int(after[0].outputs[0]))
            after = readers.get(moved[-1], [])
        if len(after) != 1 or kinds[after[0].opcodeIndex] != "QUANTIZE" or len(readers[table]) != 1:
            continue
        (quantize,) = after
        result = graph.tensors[int(quantize.outputs[0])]
        if graph.tensors[table].type != _FLOAT or result.type != _INT8:
            continue
        _to_integers(model, graph.tensors[table], result.quantization)
        for index in moved:
            graph.tensors[index].type, graph.tensors[index].quantization = _INT8, result.quantization
        _read_instead(graph, int(quantize.outputs[0]), moved[-1])
        graph.operators.remove(quantize)
        count += 1
    if count:
        tflite_edit.at_least(model, _VERSION)
    return count


def _to_integers(model: Any, table: Any, grid: Any) -> None:
    scale, zero_point = np.float32(grid.scale[0]), int(grid.zeroPoint[0])
    values = tflite_edit.constant(model, table, np.float32)
    whole = np.clip(np.rint(values / scale) + zero_point, -128, 127).astype(np.int8)
    buffer = schema.BufferT()
    buffer.data = whole.view(np.uint8)
    model.buffers.append(buffer)
    before, table.buffer = table.buffer, len(model.buffers) - 1
    table.type, table.quantization = _INT8, grid
    if not any(one.buffer == before for graph in model.subgraphs for one in graph.tensors):
        model.buffers[before] = schema.BufferT()  # the floats would stay in the file


def _read_instead(graph: Any, old: int, new: int) -> None:
    for operator in graph.operators:
        operator.inputs = [new if int(index) == old else int(index) for index in operator.inputs]
    graph.outputs = [new if int(index) == old else int(index) for index in graph.outputs]
