"""Ops that XNNPACK has in float alone: dequantised in front of, computed there, quantised behind.

LiteRT's own integer kernels for them split XNNPACK's work, and products of two computed matrices are slow
there: a small BERT takes 2.7 times as long, and as many instructions on a Cortex-A76 (docs/int8.md). The
numbers are read from their grids and put on their grids as before.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.movable import is_constant
from edgekit.formats.litert.wiring import Wiring

__all__ = ["FLOAT_ALONE", "compute_in_float", "multiply_matrices"]

_INT8, _FLOAT = schema.TensorType.INT8, schema.TensorType.FLOAT32

FLOAT_ALONE = ("BATCH_MATMUL", "GELU", "SOFTMAX")
_AFTER = ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE")


def compute_in_float(model: Any) -> int:
    """Respell these ops, in place, where all that they read and give is int8; how many there were.

    But for a softmax that ends a network: it splits nothing, and stays what microcontrollers take.
    """
    file = Wiring(model)
    found = [one for one in file.graph.operators if _on(file, one, _INT8)]
    products = [one for one in found if file.kind(one) == "BATCH_MATMUL" or _is_product(file, one)]
    gelus = [one for one in found if file.kind(one) == "GELU"]
    softmaxes = [one for one in found if file.kind(one) == "SOFTMAX" and not _is_last(file, one)]
    done = [*products, *gelus, *softmaxes]
    for operator in done:
        if file.kind(operator) not in FLOAT_ALONE:
            _as_product(file, operator)
        operator.inputs = [file.add_dequantize(int(one)) for one in operator.inputs]
        (given,) = (int(one) for one in operator.outputs)
        operator.outputs = [file.add_quantize(given)]
    if done:
        file.sort()
    return len(done)


def multiply_matrices(model: Any) -> int:
    """Linear layers of floats whose weights are computed as the products that they are, in place; how many.

    XNNPACK has linear layers of constant weights alone.
    """
    file = Wiring(model)
    found = [one for one in file.graph.operators if _on(file, one, _FLOAT) and _is_product(file, one)]
    for operator in found:
        _as_product(file, operator)
    if found:
        file.sort()
    return len(found)


def _is_last(file: Wiring, operator: Any) -> bool:
    """Whether nothing stands behind an op but moves, and the numbers read from the last grid."""
    todo = [operator]
    while todo:
        for one in todo.pop().outputs:
            readers = file.readers[int(one)]
            if any(file.kind(reader) not in _AFTER for reader in readers):
                return False
            todo += readers
    return True


def _is_product(file: Wiring, operator: Any) -> bool:
    """Whether a linear layer's weights are computed, and nothing but two matrices is multiplied."""
    if file.kind(operator) != "FULLY_CONNECTED" or operator.builtinOptions.fusedActivationFunction:
        return False
    source, weights, *bias = (int(one) for one in operator.inputs)
    shape = file.graph.tensors[source].shape
    several = len(shape) < 2 or any(int(size) != 1 for size in shape[:-2])
    return _is_computed(file, weights) and not several and all(one < 0 for one in bias)


def _is_computed(file: Wiring, tensor: int) -> bool:
    """Whether a tensor isn't a constant, nor one that was stored on a grid or in another order."""
    while tensor in file.maker and file.kind(file.maker[tensor]) in ("DEQUANTIZE", "RESHAPE", "TRANSPOSE"):
        tensor = int(file.maker[tensor].inputs[0])
    return not is_constant(file.model, file.graph, tensor)


def _as_product(file: Wiring, operator: Any) -> None:
    source, weights = (int(one) for one in operator.inputs[:2])
    places = [1] * (len(file.graph.tensors[source].shape) - 2)
    matrix = [int(size) for size in file.graph.tensors[weights].shape]
    operator.inputs = [source, file.add_reshape(weights, (*places, *matrix)) if places else weights]
    operator.opcodeIndex = tflite_edit.operator_code(file.model, "BATCH_MATMUL")
    operator.builtinOptions = schema.BatchMatMulOptionsT()
    operator.builtinOptions.adjY = True
    operator.builtinOptionsType = schema.BuiltinOptions.BatchMatMulOptions


def _on(file: Wiring, operator: Any, kind: int) -> bool:
    """Whether all that an op reads and gives is of that type."""
    read = [int(one) for one in operator.inputs if int(one) >= 0]
    tensors = [file.graph.tensors[one] for one in (*read, *(int(one) for one in operator.outputs))]
    return all(one.type == kind for one in tensors)
