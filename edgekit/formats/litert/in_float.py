"""Ops that XNNPACK has in float alone: dequantised in front of, computed there, quantised behind.

LiteRT's own integer kernels for them split XNNPACK's work, and products of two computed matrices are slow
there: a small BERT takes 2.7 times as long, and as many instructions on a Cortex-A76 (docs/int8.md). The
numbers are read from their grids and put on their grids as before.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.wiring import Wiring

__all__ = ["FLOAT_ALONE", "compute_in_float"]

FLOAT_ALONE = ("BATCH_MATMUL", "GELU", "SOFTMAX")


def compute_in_float(model: Any) -> int:
    """Respell these ops, in place, where all that they read and give is int8; how many there were.

    A softmax only beside products of computed matrices, which it splits: one that ends a network costs
    nothing, and stays what microcontrollers take.
    """
    file = Wiring(model)
    found = [one for one in file.graph.operators if _on_integers(file, one)]
    products = [one for one in found if file.kind(one) == "BATCH_MATMUL" or _is_product(file, one)]
    kinds = {"GELU", "SOFTMAX"} if products else {"GELU"}
    done = [*products, *(one for one in found if file.kind(one) in kinds)]
    for operator in done:
        if file.kind(operator) not in FLOAT_ALONE:
            _as_product(file, operator)
        operator.inputs = [file.add_dequantize(int(one)) for one in operator.inputs]
        (given,) = (int(one) for one in operator.outputs)
        operator.outputs = [file.add_quantize(given)]
    if done:
        file.sort()
    return len(done)


def _is_product(file: Wiring, operator: Any) -> bool:
    """Whether a linear layer's weights are computed, and nothing but two matrices is multiplied."""
    if file.kind(operator) != "FULLY_CONNECTED" or operator.builtinOptions.fusedActivationFunction:
        return False
    source, weights, *bias = (int(one) for one in operator.inputs)
    shape = file.graph.tensors[source].shape
    several = len(shape) < 2 or any(int(size) != 1 for size in shape[:-2])
    return weights in file.maker and not several and all(one < 0 for one in bias)


def _as_product(file: Wiring, operator: Any) -> None:
    source, weights = (int(one) for one in operator.inputs[:2])
    places = [1] * (len(file.graph.tensors[source].shape) - 2)
    matrix = [int(size) for size in file.graph.tensors[weights].shape]
    operator.inputs = [source, file.add_reshape(weights, (*places, *matrix)) if places else weights]
    operator.opcodeIndex = tflite_edit.operator_code(file.model, "BATCH_MATMUL")
    operator.builtinOptions = schema.BatchMatMulOptionsT()
    operator.builtinOptions.adjY = True
    operator.builtinOptionsType = schema.BuiltinOptions.BatchMatMulOptions


def _on_integers(file: Wiring, operator: Any) -> bool:
    read = [int(one) for one in operator.inputs if int(one) >= 0]
    tensors = [file.graph.tensors[one] for one in (*read, *(int(one) for one in operator.outputs))]
    return all(one.type == schema.TensorType.INT8 for one in tensors)
