"""LiteRT models, written op by op."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from edgekit.formats.litert import tflite_edit


class Written:
    """A float model, all of one grid after ``on_integers``."""

    def __init__(self, *shape: int) -> None:
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.description = 3, "test"
        self.model.subgraphs, self.model.operatorCodes = [self.graph], []
        self.model.buffers = [schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []
        self.graph.inputs = [self.tensor(shape)]
        self.graph.outputs = []

    def tensor(self, shape: tuple[int, ...], values: np.ndarray[Any, Any] | None = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.hasRank = f"x{len(self.graph.tensors)}", np.array(shape, np.int32), True
        made.type, made.buffer = schema.TensorType.FLOAT32, 0
        if values is not None:
            made.type = {"i": schema.TensorType.INT32, "f": made.type}[values.dtype.kind]
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            made.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def numbers(self, values: Any) -> int:
        whole = np.array(values, np.int32)
        return self.tensor(whole.shape, whole)

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(int(one) for one in self.graph.tensors[tensor].shape)

    def op(self, kind: str, inputs: list[int], *shapes: tuple[int, ...], **options: Any) -> list[int]:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs = len(self.model.operatorCodes) - 1, inputs
        made.outputs = [self.tensor(shape) for shape in shapes]
        name = options.pop("name", None)
        if name:
            made.builtinOptions = getattr(schema, f"{name}T")()
            made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            for key, value in options.items():
                setattr(made.builtinOptions, key, value)
        self.graph.operators.append(made)
        return list(made.outputs)

    def transpose(self, tensor: int, order: tuple[int, ...]) -> int:
        shape = tuple(self.shape(tensor)[one] for one in order)
        return self.op("TRANSPOSE", [tensor, self.numbers(order)], shape, name="TransposeOptions")[0]

    def pad(self, tensor: int, amounts: list[tuple[int, int]]) -> int:
        shape = tuple(size + sum(two) for size, two in zip(self.shape(tensor), amounts, strict=True))
        return self.op("PAD", [tensor, self.numbers(amounts)], shape, name="PadOptions")[0]

    def relu(self, tensor: int) -> int:
        return self.op("RELU", [tensor], self.shape(tensor))[0]

    def add(self, one: int, other: int) -> int:
        shape = np.broadcast_shapes(self.shape(one), self.shape(other))
        return self.op("ADD", [one, other], shape, name="AddOptions")[0]

    def slice(self, tensor: int, begin: list[int], size: list[int]) -> int:
        inputs = [tensor, self.numbers(begin), self.numbers(size)]
        return self.op("SLICE", inputs, tuple(size), name="SliceOptions")[0]

    def every_second(self, tensor: int, axis: int, open_ended: bool) -> int:
        shape = list(self.shape(tensor))
        ends, shape[axis] = list(shape), -(-shape[axis] // 2)
        steps = [2 if one == axis else 1 for one in range(4)]
        mask = 0
        if open_ended:
            ends[axis], mask = 0, 1 << axis
        inputs = [tensor, self.numbers([0] * 4), self.numbers(ends), self.numbers(steps)]
        more = {"name": "StridedSliceOptions", "beginMask": mask, "endMask": mask}
        return self.op("STRIDED_SLICE", inputs, tuple(shape), **more)[0]

    def concat(self, one: int, other: int, axis: int) -> int:
        shape = list(self.shape(one))
        shape[axis] += self.shape(other)[axis]
        more = {"name": "ConcatenationOptions", "axis": axis - 4}
        return self.op("CONCATENATION", [one, other], tuple(shape), **more)[0]

    def split(self, tensor: int, axis: int) -> list[int]:
        shape = list(self.shape(tensor))
        parts, shape[axis] = shape[axis], 1
        more = {"name": "SplitOptions", "numSplits": parts}
        return self.op("SPLIT", [self.numbers(axis), tensor], *[tuple(shape)] * parts, **more)

    def on_integers(self, scale: float = 0.1, zero: int = 3) -> None:
        """All tensors that are computed as int8, on one grid."""
        for code in self.model.operatorCodes:
            code.version = 2
        for tensor in self.graph.tensors:
            if tensor.buffer == 0:
                self.give_grid(tensor, scale, zero)

    def give_grid(self, tensor: Any, scale: float, zero: int) -> None:
        tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]

    def most(self, tensor: int, axes: list[int], keep: bool) -> int:
        shape = tuple(
            1 if axis in axes else size
            for axis, size in enumerate(self.shape(tensor))
            if keep or axis not in axes
        )
        more = {"name": "ReducerOptions", "keepDims": keep}
        return self.op("REDUCE_MAX", [tensor, self.numbers(axes)], shape, **more)[0]


def answers(model: Any, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    interpreter = Interpreter(model_content=tflite_edit.write(model), num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    row = np.random.default_rng(seed).normal(size=entry["shape"])
    row = (row * 64).clip(-128, 127) if entry["dtype"] is np.int8 else row
    interpreter.set_tensor(entry["index"], row.astype(entry["dtype"]))
    interpreter.invoke()
    return [interpreter.get_tensor(one["index"]).copy() for one in interpreter.get_output_details()]
