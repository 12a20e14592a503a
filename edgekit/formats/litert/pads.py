"""Pads of a LiteRT file as the op that XNNPACK takes."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.movable import is_constant

__all__ = ["plain_pads"]


def plain_pads(model: Any) -> int:
    """PADV2 with the integer that stands for 0 as PAD, which fills with it anyway; how many there were.

    In front of a maximum the converter fills with the grid's lowest number. Behind a ReLU that is 0, and
    XNNPACK has PAD, but not PADV2.
    """
    graph, kinds, count = model.subgraphs[0], tflite_edit.kinds(model), 0
    for operator in graph.operators:
        if kinds[operator.opcodeIndex] != "PADV2":
            continue
        source, _, filling = (graph.tensors[int(one)] for one in operator.inputs)
        grid = source.quantization
        if source.type != schema.TensorType.INT8 or grid is None or grid.zeroPoint is None:
            continue
        if len(grid.zeroPoint) != 1 or not is_constant(model, graph, int(operator.inputs[2])):
            continue
        if int(tflite_edit.constant(model, filling, np.int8)[0]) != int(grid.zeroPoint[0]):
            continue
        operator.opcodeIndex = tflite_edit.operator_code(model, "PAD", 2)  # 2: the first with int8
        operator.inputs = operator.inputs[:2]
        operator.builtinOptions = schema.PadOptionsT()
        operator.builtinOptionsType = schema.BuiltinOptions.PadOptions
        kinds, count = tflite_edit.kinds(model), count + 1
    return count
