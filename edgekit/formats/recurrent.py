"""What the matrices of recurrent layers are in a file: the int8 graph's own integers, found by their values.

Converters take recurrent layers apart, reorder their gates and join their directions, and know no integers
there. So they are given the float numbers that the integers stand for; what they made of these is looked up
in the finished file, and put back as integers.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from edgekit.errors import ExportError
from edgekit.graph import ops

__all__ = ["Matrices", "Matrix", "refuse_projections", "spell_in_float"]


@dataclass(frozen=True)
class Matrix:
    """``integers``: (rows, columns) int8, symmetric; ``scale``: (rows,) float32."""

    integers: NDArray[np.int8]
    scale: NDArray[np.float32]


class Matrices:
    """The matrices of a graph's recurrent layers, by the float numbers that they stand for."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[int, ...], bytes], Matrix] = {}

    def __bool__(self) -> bool:
        return bool(self._known)

    def add(self, floats: NDArray[np.float32], matrix: Matrix) -> None:
        """``floats``: (rows, columns), bit for bit what a converter is given."""
        self._known[floats.shape, np.ascontiguousarray(floats).tobytes()] = matrix

    def find(self, floats: NDArray[Any]) -> Matrix | None:
        """The matrix that these numbers (rows, columns) are; None: none of a recurrent layer."""
        return self._known.get((floats.shape, np.ascontiguousarray(floats).tobytes()))


def spell_in_float(graph: fx.GraphModule) -> tuple[fx.GraphModule, Matrices]:
    """A copy of an int8 graph whose recurrent layers read floats, and the integers that these stand for.

    What the graph computes stays bit for bit the same. Without such layers it is the graph itself.
    """
    found = Matrices()
    if not any(node.target in ops.RECURRENT for node in graph.graph.nodes):
        return graph, found
    graph = copy.deepcopy(graph)
    for node in list(graph.graph.nodes):
        if node.target not in ops.RECURRENT:
            continue
        for back in node.all_input_nodes:
            if back.target is not ops.qd.dequantize_per_channel.default:
                continue
            quantize = back.args[0]
            assert isinstance(quantize, fx.Node)
            matrix, floats = _values(graph, quantize)
            found.add(floats.numpy(), matrix)
            with graph.graph.inserting_before(back):
                constant = ops.constant_node(graph, f"{back.name}_floats", floats)
            node.replace_input_with(back, constant)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, found


def refuse_projections(graph: fx.GraphModule, file: str) -> None:
    """Raise ExportError for an LSTM with a projection, by name: torch's ONNX exporter loses it unsaid."""
    for node in graph.graph.nodes:
        if node.target not in ops.RECURRENT:
            continue
        of_one = 4 if node.args[3] else 2  # matrices and biases
        directions = node.args[4] * (2 if node.args[7] else 1)
        if len(node.args[2]) > of_one * directions:
            raise ExportError(
                "ONNX has no LSTM with a projection",
                where=f"{file}: layer {ops.layer_of(node) or node.name!r}",
                got="nn.LSTM with proj_size",
                expected="nn.LSTM without, and a linear layer behind it",
                next="leave onnx out of exports.formats to get the other files (litert)",
            )


def _values(graph: fx.GraphModule, quantize: fx.Node) -> tuple[Matrix, torch.Tensor]:
    weight, scale, zero = (ops.attribute(graph, str(one.target)).detach() for one in quantize.args[:3])  # type: ignore[union-attr]
    grid: Any = quantize.args[3:]
    integers = ops.qd.quantize_per_channel.default(weight, scale, zero, *grid)
    floats = ops.qd.dequantize_per_channel.default(integers, scale, zero, *grid)
    return Matrix(integers.numpy(), scale.numpy().astype(np.float32)), floats
