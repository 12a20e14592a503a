"""Recurrent layers with int8 weights in ONNX files.

ONNX Runtime's DynamicQuantizeLSTM multiplies integers: it quantises its input once, and the state at each
step. Of GRU it has a float kernel alone, and steps spelled one by one by integer products take longer than
that one (docs/int8.md), so that GRU's weights are int8 in the file, and widened once, when it is loaded. So
are those of an LSTM whose inputs 8 bits don't hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from edgekit.formats.onnx import passes
from edgekit.formats.recurrent import Matrices, Matrix

__all__ = ["KERNEL", "store"]

KERNEL, _DOMAIN = "DynamicQuantizeLSTM", "com.microsoft"
# By op, where ONNX's gates stand in torch's order: (input, output, forget, cell) of (i, f, c, o), and
# (update, reset, new) of (r, z, n).
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
_INPUTS = 8  # of LSTM, peepholes included


def store(model: ModelProto, matrices: Matrices) -> int:
    """Give recurrent nodes the graph's int8 weights, in place; how many nodes there were."""
    if not matrices:
        return 0
    shapes = _shapes(model)
    nodes: list[NodeProto] = []
    done = 0
    for node in model.graph.node:
        found = _matrices(model, node, matrices) if node.op_type in _GATES else {}
        if not found:
            nodes.append(_copy(node))
            continue
        both = len(found) == 2 and node.op_type == "LSTM"
        nodes += _on_integers(model, node, found) if both else _widened(model, node, found)
        model.graph.value_info.extend(shapes[name] for name in node.output if name in shapes)
        done += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_dead(model)
    passes.drop_unused(model)
    if any(node.domain == _DOMAIN for node in nodes) and all(
        one.domain != _DOMAIN for one in model.opset_import
    ):
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return done


def _matrices(model: ModelProto, node: NodeProto, matrices: Matrices) -> dict[int, list[Matrix]]:
    """By place among the node's inputs the matrix of each direction, gates in ONNX's order; where known."""
    order = _GATES[node.op_type]
    known = {}
    for place in (1, 2):
        value = _value(model, node.input[place])
        found = []
        for direction in value if value is not None and value.ndim == 3 else ():
            back = _blocks(direction, np.argsort(order))
            matrix = matrices.find(back)
            if matrix is not None:
                found.append(Matrix(_blocks(matrix.integers, order), _blocks(matrix.scale, order)))
        if value is not None and found and len(found) == len(value):
            known[place] = found
    return known


def _blocks(value: NDArray[Any], order: Any) -> NDArray[Any]:
    gates = value.reshape(len(order), -1, *value.shape[1:])
    return np.ascontiguousarray(gates[list(order)]).reshape(value.shape)


def _on_integers(model: ModelProto, node: NodeProto, found: dict[int, list[Matrix]]) -> list[NodeProto]:
    made = _copy(node)
    given = [*node.input, *[""] * (_INPUTS - len(node.input))]
    for place, directions in found.items():
        stem = f"{node.output[0] or node.name}_{place}"
        integers = np.stack([np.ascontiguousarray(one.integers.T) for one in directions])
        scale = np.stack([one.scale for one in directions])
        given[place] = _constant(model, f"{stem}_q", integers)
        given += [
            _constant(model, f"{stem}_s", scale),
            _constant(model, f"{stem}_z", np.zeros_like(scale, np.int8)),
        ]
    del made.input[:]
    made.input.extend(given)
    made.op_type, made.domain = KERNEL, _DOMAIN
    kept = [one for one in node.attribute if one.name != "layout"]  # time first is the only one it has
    del made.attribute[:]
    made.attribute.extend(kept)
    return [made]


def _widened(model: ModelProto, node: NodeProto, found: dict[int, list[Matrix]]) -> list[NodeProto]:
    made, steps = _copy(node), []
    for place, directions in found.items():
        stem = f"{node.output[0] or node.name}_{place}"
        integers = _constant(model, f"{stem}_q", np.stack([one.integers for one in directions]))
        scale = _constant(model, f"{stem}_s", np.stack([one.scale[:, None] for one in directions]))
        steps += [
            helper.make_node("Cast", [integers], [f"{stem}_f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{stem}_f", scale], [f"{stem}_w"]),
        ]
        made.input[place] = f"{stem}_w"
    return [*steps, made]


def _constant(model: ModelProto, name: str, value: NDArray[Any]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def _value(model: ModelProto, name: str) -> NDArray[Any] | None:
    """What a constant expression amounts to: the exporter joins directions, and folds what is small alone."""
    makers = {output: node for node in model.graph.node for output in node.output}
    constants = {one.name: one for one in model.graph.initializer}
    if name in constants:
        return np.asarray(numpy_helper.to_array(constants[name]))
    steps: list[NodeProto] = []
    todo, seen = [name], set[str]()
    while todo:
        one = todo.pop()
        if one in seen or one in constants or not one:
            continue
        seen.add(one)
        if one not in makers:
            return None
        steps.append(makers[one])
        todo += makers[one].input
    needed = [node for node in model.graph.node if any(node is step for step in steps)]
    used = {each for step in needed for each in step.input}
    graph = helper.make_graph(
        needed or steps[::-1],
        "constant",
        [],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        [tensor for key, tensor in constants.items() if key in used],
    )
    (value,) = ReferenceEvaluator(helper.make_model(graph, opset_imports=model.opset_import)).run(None, {})
    return np.asarray(value)


def _shapes(model: ModelProto) -> dict[str, Any]:
    """Of the recurrent nodes' results, which shape inference doesn't find behind the runtime's own op."""
    known = {one.name for one in model.graph.value_info}
    wanted = {name for node in model.graph.node if node.op_type in _GATES for name in node.output}
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph.value_info
    return {one.name: one for one in inferred if one.name in wanted - known}


def _drop_dead(model: ModelProto) -> None:
    """Steps to the float matrices, that nothing reads any more."""
    ends = {one.name for one in model.graph.output}
    while True:
        read = ends | {name for node in model.graph.node for name in node.input}
        kept = [_copy(node) for node in model.graph.node if read & set(node.output)]
        if len(kept) == len(model.graph.node):
            return
        del model.graph.node[:]
        model.graph.node.extend(kept)


def _copy(node: NodeProto) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    return made
