"""Suppression in an ONNX file: candidates in, the best boxes, scores and classes out, as many rows for each
picture.

NonMaxSuppression gives a list of what is left over all pictures and classes; a file whose outputs have the
batch in front needs rows. So what is left gets its score in a table of all candidates, and the best of the
table are taken, of equal ones the earlier.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgekit.tasks.detection.endings import CANDIDATES, Suppressing

__all__ = ["append_suppression"]


def append_suppression(model: ModelProto, ending: Suppressing) -> None:
    """Put it behind the candidates (N, K, 4) and (N, K, C), which are the outputs, in place."""
    boxes, scores = CANDIDATES
    graph, limits = model.graph, ending.limits
    known = {one.name: one for one in graph.output}
    batch = known[boxes].type.tensor_type.shape.dim[0]
    count = known[boxes].type.tensor_type.shape.dim[1].dim_value
    rows = min(limits.most, count)

    def constant(name: str, value: float | list[int] | int, kind: type[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), f"nms_{name}"))
        return f"nms_{name}"

    def node(kind: str, inputs: list[str], output: str, second: str = "", **attributes: Any) -> str:
        outputs = [output, second] if second else [output]
        graph.node.append(helper.make_node(kind, inputs, outputs, name=f"nms_{kind}_{output}", **attributes))
        return output

    overlap = limits.overlap if limits.suppress else 1.0
    # The op asks for more than its threshold, here as much is enough.
    least = float(np.nextafter(np.float32(limits.confidence), np.float32(0)))
    by_class = node("Transpose", [scores], "nms_by_class", perm=[0, 2, 1])
    thresholds = [
        constant("most", limits.most, np.int64),
        constant("overlap", overlap, np.float32),
        constant("least", least, np.float32),
    ]
    left = node("NonMaxSuppression", [boxes, by_class, *thresholds], "nms_left")
    last = constant("axis", [2], np.int64)
    score = node("ReduceMax", [scores, last], "nms_score", keepdims=0)
    kind = node("ArgMax", [scores], "nms_kind", axis=2, keepdims=0)
    picture_and_box = node("Gather", [left, constant("columns", [0, 2], np.int64)], "nms_which", axis=1)
    none = node("Sub", [score, score], "nms_none")
    its = node("GatherND", [score, picture_and_box], "nms_its_score")
    table = node("ScatterND", [none, picture_and_box, its], "nms_table")
    best, labels, found = ending.outputs[1], ending.outputs[2], ending.outputs[0]
    node("TopK", [table, constant("rows", [rows], np.int64)], best, "nms_at", axis=1)
    at = node("Unsqueeze", ["nms_at", last], "nms_place")
    any_score = node("Greater", [best, constant("zero", 0.0, np.float32)], "nms_any")
    taken = node("GatherND", [boxes, at], "nms_boxes", batch_dims=1)
    kinds = node("GatherND", [kind, at], "nms_labels", batch_dims=1)
    real = node("Cast", [any_score], "nms_real", to=TensorProto.FLOAT)
    whole = node("Cast", [any_score], "nms_whole", to=TensorProto.INT64)
    node("Mul", [taken, node("Unsqueeze", [real, last], "nms_rows_there")], found)
    node("Mul", [kinds, whole], labels)
    del graph.output[:]
    size = batch.dim_param or batch.dim_value
    for name, dtype, shape in (
        (found, TensorProto.FLOAT, [size, rows, 4]),
        (best, TensorProto.FLOAT, [size, rows]),
        (labels, TensorProto.INT64, [size, rows]),
    ):
        graph.output.append(helper.make_tensor_value_info(name, dtype, shape))
