"""Suppression in a LiteRT file: the custom op TFLite_Detection_PostProcess, which LiteRT's and TensorFlow
Lite's own resolvers have.

It takes boxes as logarithms relative to given ones, in the order y, x, height, width. Given is a square of
one pixel at the origin, for each candidate; and as suppression knows no direction, x goes first, so that the
answers are x1, y1, x2, y2. Its scores are those of the candidates, class by class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from torch import fx

from edgekit.formats.litert import tflite_edit
from edgekit.graph import ops
from edgekit.graph.ops import aten
from edgekit.tasks.detection.endings import CANDIDATES, Suppressing

__all__ = ["OP", "append_suppression", "encode_boxes"]

OP = "TFLite_Detection_PostProcess"
_SMALLEST = 1e-3  # pixels; of no side there is no logarithm


def encode_boxes(graph: fx.GraphModule) -> None:
    """Candidates' boxes x1, y1, x2, y2 as the op takes them, in place."""
    output = next(node for node in graph.graph.nodes if node.op == "output")
    (results,) = output.args
    assert isinstance(results, dict)
    boxes = results[CANDIDATES[0]]
    call = graph.graph.call_function
    with graph.graph.inserting_before(output):
        low, high = (call(aten.slice.Tensor, (boxes, 2, start, start + 2)) for start in (0, 2))
        middle = call(aten.mul.Tensor, (call(aten.add.Tensor, (low, high)), 0.5))
        side = call(aten.clamp.default, (call(aten.sub.Tensor, (high, low)), _SMALLEST))
        encoded = call(aten.cat.default, ([middle, call(aten.log.default, (side,))], 2))
    output.args = ({**results, CANDIDATES[0]: encoded},)
    ops.refresh(graph)


def append_suppression(model: Any, ending: Suppressing) -> None:
    """Put the op behind the candidates, which are the outputs, in place."""
    (graph,) = model.subgraphs
    limits = ending.limits
    boxes, scores = graph.outputs
    count = int(graph.tensors[boxes].shape[1])
    given = tflite_edit.add_constant(
        model, np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1)), "given_boxes"
    )
    rows = min(limits.most, count)
    found, best, labels = ending.outputs
    shapes = {found: [1, rows, 4], labels: [1, rows], best: [1, rows], "count": [1]}
    made = {}
    for name, shape in shapes.items():
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, schema.TensorType.FLOAT32, 0
        tensor.shape, tensor.hasRank = np.array(shape, np.int32), True
        graph.tensors.append(tensor)
        made[name] = len(graph.tensors) - 1
    op = schema.OperatorT()
    op.opcodeIndex = _custom(model)
    op.inputs, op.outputs = [boxes, scores, given], list(made.values())
    op.builtinOptionsType = schema.BuiltinOptions.NONE
    op.customOptions = np.frombuffer(_options(ending, rows), np.uint8)
    op.customOptionsFormat = schema.CustomOptionsFormat.FLEXBUFFERS
    graph.operators.append(op)
    graph.outputs = [made[name] for name in ending.outputs]
    (signature,) = model.signatureDefs
    signature.outputs = []
    for name in ending.outputs:
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, made[name]
        signature.outputs.append(entry)


def _options(ending: Suppressing, rows: int) -> bytes:
    limits = ending.limits
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.Int("max_detections", rows)
        builder.Int("max_classes_per_detection", 1)
        builder.Int("detections_per_class", rows)
        builder.Bool("use_regular_nms", True)  # class by class
        builder.Float("nms_score_threshold", limits.confidence)
        builder.Float("nms_iou_threshold", limits.overlap if limits.suppress else 1.0)
        builder.Int("num_classes", ending.classes)
        for name in ("y_scale", "x_scale", "h_scale", "w_scale"):
            builder.Float(name, 1.0)
    return bytes(builder.Finish())


def _custom(model: Any) -> int:
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = OP.encode(), 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
