"""Sub-graphs that ``torch.export`` wraps, put in the place of the call: what follows knows flat graphs alone.

``torch.no_grad``, ``torch.autocast`` and activation checkpointing inside of ``forward`` come out of it as
higher-order ops with a module of their own. None of them matters to a graph that is only evaluated; what
autocast would compute in half precision is computed in float32.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from edgekit.graph.ops import aten

# Higher-order op: at which of its arguments the sub-graph stands; the sub-graph's own inputs follow.
_WRAPPERS = {
    "wrap_with_set_grad_enabled": 1,
    "wrap_with_autocast": 4,
    "tag_activation_checkpoint": 0,
    "wrap_activation_checkpoint": 0,
    "wrap": 0,
}
_ASSERTIONS = {
    aten._assert_tensor_metadata.default,
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
}


def flatten(graph: fx.GraphModule) -> None:
    """Inline every wrapped sub-graph in place, however deep they nest; drop checks of shapes and types."""
    todo = [node for node in graph.graph.nodes if _place(node) is not None]
    while todo:
        todo += [node for node in _inline(graph, todo.pop()) if _place(node) is not None]
    for node in list(graph.graph.nodes):
        guards = node.op == "call_module" and str(node.target).startswith("_guards")
        if guards or node.target in _ASSERTIONS:
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    graph.delete_all_unused_submodules()


def _place(node: fx.Node) -> int | None:
    if node.op != "call_function" or not isinstance(node.target, torch._ops.HigherOrderOperator):
        return None
    return _WRAPPERS.get(node.target.name())


def _inline(graph: fx.GraphModule, call: fx.Node) -> list[fx.Node]:
    """Returns the nodes that stand in the place of ``call``."""
    place = _place(call)
    assert place is not None
    module, *inputs = call.args[place:]
    assert isinstance(module, fx.Node)
    inner = graph.get_submodule(str(module.target))
    assert isinstance(inner, fx.GraphModule)
    values: dict[fx.Node, Any] = {}
    waiting = iter(inputs)
    results: Any = None
    with graph.graph.inserting_before(call):
        for node in inner.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(waiting)
            elif node.op == "output":
                results = fx.node.map_arg(node.args[0], values.__getitem__)
            else:
                values[node] = graph.graph.node_copy(node, values.__getitem__)
                if node.op == "get_attr":
                    values[node].target = f"{module.target}.{node.target}"
    if isinstance(results, fx.Node):
        call.replace_all_uses_with(results)
    else:
        for user in list(call.users):
            assert user.target is operator.getitem
            user.replace_all_uses_with(results[user.args[1]])
            graph.graph.erase_node(user)
    graph.graph.erase_node(call)
    return [value for value in values.values() if isinstance(value, fx.Node)]
