"""The values of constant expressions in a graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.int8 import ops

__all__ = ["evaluate_constant"]


def evaluate_constant(graph: fx.GraphModule, node: Any) -> torch.Tensor:
    """What a constant expression (``ops.is_constant``) amounts to: each node of it computed once."""
    values: dict[fx.Node, Any] = {}
    todo: list[fx.Node] = [node]
    while todo:
        one = todo[-1]
        if one in values:
            todo.pop()
        elif one.op == "get_attr":
            values[one] = ops.attribute(graph, str(one.target)).detach()
        elif missing := [source for source in one.all_input_nodes if source not in values]:
            todo += missing
        else:
            args, kwargs = fx.node.map_arg((one.args, one.kwargs), values.__getitem__)
            values[one] = one.target(*args, **kwargs)  # type: ignore[operator]
    result = values[node]
    assert isinstance(result, torch.Tensor)
    return result
