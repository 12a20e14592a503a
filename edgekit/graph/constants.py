"""What a graph computes of parameters alone, computed once: standardised weights, slices, transposes, tables.

The result is a parameter (it trains on as any weight does), or a buffer where no parameter went into it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.graph import ops

__all__ = ["evaluate_constant", "fold_constants"]

_GROWTH = 4  # times the size of what it is made of: how much larger a folded constant may be ...
_SMALL = 1 << 16  # ... if it has more elements than this


def fold_constants(graph: fx.GraphModule) -> int:
    """Put a parameter in the place of each constant expression, in place.

    Left alone is what draws random numbers, and what would be much larger than what it is made of (a table
    that is repeated): those stay as ops. Returns how many were folded.
    """
    ends = [node for node in graph.graph.nodes if _is_end(node)]
    folded = 0
    before = _read(graph)
    for node in ends:
        expression = list(_expression(node))
        if any(_is_random(one) for one in expression):
            continue
        value = evaluate_constant(graph, node).clone(memory_format=torch.contiguous_format)
        names = [str(one.target) for one in expression if one.op == "get_attr"]
        sources = [ops.attribute(graph, name) for name in names]
        weight = any(user.target in ops.WEIGHTED for user in node.users)
        if not weight and value.numel() > max(_SMALL, _GROWTH * sum(source.numel() for source in sources)):
            continue
        learns = value.is_floating_point() and any(isinstance(s, torch.nn.Parameter) for s in sources)
        _replace(graph, node, _name(graph, node, names), torch.nn.Parameter(value) if learns else value)
        folded += 1
    if folded:
        graph.graph.eliminate_dead_code()
        _delete(graph, before - _read(graph))
        ops.refresh(graph)
    return folded


def _is_end(node: fx.Node) -> bool:
    """Whether a constant expression ends here: what reads it isn't constant."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
        return False
    return ops.is_constant(node) and any(not ops.is_constant(user) for user in node.users)


def _expression(end: fx.Node) -> Iterator[fx.Node]:
    seen = {end}
    todo = [end]
    while todo:
        node = todo.pop()
        yield node
        fresh = [source for source in node.all_input_nodes if source not in seen]
        seen.update(fresh)
        todo += fresh


def _is_random(node: fx.Node) -> bool:
    tags = getattr(node.target, "tags", ())
    return node.op == "call_function" and torch.Tag.nondeterministic_seeded in tags


def evaluate_constant(graph: fx.GraphModule, node: Any) -> Tensor:
    """What a constant expression (``ops.is_constant``) amounts to: each node of it computed once."""
    values: dict[fx.Node, Any] = {}
    todo: list[fx.Node] = [node]
    with torch.no_grad():
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
    assert isinstance(result, Tensor)
    return result


def _name(graph: fx.GraphModule, node: fx.Node, sources: list[str]) -> str:
    """Named after the largest parameter in it; with a number where that one is read elsewhere."""
    if not sources:
        return _free(graph, f"{node.name}_constant")
    values = {name: ops.attribute(graph, name) for name in sources}
    main = max(sources, key=lambda name: (isinstance(values[name], torch.nn.Parameter), values[name].numel()))
    readers = [one for one in graph.graph.nodes if one.op == "get_attr" and one.target == main]
    inside = set(_expression(node))
    reading = [user for one in (inside | set(readers)) - {node} for user in one.users]
    if all(user in inside for user in reading):
        return main
    stem = main.removesuffix("weight").removesuffix("bias")
    kind = main[len(stem) :]
    return _free(graph, f"{stem}{{}}{'_' if kind else ''}{kind}")


def _free(graph: fx.GraphModule, pattern: str) -> str:
    pattern = pattern if "{}" in pattern else pattern + "{}"
    taken = {name for name, _ in [*graph.named_parameters(), *graph.named_buffers()]}
    return next(name for number in range(len(taken) + 1) if (name := pattern.format(number)) not in taken)


def _replace(graph: fx.GraphModule, node: fx.Node, name: str, value: Tensor) -> None:
    # A parameter's name may have held a buffer, or the other way round.
    _delete(graph, {name})
    with graph.graph.inserting_before(node):
        constant = ops.constant_node(graph, name, value)
    constant.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
    node.replace_all_uses_with(constant)
    graph.graph.erase_node(node)


def _read(graph: fx.GraphModule) -> set[str]:
    return {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}


def _delete(graph: fx.GraphModule, names: set[str]) -> None:
    for name in names:
        owner, _, leaf = name.rpartition(".")
        module = graph.get_submodule(owner)
        for members in (module._parameters, module._buffers):
            members.pop(leaf, None)
        module._non_persistent_buffers_set.discard(leaf)
        if isinstance(vars(module).get(leaf), Tensor):
            delattr(module, leaf)
