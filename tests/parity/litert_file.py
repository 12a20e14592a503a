"""Handles for planting faults in a LiteRT file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from torch import fx

from edgekit.formats.litert import tflite_edit

_TYPES = {schema.TensorType.INT8: np.int8, schema.TensorType.INT32: np.int32}
_TYPES[schema.TensorType.FLOAT32] = np.float32
_WEIGHTED = ("CONV_2D", "FULLY_CONNECTED")


class LiteRTFile:
    """A LiteRT file in memory. Layers are found by the integers of their weights."""

    def __init__(self, path: Path, graph: fx.GraphModule) -> None:
        self.path, self.source = path, graph
        self.model = tflite_edit.read(path.read_bytes())
        self.graph = self.model.subgraphs[0]

    def save(self) -> None:
        self.path.write_bytes(tflite_edit.write(self.model))

    def kind(self, operator: Any) -> str:
        return tflite_edit.kinds(self.model)[operator.opcodeIndex]

    def of_kind(self, kind: str, index: int = 0) -> Any:
        return [one for one in self.graph.operators if self.kind(one) == kind][index]

    def layer(self, name: str) -> Any:
        """The operator whose weights are those of the graph's layer."""
        weight = self.source.get_parameter(f"{name}.weight").detach().numpy()
        for one in self.graph.operators:
            if self.kind(one) in _WEIGHTED and len(one.inputs) > 2:
                tensor = self.tensor(one.inputs[1])
                found = self.constant(one.inputs[1]).astype(np.float32)
                scales = np.asarray(tensor.quantization.scale, np.float32)
                real = found.reshape(len(scales), -1) * scales[:, None]
                if real.size == weight.size and len(scales) == len(weight):
                    ordered = np.sort(weight.reshape(len(weight), -1), 1)
                    if np.allclose(np.sort(real, 1), ordered, atol=float(scales.max())):
                        return one
        raise LookupError(name)

    def tensor(self, index: int) -> Any:
        return self.graph.tensors[index]

    def constant(self, index: int) -> NDArray[Any]:
        tensor = self.tensor(index)
        flat = tflite_edit.constant(self.model, tensor, _TYPES[tensor.type])
        return flat.reshape([] if tensor.shape is None else list(tensor.shape)).copy()

    def change(self, index: int, change: Any) -> None:
        """Another constant in a tensor's place; the buffer may be shared, so it gets its own."""
        tensor = self.tensor(index)
        tensor.buffer = self._buffer(change(self.constant(index)).astype(_TYPES[tensor.type]))

    def add(self, like: int, shape: Any = None, constant: NDArray[Any] | None = None) -> int:
        """A tensor of the same type and grid; its index."""
        tensor = copy.deepcopy(self.tensor(like))
        tensor.name, tensor.buffer = f"planted_{len(self.graph.tensors)}", 0
        if constant is not None:
            shape = constant.shape
            tensor.buffer = self._buffer(constant.astype(_TYPES[tensor.type]))
        if shape is not None:
            tensor.shape, tensor.shapeSignature = list(shape), None
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, kind: str, inputs: list[int], outputs: list[int], options: Any = None) -> Any:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self._code(kind), inputs, outputs
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        return made

    def insert(self, kind: str, before: Any, constant: NDArray[Any], options: Any = None) -> None:
        """One more op of two inputs between an operator and what reads it: its result and a constant."""
        result = int(before.outputs[0])
        inner = self.add(result)
        before.outputs = [inner]
        added = self.operator(kind, [inner, self.add(result, constant=constant)], [result], options)
        self.graph.operators.insert(self.graph.operators.index(before) + 1, added)

    def step(self, operator: Any) -> float:
        """Of the grid of the operator's result."""
        return float(self.tensor(operator.outputs[0]).quantization.scale[0])

    def accumulator(self, operator: Any) -> NDArray[np.float64]:
        """The steps of a layer's biases, by channel."""
        source, weight = (self.tensor(index).quantization.scale for index in operator.inputs[:2])
        return float(source[0]) * np.asarray(weight, np.float64)

    def _buffer(self, value: NDArray[Any]) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def _code(self, kind: str) -> int:
        kinds = tflite_edit.kinds(self.model)
        if kind in kinds:
            return kinds.index(kind)
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 2
        self.model.operatorCodes.append(code)
        return len(kinds)
