"""Recurrent layers with int8 weights in LiteRT files.

The converter unrolls them: a fully connected op for the inputs of all steps at once, and one for the state at
each step, which share their weights. With int8 weights between float tensors these ops quantise what they
read, row by row, as they run, and multiply integers, in XNNPACK and in LiteRT's own kernels alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.wiring import Wiring
from edgekit.formats.recurrent import Matrices, Matrix

__all__ = ["VERSIONS", "store"]

# Hybrid kernels (float activations, int8 weights with a scale for each channel) are newer than the version
# that converters leave at the op: tflite-runtime 2.14.0 would load the file and answer wrongly.
VERSIONS = {"FULLY_CONNECTED": 12}


def store(model: Any, matrices: Matrices) -> int:
    """Give fully connected ops the graph's int8 weights, in place; how many tensors there were."""
    if not matrices:
        return 0
    file = Wiring(model)
    done: dict[int, int] = {}
    for operator in file.graph.operators:
        if file.kind(operator) != "FULLY_CONNECTED":
            continue
        weight = int(operator.inputs[1])
        if weight not in done:
            found = _matrix(file, weight, matrices)
            if found is None:
                continue
            done[weight] = _add(model, found, file.graph.tensors[weight].name)
        operator.inputs = [int(operator.inputs[0]), done[weight], *map(int, operator.inputs[2:])]
    if done:
        tflite_edit.at_least(model, VERSIONS)
    return len(done)


def _matrix(file: Wiring, tensor: int, matrices: Matrices) -> Matrix | None:
    one = file.graph.tensors[tensor]
    data = file.model.buffers[one.buffer].data
    if tensor in file.maker or one.type != schema.TensorType.FLOAT32 or data is None or len(one.shape) != 2:
        return None
    return matrices.find(
        tflite_edit.constant(file.model, one, np.float32).reshape(tuple(map(int, one.shape)))
    )


def _add(model: Any, matrix: Matrix, name: Any) -> int:
    grid = tflite_edit.on_grid(matrix.scale.tolist(), [0] * len(matrix.scale))
    return tflite_edit.add_constant(model, matrix.integers, name, grid)
