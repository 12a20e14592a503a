"""Smaller weights in a float ONNX file: float16, or int8. No data is looked at.

ONNX Runtime's CPU kernels compute in float32 (few have float16, and integer convolutions with a scale found
at run time are 2.5 to 8 times slower than float ones), so that weights are widened by ops which the runtime
folds once, when the file is loaded. Inference then takes as long as with float32. The exception are matrix
products with int8 weights: these run on integers, their input quantised as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_SMALLEST = 32  # values; a narrower constant saves less than the op that widens it costs
_PRODUCTS = ("Gemm", "MatMul")
_CONVOLUTIONS = {"Conv": 0, "ConvTranspose": 1}  # op: axis of the output channels in its weight


def halve(model: ModelProto) -> int:
    """Keep float32 constants as float16 and a Cast; returns how many.

    Constants beyond float16's 65,504, or with their digits below its smallest number, stay as they are.
    """
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if value.size < _SMALLEST or not _is_kept(value, half):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_h"))
        casts.append(helper.make_node("Cast", [f"{name}_h"], [name], to=TensorProto.FLOAT))
    _put_first(model, casts)
    return len(casts)


def _is_kept(value: NDArray[np.float32], half: NDArray[np.float16]) -> bool:
    """Whether float16 holds a constant to a thousandth of its norm: it has 11 bits."""
    error = np.linalg.norm(value.astype(np.float64) - half.astype(np.float64))
    return bool(np.isfinite(half).all() and error <= 1e-3 * np.linalg.norm(value.astype(np.float64)))


def quantize_weights(model: ModelProto, *, bits: int = 8) -> int:
    """Weights as int8, symmetric, one scale for each output channel; returns how many.

    Convolutions get theirs back by Cast and Mul. Matrix products with a constant become MatMulInteger on what
    DynamicQuantizeLinear makes of their input, one uint8 scale for the whole tensor, found at run time.

    Args:
        model: a float model, changed in place.
        bits: 7 where the CPU saturates sums of two products (``options.Target``).
    """
    limit = 127 if bits == 8 else 64
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = [name for node in model.graph.node for name in node.input]
    nodes: list[NodeProto] = []
    widened: list[NodeProto] = []
    done = 0
    for node in model.graph.node:
        name = node.input[1] if len(node.input) > 1 else ""
        tensor = constants.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT or readers.count(name) != 1:
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(tensor)
        if node.op_type in _CONVOLUTIONS:
            widened += _widened(model, tensor, weight, _CONVOLUTIONS[node.op_type], limit)
            nodes.append(node)
        elif _is_product(node, weight):
            nodes += _integer_product(model, node, tensor, weight, limit)
        else:
            nodes.append(node)
            continue
        done += 1
    _replace(model, [*widened, *nodes])
    return done


def _rounded(
    weight: NDArray[np.float32], axis: int, limit: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """(int8 weight, scales with the weight's number of dimensions), largest magnitude to ``limit``."""
    others = tuple(dim for dim in range(weight.ndim) if dim != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / limit, 1).astype(np.float32)
    return np.clip(np.rint(weight / scale), -limit, limit).astype(np.int8), scale


def _widened(
    model: ModelProto, tensor: TensorProto, weight: NDArray[np.float32], axis: int, limit: int
) -> list[NodeProto]:
    grid, scale = _rounded(weight, axis, limit)
    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(grid, f"{name}_q"))
    model.graph.initializer.append(numpy_helper.from_array(scale, f"{name}_s"))
    return [
        helper.make_node("Cast", [f"{name}_q"], [f"{name}_f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}_f", f"{name}_s"], [name]),
    ]


def _is_product(node: NodeProto, weight: NDArray[np.float32]) -> bool:
    if node.op_type not in _PRODUCTS or weight.ndim != 2:
        return False
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return all(settings.get(key, 1.0) == 1.0 for key in ("alpha", "beta")) and not settings.get("transA", 0)


def _integer_product(
    model: ModelProto, node: NodeProto, tensor: TensorProto, weight: NDArray[np.float32], limit: int
) -> list[NodeProto]:
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    columns = np.ascontiguousarray(weight.T if settings.get("transB", 0) else weight)
    grid, scale = _rounded(columns, 1, limit)
    name, source, result = tensor.name, node.input[0], node.output[0]
    tensor.CopyFrom(numpy_helper.from_array(grid, f"{name}_q"))
    model.graph.initializer.append(numpy_helper.from_array(scale.ravel(), f"{name}_s"))
    bias = node.input[2] if len(node.input) > 2 else ""
    product = f"{result}_y" if bias else result
    steps = [
        helper.make_node("DynamicQuantizeLinear", [source], [f"{result}_{x}" for x in ("q", "s", "z")]),
        helper.make_node("MatMulInteger", [f"{result}_q", f"{name}_q", f"{result}_z"], [f"{result}_i"]),
        helper.make_node("Cast", [f"{result}_i"], [f"{result}_f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{result}_s", f"{name}_s"], [f"{result}_m"]),
        helper.make_node("Mul", [f"{result}_f", f"{result}_m"], [product]),
    ]
    if bias:
        steps.append(helper.make_node("Add", [product, bias], [result]))
    steps[1].name = node.name
    return steps


def _put_first(model: ModelProto, nodes: Sequence[NodeProto]) -> None:
    _replace(model, [*nodes, *model.graph.node])


def _replace(model: ModelProto, nodes: Sequence[NodeProto]) -> None:
    """Copies first: a message that is deleted from its owner can't be relied on any more."""
    copies = [NodeProto() for _ in nodes]
    for one, node in zip(copies, nodes, strict=True):
        one.CopyFrom(node)
    del model.graph.node[:]
    model.graph.node.extend(copies)
