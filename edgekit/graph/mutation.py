"""In-place ops as the functions that they are: what is read afterwards reads the result."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def functional(graph: fx.GraphModule) -> bool:
    """Replace in-place ops (``relu_``) by their functions (``relu``), and later reads of what they changed.

    Returns:
        False, with nothing done, where that isn't enough: what is changed is seen through another view as
        well (``x[:, 0] = 0``), or an op has no function of the same form.
    """
    order = {node: index for index, node in enumerate(graph.graph.nodes)}
    views = _views(graph)
    changing = [node for node in graph.graph.nodes if _is_mutable(node)]
    for node in changing:
        changed = node.args[0]
        if _function(node.target) is None or not isinstance(changed, fx.Node):
            return False
        others = [view for view in views[changed] if view not in (changed, node)]
        if any(order[user] > order[node] for view in others for user in view.users if user is not node):
            later = {view for view in others if order[view] > order[node]}
            if any(order[user] > order[node] for view in others if view not in later for user in view.users):
                return False
    for node in changing:
        changed = node.args[0]
        node.target = _function(node.target)
        assert isinstance(changed, fx.Node)
        changed.replace_all_uses_with(node, delete_user_cb=lambda user, at=order[node]: order[user] > at)  # type: ignore[misc]
    graph.recompile()
    return True


def _is_mutable(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _function(target: Any) -> Any:
    """The op without side effects that computes the same, or None."""
    name = target._schema.name.partition("::")[2]
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    found = getattr(packet, target._overloadname, None)
    return None if found is None or found._schema.is_mutable else found


def _views(graph: fx.GraphModule) -> dict[fx.Node, list[fx.Node]]:
    """For each node, all nodes whose tensors may share its memory, itself among them."""
    shared: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        source = node.args[0] if _may_alias(node) else None
        shared[node] = shared.get(source, []) if isinstance(source, fx.Node) else []
        shared[node].append(node)
    return shared


def _may_alias(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.op == "call_function" and bool(node.args)  # one of several results
    return any(result.alias_info is not None for result in node.target._schema.returns)
