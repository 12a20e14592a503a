"""Which ops a file uses, and what TensorFlow Lite for Microcontrollers (TFLM) calls them.

An interpreter there links only the kernels that a program registers by name in its
``MicroMutableOpResolver``. The names are those of TFLM's public header ``micro_mutable_op_resolver.h``:
mostly LiteRT's own in camel case, with a few that nobody can derive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgekit.errors import ExportError

__all__ = ["METHODS", "cmsis_nn_scratch", "missing", "resolver_methods"]

# Ops whose method is their name in camel case: EXPAND_DIMS → AddExpandDims.
_PLAIN = """
ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO
CALL_ONCE CAST CEIL CONCATENATION COS DEPTH_TO_SPACE DEQUANTIZE DIV ELU EMBEDDING_LOOKUP EQUAL EXP
EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL
HARD_SWISH IF LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX
MAXIMUM MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PRELU QUANTIZE READ_VARIABLE REDUCE_MAX
REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT
SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV UNPACK
VAR_HANDLE WHILE ZEROS_LIKE
"""
_OTHERS = {
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "BATCH_MATMUL": "AddBatchMatMul",
    "CONV_2D": "AddConv2D",
    "CUMSUM": "AddCumSum",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "L2_NORMALIZATION": "AddL2Normalization",
    "L2_POOL_2D": "AddL2Pool2D",
    "MAX_POOL_2D": "AddMaxPool2D",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
METHODS = {name: "Add" + "".join(map(str.capitalize, name.split("_"))) for name in _PLAIN.split()} | _OTHERS


def missing(operators: Iterable[str]) -> list[str]:
    """Those of these ops that TFLM lacks, sorted."""
    return sorted(name for name in set(operators) if name not in METHODS)


def resolver_methods(operators: Iterable[str]) -> tuple[str, ...]:
    """The methods of a resolver that register these ops, sorted.

    Raises ExportError, which names all ops that TFLM lacks.
    """
    names = sorted(set(operators))
    if lacks := missing(names):
        raise ExportError(
            "this file has ops that TensorFlow Lite for Microcontrollers lacks",
            got=", ".join(lacks),
            expected="ops of its MicroMutableOpResolver",
            next="replace these layers in the model, or use a target with a full runtime: python, cpp",
        )
    return tuple(sorted(METHODS[name] for name in names))


def cmsis_nn_scratch(described: Mapping[str, Any]) -> int:
    """Bytes that Arm's kernels ask of the arena on top: the host's plain kernels never do.

    The largest of any op, since an op's scratch memory is free again after it. From CMSIS-NN's own
    ``get_buffer_size`` functions for cores with the DSP extension (Cortex-M4, M7, M33): two columns of int16
    for a convolution (and as much again for Helium's four of int8), one for a depthwise one, a row of int32
    for average pooling.

    Args:
        described: the file as ``inspecting.tflite_file.read`` tells it.
    """
    most = 0
    for row in described["tensors"]:
        if row["role"] != "weight":
            continue
        op, shape = row["used_by"].split(" ")[0], row["shape"]
        if op == "CONV_2D":
            _, height, width, channels = shape
            most = max(most, 32 * -(-height * width * channels // 8))
        elif op == "DEPTHWISE_CONV_2D":
            _, height, width, channels = shape
            most = max(most, 2 * height * width * channels)
    if "AVERAGE_POOL_2D" in described["operators"]:
        most = max(
            most, 4 * max((row["shape"][-1] for row in described["activations"] if row["shape"]), default=0)
        )
    return most
