"""Handles for planting faults in an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper


class OnnxFile:
    """An ONNX file in memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.model = path, onnx.load(str(path))

    def save(self) -> None:
        onnx.checker.check_model(self.model)
        onnx.save(self.model, str(self.path))

    @property
    def nodes(self) -> Sequence[NodeProto]:
        return self.model.graph.node

    def layer(self, name: str) -> NodeProto:
        """The convolution, Gemm or MatMul of that name."""
        return next(node for node in self.nodes if node.name == name)

    def of_kind(self, kind: str, index: int = 0) -> NodeProto:
        return [node for node in self.nodes if node.op_type == kind][index]

    def maker(self, name: str) -> NodeProto:
        return next(node for node in self.nodes if name in node.output)

    def readers(self, name: str) -> list[NodeProto]:
        return [node for node in self.nodes if name in node.input]

    def quantizer(self, node: NodeProto) -> NodeProto:
        """What quantises the node's result, behind a bias if it stands by itself."""
        (reader,) = self.readers(node.output[0])
        return reader if reader.op_type == "QuantizeLinear" else self.quantizer(reader)

    def constant(self, name: str) -> NDArray[Any]:
        tensor = next(one for one in self.model.graph.initializer if one.name == name)
        return numpy_helper.to_array(tensor).copy()

    def give(self, node: NodeProto, place: int, value: NDArray[Any]) -> None:
        """Let the node alone read another constant in that place."""
        name = f"planted_{len(self.model.graph.initializer)}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.array(value, order="C"), name))
        node.input[place] = name

    def change(self, node: NodeProto, place: int, change: Any) -> None:
        self.give(node, place, change(self.constant(node.input[place])))

    def set(self, node: NodeProto, **attributes: Any) -> None:
        for one in list(node.attribute):
            if one.name in attributes:
                node.attribute.remove(one)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())

    def insert(self, kind: str, node: NodeProto, constant: NDArray[Any]) -> None:
        """One more op of two inputs between the node and what reads it: its result and a constant."""
        index = list(self.nodes).index(node)
        result = node.output[0]
        node.output[0] = f"{result}_right"
        added = helper.make_node(kind, [node.output[0], ""], [result])
        self.give(added, 1, constant)
        self.model.graph.node.insert(index + 1, added)

    def weight(self, layer: str) -> NodeProto:
        """The Dequantize op of the layer's weight: inputs are integers, (N, …), and scales, (N,)."""
        maker = self.maker(self.layer(layer).input[1])
        return self.maker(maker.input[0]) if maker.op_type == "Transpose" else maker

    def bias(self, layer: str) -> NodeProto:
        """The Dequantize op of the layer's bias: inputs are int32 and scales, (N,)."""
        return self.maker(self.layer(layer).input[2])

    def step(self, layer: str) -> float:
        """Of the grid of the layer's result."""
        return float(self.constant(self.quantizer(self.layer(layer)).input[1]))
