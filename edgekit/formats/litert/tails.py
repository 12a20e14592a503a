"""Outputs whose channels have factors of their own, on integers: for who asks for integer ends.

Such factors stand in float behind the last layer (``int8/heads.py``), as channels a hundred times smaller
than others are lost on one grid. A chip that takes integers alone hands these ops to a CPU, if it has one.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.movable import is_constant
from edgekit.formats.litert.wiring import Wiring

__all__ = ["integer_tails"]

_INT8, _FLOAT = schema.TensorType.INT8, schema.TensorType.FLOAT32
_ONE = 64  # steps of a factor's grid that are 1: powers of two down to 1/64 lie on it


def integer_tails(model: Any) -> int:
    """Have outputs that are integers times factors of at most 1 multiplied in int8, and count them.

    The output gets the integers' own grid, on which the largest channel (factor 1) loses nothing; one 64
    times as small keeps two steps of each 128.
    """
    file = Wiring(model)
    done = sum(_multiplied(file, output) for output in sorted(file.outputs))
    if done:
        file.sort()
    return done


def _multiplied(file: Wiring, output: int) -> bool:
    product = file.maker.get(output)
    if product is None or file.kind(product) != "MUL" or product.builtinOptions.fusedActivationFunction:
        return False
    if file.readers[output]:  # in float, by what follows
        return False
    constants = [int(one) for one in product.inputs if is_constant(file.model, file.graph, int(one))]
    values = [int(one) for one in product.inputs if int(one) not in constants]
    if len(constants) != 1 or len(values) != 1 or file.graph.tensors[constants[0]].type != _FLOAT:
        return False
    source = file.maker.get(values[0])
    if source is None or file.kind(source) != "DEQUANTIZE":
        return False
    integers = file.graph.tensors[int(source.inputs[0])]
    factors = tflite_edit.constant(file.model, file.graph.tensors[constants[0]], np.float32)
    if integers.type != _INT8 or not ((factors > 0) & (factors <= 1)).all():
        return False
    shape = file.graph.tensors[constants[0]].shape
    steps = np.rint(factors * _ONE).astype(np.int8).reshape(tuple(int(one) for one in shape))
    grid = schema.QuantizationParametersT()
    grid.scale, grid.zeroPoint = [1 / _ONE], [0]
    product.inputs = [int(source.inputs[0]), tflite_edit.add_constant(file.model, steps, "factors", grid)]
    given = file.graph.tensors[output]
    given.type, given.quantization = _INT8, copy(integers.quantization)
    if len(file.readers[values[0]]) == 1:
        file.graph.operators = [one for one in file.graph.operators if one is not source]
    file.index()
    return True
