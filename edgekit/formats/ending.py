"""What a file computes behind its model's own outputs: captured, and put behind the model's graph.

It stays in float, in an int8 graph as well. Suppression is an op that each format has in a form of its own:
the graph then ends with what it is given.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.errors import ExportError
from edgekit.graph import ops
from edgekit.graph.capture import MAX_BATCH, name_ends
from edgekit.graph.constants import fold_constants
from edgekit.graph.inline import flatten
from edgekit.tasks.endings import Ending

__all__ = ["SUPPRESSED", "append_ending"]

SUPPRESSED = "nms"  # the kind behind which an op of the format stands


def append_ending(graph: fx.GraphModule, ending: Ending, where: str) -> fx.GraphModule:
    """A copy of the graph with the ending's layers behind it, and their outputs.

    Args:
        graph: captured, or an int8 graph.
        ending: of the model's task.
        where: the file, for errors.

    Raises ExportError: the outputs aren't those that the ending reads, or it can't be captured.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about its own nests
        graph = copy.deepcopy(graph)
    given = ops.results(graph)
    if missing := [name for name in ending.inputs if name not in given]:
        raise ExportError(
            "outputs that the head reads are missing",
            where=where,
            got=", ".join(given),
            expected=", ".join(missing),
        )
    nodes = [given[name] for name in ending.inputs] or list(given.values())[:1]
    tail = _captured(ending, [_example(node) for node in nodes], where)
    output = next(node for node in graph.graph.nodes if node.op == "output")
    values: dict[fx.Node, Any] = {}
    waiting = iter(nodes)
    with graph.graph.inserting_before(output):
        for node in tail.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(waiting)
            elif node.op == "get_attr":
                value = ops.attribute(tail, str(node.target)).detach()
                name = f"ending_{str(node.target).replace('.', '_')}"
                values[node] = ops.constant_node(graph, name, value)
            elif node.op == "call_function":
                values[node] = graph.graph.node_copy(node, values.__getitem__)
                values[node].meta.pop("val", None)
    graph.graph.set_codegen(fx.graph.CodeGen())  # torch's nest is that of the outputs that there were
    output.args = ({name: values[node] for name, node in ops.results(tail).items()},)
    ops.refresh(graph)
    return graph


def _example(node: fx.Node) -> Tensor:
    """Two zeros: torch.export takes a batch of one for the only batch that there is."""
    shape = ops.shape_of(node)
    assert shape is not None  # a captured graph knows it
    return torch.zeros(2, *(int(size) for size in shape[1:]))


def _captured(ending: Ending, rows: list[Tensor], where: str) -> fx.GraphModule:
    batch = {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            shapes = (tuple(batch for _ in rows),)
            layers = ending.layers().eval()
            program = torch.export.export(layers, tuple(rows), dynamic_shapes=shapes)
        graph = program.module()
    except Exception as error:
        raise ExportError(
            f"the model's outputs can't be decoded in a file (head: {ending.kind})",
            where=where,
            got=str(error).splitlines()[0],
            expected="a description of a head whose decode() torch.export can capture",
            next="export with head: raw, and decode outside of the file",
        ) from error
    assert isinstance(graph, fx.GraphModule)
    name_ends(graph)
    flatten(graph)
    fold_constants(graph)
    return graph
