"""A LiteRT file's main graph while it is rewired: who makes and who reads each tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.movable import is_constant, whole

__all__ = ["Order", "Wiring"]

Order = tuple[int, ...]

_BYTES = 64  # that count as one
_EACH = 16  # what an op costs by itself, in such units
_WIDTH = {
    schema.TensorType.FLOAT32: 4,
    schema.TensorType.INT32: 4,
    schema.TensorType.INT64: 8,
    schema.TensorType.FLOAT16: 2,
    schema.TensorType.INT16: 2,
}


class Wiring:
    """The main graph, and who makes and reads each tensor."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, model.subgraphs[0]
        self.index()

    def index(self) -> None:
        """Look again, after a change."""
        self.kinds = tflite_edit.kinds(self.model)
        self.maker: dict[int, Any] = {}
        self.readers: dict[int, list[Any]] = defaultdict(list)
        for operator in self.graph.operators:
            for one in operator.outputs:
                self.maker[int(one)] = operator
            for one in dict.fromkeys(map(int, operator.inputs)):
                self.readers[one].append(operator)
        self.outputs = {int(one) for one in self.graph.outputs}

    def kind(self, operator: Any) -> str:
        return str(self.kinds[operator.opcodeIndex])

    def order(self, operator: Any) -> Order | None:
        """The order that a transpose brings axes into; None for another op."""
        if operator is None or self.kind(operator) != "TRANSPOSE":
            return None
        if not is_constant(self.model, self.graph, int(operator.inputs[1])):
            return None
        return tuple(int(one) for one in whole(self.model, self.graph, int(operator.inputs[1])))

    def orders(self) -> dict[int, Order]:
        """Of all transposes, by the tensor that they give."""
        found = ((int(one.outputs[0]), self.order(one)) for one in self.graph.operators)
        return {given: order for given, order in found if order is not None}

    def weight(self, tensor: int) -> int:
        """What it costs to bring a tensor into another order."""
        one = self.graph.tensors[tensor]
        bytes_ = int(np.prod(one.shape, dtype=np.int64)) * _WIDTH.get(one.type, 1)
        return _EACH + bytes_ // _BYTES

    def cost(self) -> int:
        """Of all transposes."""
        return sum(self.weight(given) for given in self.orders())

    def snapshot(self) -> Callable[[], None]:
        """What brings the ops back to where they are now. Tensors that were added stay, unused."""
        ops = [(one, one.inputs, one.outputs, copy(one.builtinOptions)) for one in self.graph.operators]

        def undo() -> None:
            for one, inputs, outputs, options in ops:
                one.inputs, one.outputs, one.builtinOptions = inputs, outputs, options
            self.graph.operators = [one for one, *_ in ops]
            self.index()

        return undo

    def read_instead(self, old: int, new: int, readers: Iterable[Any]) -> None:
        for operator in readers:
            operator.inputs = [new if int(one) == old else int(one) for one in operator.inputs]

    def give_instead(self, old: int, new: int) -> None:
        """Have ``new``, which is the same and an output, made by the op that makes ``old``."""
        given = self.maker[new]
        self.graph.operators = [one for one in self.graph.operators if one is not given]
        maker = self.maker[old]
        maker.outputs = [new if int(one) == old else int(one) for one in maker.outputs]
        self.read_instead(old, new, self.readers[old])
        self.index()

    def add_transpose(self, source: int, order: Order, given: int | None = None) -> int:
        """A transpose of ``source``, which gives ``given`` or a new tensor; put in its place by ``sort``."""
        if given is None:
            given = self.add_like(source, order)
        self._add("TRANSPOSE", [source, self.whole_numbers(order)], given)
        return given

    def add_reshape(self, source: int, shape: Sequence[int], given: int | None = None) -> int:
        """A reshape of ``source``, which gives ``given`` or a new tensor; put in its place by ``sort``."""
        if given is None:
            given = self.add_like(source, ())
            self.graph.tensors[given].shape = np.array(shape, np.int32)
        self._add("RESHAPE", [source, self.whole_numbers(shape)], given)
        self.graph.operators[-1].builtinOptions.newShape = np.array(shape, np.int32)
        return given

    def add_dequantize(self, source: int) -> int:
        """The numbers of an int8 tensor, in float; put in its place by ``sort``."""
        given = self._float_like(source)
        self._add("DEQUANTIZE", [source], given)
        return given

    def add_quantize(self, given: int) -> int:
        """A float tensor, from which an int8 one is made; ``given`` is read as before."""
        source = self._float_like(given)
        self._add("QUANTIZE", [source], given)
        return source

    def add_concatenation(self, parts: Sequence[int], axis: int, like: int) -> int:
        """Parts beside each other, on the grid of ``like``; put in its place by ``sort``."""
        given = self.add_like(like, ())
        shapes = [np.asarray(self.graph.tensors[one].shape, np.int32) for one in parts]
        shape = shapes[0].copy()
        shape[axis] = sum(int(one[axis]) for one in shapes)
        self.graph.tensors[given].shape, self.graph.tensors[given].shapeSignature = shape, None
        self._add("CONCATENATION", list(parts), given, version=2)  # 2: the first with int8
        self.graph.operators[-1].builtinOptions.axis = axis
        return given

    def add_slice(self, source: int, axis: int, start: int, count: int) -> int:
        """A part of a tensor along an axis; put in its place by ``sort``."""
        sizes = [int(one) for one in self.graph.tensors[source].shape]
        starts = [start if at == axis else 0 for at in range(len(sizes))]
        sizes[axis] = count
        given = self.add_like(source, ())
        self.graph.tensors[given].shape = np.array(sizes, np.int32)
        self._add("SLICE", [source, self.whole_numbers(starts), self.whole_numbers(sizes)], given, version=2)
        return given

    def grid(self, tensor: int) -> tuple[float, int] | None:
        """Scale and zero point of an int8 tensor with one grid; None for another."""
        one = self.graph.tensors[tensor]
        grid = one.quantization
        if one.type != schema.TensorType.INT8 or grid is None or grid.scale is None or len(grid.scale) != 1:
            return None
        return float(grid.scale[0]), int(grid.zeroPoint[0])

    def _float_like(self, tensor: int) -> int:
        shape = self.graph.tensors[tensor].shape
        found = self.add_like(tensor, tuple(range(0 if shape is None else len(shape))))
        self.graph.tensors[found].type, self.graph.tensors[found].quantization = (
            schema.TensorType.FLOAT32,
            None,
        )
        return found

    def _add(self, kind: str, inputs: list[int], given: int, version: int = 1) -> None:
        operator, options = schema.OperatorT(), f"{kind.capitalize()}Options"
        operator.opcodeIndex = tflite_edit.operator_code(self.model, kind, version)
        operator.inputs, operator.outputs = inputs, [given]
        operator.builtinOptions = getattr(schema, f"{options}T")()
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        self.graph.operators.append(operator)
        self.kinds = tflite_edit.kinds(self.model)

    def whole_numbers(self, values: Sequence[int]) -> int:
        """A constant of them: an order of axes, a shape."""
        return tflite_edit.add_constant(self.model, np.array(values, np.int32), "order")

    def add_like(self, tensor: int, order: Order) -> int:
        """A tensor like another, its axes in ``order``; no axes: its shape is the caller's."""
        one, made = self.graph.tensors[tensor], schema.TensorT()
        made.name, made.type, made.quantization, made.buffer = one.name, one.type, one.quantization, 0
        made.hasRank, made.shape = one.hasRank, np.asarray(one.shape, np.int32)[list(order)]
        signature = one.shapeSignature
        if signature is not None and len(signature):
            made.shapeSignature = np.asarray(signature, np.int32)[list(order)]
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def sort(self) -> None:
        """Every op behind what it reads, and otherwise where it was; what nobody reads any more goes."""
        self.index()
        others = [one for one in self.graph.operators if self.order(one) is None]
        todo = [*self.outputs, *(int(index) for one in others for index in one.inputs)]
        wanted = set(todo)
        while todo:
            maker = self.maker.get(todo.pop())
            for one in () if maker is None else maker.inputs:
                if int(one) not in wanted:
                    wanted.add(int(one))
                    todo.append(int(one))
        place = {id(one): index for index, one in enumerate(self.graph.operators)}
        done: list[Any] = []
        seen: set[int] = set()
        for first in self.graph.operators:
            stack = [first]
            while stack:
                operator = stack[-1]
                if id(operator) in seen:
                    stack.pop()
                    continue
                makers = (self.maker.get(int(one)) for one in operator.inputs)
                waiting = [one for one in makers if one is not None and id(one) not in seen]
                if waiting:
                    stack += sorted(waiting, key=lambda one: -place[id(one)])
                    continue
                seen.add(id(operator))
                done.append(stack.pop())
        kept = [one for one in done if self.order(one) is None or int(one.outputs[0]) in wanted]
        self.graph.operators = kept
        self.index()
