"""int8 coverage of a LiteRT file: the interpreter's ops after allocation, with the types of their tensors.

An op whose operands are int8 runs in an integer kernel, with or without XNNPACK. So does a fully connected
one with int8 weights between float tensors, which quantises what it reads, row by row.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.formats.coverage import INTEGERS, Coverage, Layer, only_sums, telling
from edgekit.formats.litert.delegated import delegated
from edgekit.formats.litert.reading import load
from edgekit.graph.depthwise import MOST_TAPS

__all__ = ["PRODUCT", "of_litert"]

PRODUCT = (
    "a product of two computed matrices, in float: XNNPACK has no integer kernel, and LiteRT's is slower"
)
_PART = f"part of a depthwise kernel of more than {MOST_TAPS} taps, in float: XNNPACK is faster so"


def of_litert(path: Path) -> Coverage:
    """Count what is executed of a ``.tflite`` file, in which that stands. Raises MeasurementError."""
    with telling(path):
        return _litert(path)


def _litert(path: Path) -> Coverage:
    from ai_edge_litert.interpreter import OpResolverType

    # Without the default delegate every op stays visible under its own name, with the types it will run on.
    interpreter = load(path, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    tensors = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    operations = interpreter._get_ops_details()
    written = {int(index) for one in operations for index in one["outputs"]}
    added = {int(index) for one in operations if one["op_name"] == "ADD" for index in one["inputs"]}
    layers = []
    for operation in operations:
        layer = _litert_layer(operation, tensors)
        if layer is not None and layer.kernel == "DEPTHWISE_CONV_2D":
            weight = int(operation["inputs"][1])
            if weight not in written and only_sums(interpreter.get_tensor(weight)):
                continue
        if layer is not None:
            part = layer.kernel == "DEPTHWISE_CONV_2D" and int(operation["outputs"][0]) in added
            layers.append(replace(layer, reason=_PART) if part and not layer.integer else layer)
    taken = delegated(load(path))
    return Coverage(tuple(layers), partitions=taken.partitions, outside=taken.outside)


def _litert_layer(operation: dict[str, Any], tensors: dict[int, Any]) -> Layer | None:
    kernel = operation["op_name"]
    inputs = [tensors[index] for index in operation["inputs"] if index in tensors]
    output = tensors[operation["outputs"][0]] if len(operation["outputs"]) else None
    if output is None:
        return None
    shapes = [list(map(int, item["shape"])) for item in inputs]
    result = list(map(int, output["shape"]))
    if kernel in {"CONV_2D", "CONV_3D"}:  # weight (out, h, w, in / groups)
        macs, operands = math.prod(result) * math.prod(shapes[1][1:]), inputs[:2]
    elif kernel == "DEPTHWISE_CONV_2D":  # weight (1, h, w, out)
        macs, operands = math.prod(result) * math.prod(shapes[1][1:3]), inputs[:2]
    elif kernel == "TRANSPOSE_CONV":  # inputs: output shape, weight (out, h, w, in), x
        macs, operands = math.prod(shapes[2]) * math.prod(shapes[1][:3]), inputs[1:3]
    elif kernel in {"FULLY_CONNECTED", "BATCH_MATMUL"}:
        macs, operands = math.prod(result) * shapes[0][-1], inputs[:2]
    else:
        return None
    kinds = [np.dtype(item["dtype"]).name for item in [*operands, output]]
    # Between float tensors, int8 weights are multiplied with what the kernel makes integers of as it runs.
    hybrid = kernel == "FULLY_CONNECTED" and kinds == ["float32", "int8", "float32"]
    integer = hybrid or all(kind in INTEGERS for kind in kinds)
    reason = "" if integer else f"LiteRT executes {kernel} on {', '.join(kinds)}"
    if kernel == "BATCH_MATMUL" and not integer:
        reason = PRODUCT
    return Layer(str(output["name"]), kernel, macs, integer, reason)
