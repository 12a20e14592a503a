"""Numbers that the graph reads from their grid are read from it in the file, too.

Where what stands on a grid is read in float behind it, the converter takes a quantise and a dequantise op in
a row for nothing, and hands on the number as it was before it was rounded. The graph never saw that one: it
is half a step off at most, and a step or more once a norm has made it larger.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema
from torch import fx

from edgekit.formats.litert.wiring import Wiring
from edgekit.graph import ops

__all__ = ["read_rounded"]


def read_rounded(model: Any, graph: fx.GraphModule) -> int:
    """Give readers of a float that is quantised, too, what stands on the grid; how many tensors there were.

    ``graph``: what the converter was given. Where something in it reads a number before and behind its grid,
    nothing can be told apart by the file, and it is left as it is.
    """
    if any(len(one.args[0].users) > 1 for one in graph.graph.nodes if _quantizes(one)):
        return 0
    file, done = Wiring(model), 0
    for quantize in list(file.graph.operators):
        if file.kind(quantize) != "QUANTIZE":
            continue
        source, given = int(quantize.inputs[0]), int(quantize.outputs[0])
        others = [one for one in file.readers[source] if one is not quantize]
        if file.graph.tensors[source].type != schema.TensorType.FLOAT32 or source not in file.maker:
            continue
        if not others or any(file.kind(one) == "QUANTIZE" for one in others):
            continue
        file.read_instead(source, file.add_dequantize(given), others)
        done += 1
    if done:
        file.sort()
    return done


def _quantizes(node: fx.Node) -> bool:
    return node.target in ops.QUANTIZE and isinstance(node.args[0], fx.Node)
