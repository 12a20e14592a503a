"""LiteRT files put together op by op, so that a property can ask for any shape, stride and grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edgekit.formats.litert import tflite_edit

Grid = tuple[float, int]
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
}
_OPTIONS = {
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "FULLY_CONNECTED": "FullyConnected",
    "AVERAGE_POOL_2D": "Pool2D",
    "MAX_POOL_2D": "Pool2D",
    "MEAN": "Reducer",
    "CONCATENATION": "Concatenation",
    "SOFTMAX": "Softmax",
    "ADD": "Add",
    "SUB": "Sub",
    "MUL": "Mul",
    "LEAKY_RELU": "LeakyRelu",
    "STRIDED_SLICE": "StridedSlice",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighbor",
    "RESIZE_BILINEAR": "ResizeBilinear",
    "RESHAPE": "Reshape",
    "SPLIT": "Split",
    "SQUEEZE": "Squeeze",
    "SPLIT_V": "SplitV",
}
# Where LiteRT wants a newer version of an op for int8, or for scales of each channel.
_VERSIONS = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    **dict.fromkeys(
        ("EXPAND_DIMS", "HARD_SWISH", "PADV2", "PRELU", "RELU_0_TO_1", "RELU_N1_TO_1", "RESHAPE", "SQUEEZE"),
        1,
    ),
}


class File:
    """A model in the making: ``tensor`` and ``constant`` give numbers of tensors, ``op`` takes them."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.operatorCodes = 3, []
        self.model.buffers = [schema.BufferT()]
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self,
        shape: tuple[int, ...],
        grid: Grid | None = None,
        dtype: str = "int8",
        *,
        scales: NDArray[np.float32] | None = None,
        axis: int = 0,
        name: str = "",
    ) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), _TYPES[dtype], 0
        tensor.name = name or f"t{len(self.graph.tensors)}"
        if grid is not None or scales is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [np.float32(grid[0])] if grid else list(scales)
            tensor.quantization.zeroPoint = [grid[1]] if grid else [0] * len(scales)
            tensor.quantization.quantizedDimension = axis
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, values: NDArray[Any], grid: Grid | None = None, **details: Any) -> int:
        index = self.tensor(values.shape, grid, values.dtype.name, **details)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def op(self, kind: str, inputs: list[int], outputs: list[int], **options: Any) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), _VERSIONS.get(kind, 2)
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = (
            len(self.model.operatorCodes) - 1,
            inputs,
            outputs,
        )
        if kind in _OPTIONS:
            name = f"{_OPTIONS[kind]}Options"
            operator.builtinOptions = getattr(schema, f"{name}T")()
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            for key, value in options.items():
                assert hasattr(operator.builtinOptions, key), key
                setattr(operator.builtinOptions, key, value)
        self.graph.operators.append(operator)

    def write(self, path: Path, inputs: list[int], outputs: list[int]) -> Path:
        self.graph.inputs, self.graph.outputs = inputs, outputs
        path.write_bytes(tflite_edit.write(self.model))
        return path
