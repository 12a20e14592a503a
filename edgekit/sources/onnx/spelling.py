"""What older exporters write out, as one op again: layer norm above all.

A mean, differences, squares and a root would each get a grid of eight bits. As one op it has a spelling that
every runtime is good at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.sources.onnx.nodes import Node

__all__ = ["spelled"]


def spelled(nodes: Sequence[Node], constants: dict[str, Any], outputs: Sequence[str]) -> list[Node]:
    """The nodes, such rows of them as one."""
    graph = _Graph(nodes, constants, set(outputs))
    for node in nodes:
        if node.op == "Div":
            graph.layer_norm(node)
    return [graph.instead.get(node.outputs[0], node) for node in nodes if node.outputs[0] not in graph.gone]


class _Graph:
    def __init__(self, nodes: Sequence[Node], constants: dict[str, Any], outputs: set[str]) -> None:
        self.constants, self.outputs = constants, outputs
        self.maker = {name: node for node in nodes for name in node.outputs}
        self.readers: dict[str, list[Node]] = {}
        for node in nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.gone: set[str] = set()
        self.instead: dict[str, Node] = {}

    def made_by(self, name: str, op: str) -> Node | None:
        node = self.maker.get(name)
        return node if node is not None and node.op == op else None

    def constant(self, name: str) -> Any:
        """An array, or None."""
        return self.constants.get(name)

    def only_reader(self, name: str) -> Node | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def layer_norm(self, div: Node) -> None:
        """(x - mean) / sqrt(mean((x - mean)²) + epsilon) over the last axis, with its factors and offsets."""
        if (root := self.made_by(div.inputs[1], "Sqrt")) is None:
            return
        if (shifted := self.made_by(root.inputs[0], "Add")) is None:
            return
        epsilon = next((one for name in shifted.inputs if (one := self.constant(name)) is not None), None)
        mean_name = next((name for name in shifted.inputs if self.constant(name) is None), "")
        variance = self.made_by(mean_name, "ReduceMean")
        if epsilon is None or epsilon.size != 1 or variance is None or not self.over_last(variance):
            return
        squares = self.maker.get(variance.inputs[0])
        if squares is None or not self.is_square(squares):
            return
        # The difference is sometimes written twice.
        apart, other = (self.made_by(name, "Sub") for name in (div.inputs[0], squares.inputs[0]))
        if apart is None or other is None or apart.inputs != other.inputs:
            return
        mean = self.made_by(apart.inputs[1], "ReduceMean")
        if mean is None or mean.inputs[0] != apart.inputs[0] or not self.over_last(mean):
            return
        self.replace(div, apart.inputs[0], float(epsilon.reshape(-1)[0]))

    def over_last(self, node: Node) -> bool:
        axes = self.constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else node.get("axes")
        return axes is not None and [int(one) for one in axes] == [-1] and bool(node.get("keepdims", 1))

    def is_square(self, node: Node) -> bool:
        if node.op == "Mul":
            return node.inputs[0] == node.inputs[1]
        power = self.constant(node.inputs[1]) if node.op == "Pow" else None
        return power is not None and power.size == 1 and float(power.reshape(-1)[0]) == 2.0

    def replace(self, div: Node, source: str, epsilon: float) -> None:
        last, weight, bias = div, "", ""
        if (times := self.follows(div, "Mul")) is not None:
            last, weight = times
            if (plus := self.follows(last, "Add")) is not None:
                last, bias = plus
        if not weight:
            return
        inputs = (source, weight, bias) if bias else (source, weight)
        attributes = {"axis": -1, "epsilon": epsilon}
        self.instead[last.outputs[0]] = replace(
            last, op="LayerNormalization", inputs=inputs, attributes=attributes
        )
        for name in last.inputs:
            if (before := self.maker.get(name)) is not None:
                self._drop(before, {last.outputs[0]}, set(inputs))

    def _drop(self, node: Node, by: set[str], kept: set[str]) -> None:
        """Take out what nobody reads any more, and what only led to that."""
        name = node.outputs[0]
        readers = {one.outputs[0] for one in self.readers.get(name, [])}
        if name in kept or name in self.outputs or name in self.gone or not readers <= by | self.gone:
            return
        self.gone.add(name)
        for source in node.inputs:
            if (before := self.maker.get(source)) is not None:
                self._drop(before, by, kept)

    def follows(self, node: Node, op: str) -> tuple[Node, str] | None:
        """The only reader, if it is such an op with a row of constants, and the row's name.

        One number for the whole row is left as it is: a layer norm has as many as the row.
        """
        reader = self.only_reader(node.outputs[0])
        if reader is None or reader.op != op:
            return None
        other = next((name for name in reader.inputs if name != node.outputs[0]), "")
        row = self.constant(other)
        return (reader, other) if isinstance(row, np.ndarray) and row.ndim == 1 and row.size > 1 else None
