"""int8 coverage of an ExecuTorch program, counted in the file: what was handed to XNNPACK, in which types.

XNNPACK chooses a kernel by the types of an op's tensors and has none that mixes them, so the types that the
delegate's graph declares are those that run. What was not handed over runs in ExecuTorch's portable kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.formats.coverage import Coverage, Layer, telling
from edgekit.formats.executorch.program import XNNPACK, Call, Partition, Program

INTEGERS = {"xnn_datatype_qint8", "xnn_datatype_qcint8"}
CONVOLUTIONS = {"XNNConv2d", "XNNDepthwiseConv2d", "XNNConvTranspose2d"}
PORTABLE = {"aten::convolution", "aten::linear", "aten::addmm", "aten::mm", "aten::bmm", "aten::baddbmm"}
PORTABLE |= {"quantized_decomposed::mixed_mm"}


def of_executorch(path: Path) -> Coverage:
    """Count what is executed of a ``.pte`` file. Raises MeasurementError: it is none, or can't be counted."""
    with telling(path):
        return count(path)


def count(path: Path) -> Coverage:
    """Coverage of ``path``, a ``.pte`` file; its layers in the order in which they run.

    Raises:
        ValueError: it is no program, or holds a delegate other than XNNPACK, of which nothing is known.
    """
    program = Program(path)
    layers: list[Layer] = []
    for call in program.calls():
        if call.partition is not None:
            layers.extend(_delegated(call.partition))
        elif call.delegated:
            raise ValueError(f"the delegate {call.name} is unknown; expected {XNNPACK}")
        else:
            layers.extend(_portable(program.plan, call))
    return Coverage(tuple(layers))


def _delegated(partition: Partition) -> Iterator[Layer]:
    for kind, node in partition.nodes:
        if kind in CONVOLUTIONS:
            keys = ("input1_id", "filter_id", "output_id")
        elif kind in {"XNNFullyConnected", "XNNBatchMatrixMultiply"}:
            keys = ("input1_id", "filter_id" if kind == "XNNFullyConnected" else "input2_id", "output_id")
        elif kind == "XNNScaledDotProductAttention":
            keys = ("query_id", "key_id", "output_id")
        else:
            continue
        tensors = [partition.values[node[key]] for key in keys]
        first, other, result = (tensor["dims"] for tensor in tensors)
        if kind in CONVOLUTIONS:
            macs = _convolution_macs(kind, node, first, result)
        elif kind == "XNNScaledDotProductAttention":
            macs = 2 * math.prod(first) * other[-2]
        else:
            macs = math.prod(result) * first[-1]
        kinds = [tensor["datatype"] for tensor in tensors]
        integer = all(kind in INTEGERS for kind in kinds)
        short = ", ".join(kind.removeprefix("xnn_datatype_") for kind in kinds)
        reason = "" if integer else f"XNNPACK executes {kind} on {short}"
        yield Layer(f"{kind}:{tensors[2]['id_out']}", kind, macs, integer, reason)


def _convolution_macs(kind: str, node: dict[str, Any], x: list[int], y: list[int]) -> int:
    kernel = int(node["kernel_height"]) * int(node["kernel_width"])
    if kind == "XNNConvTranspose2d":
        return math.prod(x) * kernel * int(node["group_output_channels"])
    return math.prod(y) * kernel * int(node["group_input_channels"])


def _portable(plan: Any, call: Call) -> Iterator[Layer]:
    kernel = call.name
    if kernel not in PORTABLE:
        return
    tensors = [plan["values"][index] for index in call.args]
    shapes = [list(one["val"]["sizes"]) for one in tensors if one["val_type"] == "Tensor"]
    if kernel == "aten::convolution":
        transposed = bool(tensors[6]["val"]["bool_val"])
        macs = math.prod(shapes[0] if transposed else shapes[-1]) * math.prod(shapes[1][1:])
    else:
        left = shapes[1] if kernel in {"aten::addmm", "aten::baddbmm"} else shapes[0]
        macs = math.prod(shapes[-1]) * left[-1]
    yield Layer(f"{kernel}:{call.args[-1]}", kernel, macs, False, "XNNPACK doesn't take it")
