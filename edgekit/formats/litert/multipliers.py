"""Depthwise convolutions with several kernels for each channel, one kernel at a time.

XNNPACK's fast kernels have one for each channel; with two it takes 2 to 3 times as long (op_costs.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from edgekit.graph import ops
from edgekit.graph.constants import evaluate_constant
from edgekit.graph.depthwise import multiplier
from edgekit.graph.ops import aten

__all__ = ["one_kernel_each"]

_BY_CHANNEL = ops.qd.quantize_per_channel.default, ops.qd.dequantize_per_channel.default
_BY_TENSOR = ops.qd.quantize_per_tensor.default, ops.qd.dequantize_per_tensor.default


def one_kernel_each(graph: fx.GraphModule) -> int:
    """Spell them as several convolutions whose channels are put beside each other, in place.

    The same numbers: in an int8 graph each part has the grid of the whole.

    Returns:
        How many there were.
    """
    found = 0
    for node in list(graph.graph.nodes):
        times = multiplier(node)
        if times < 2:
            continue
        grid = _grid(node)
        if grid is None and any(one.target in ops.DEQUANTIZE for one in node.all_input_nodes):
            continue  # integers go in, and something else than a quantiser follows
        with graph.graph.inserting_before(node):
            new = _spelled(graph, node, times, grid)
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)
        found += 1
    if found:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return found


def _grid(node: fx.Node) -> tuple[Any, ...] | None:
    """The arguments of the quantisers behind a node; None where something else reads it."""
    grids = [user.args[1:] for user in node.users if user.target is _BY_TENSOR[0]]
    alike = grids and len(grids) == len(node.users) and all(one == grids[0] for one in grids)
    return grids[0] if alike else None


def _spelled(graph: fx.GraphModule, node: fx.Node, times: int, grid: tuple[Any, ...] | None) -> fx.Node:
    values: list[Any] = [*node.args, *(None, 1, 0, 1, 1)[len(node.args) - 2 :]]
    source, weight, bias, *rest = values
    shape = ops.shape_of(node)
    assert shape is not None

    def on_grid(value: fx.Node) -> fx.Node:
        if grid is not None:
            for step in _BY_TENSOR:
                value = graph.graph.call_function(step, (value, *grid))
        return value

    parts = []
    for index in range(times):
        name = f"{node.name}_kernel{index}"
        own = _taken(graph, weight, index, times, f"{name}_weight")
        offset = None if bias is None else _taken(graph, bias, index, times, f"{name}_bias")
        target: Any = node.target
        part = on_grid(graph.graph.call_function(target, (source, own, offset, *rest)))
        parts.append(on_grid(graph.graph.call_function(aten.unsqueeze.default, (part, 2))))
    joined = on_grid(graph.graph.call_function(aten.cat.default, (parts, 2)))
    sizes = [int(size) for size in shape[1:]]
    return graph.graph.call_function(aten.reshape.default, (joined, [-1, *sizes]))


def _taken(graph: fx.GraphModule, constant: Any, first: int, step: int, name: str) -> fx.Node:
    """Every ``step``-th channel of a weight or bias, with those of its grid."""
    values: list[Any] = [constant]
    quantized = constant.target is _BY_CHANNEL[1]
    if quantized:
        values = list(constant.args[0].args[:3])  # what is quantised, scales, zero points
    made = []
    for index, value in enumerate(values):
        numbers = evaluate_constant(graph, value)[first::step].clone()
        if numbers.is_floating_point() and index == 0:
            numbers = torch.nn.Parameter(numbers, requires_grad=False)
        made.append(ops.constant_node(graph, f"{name}{index}", numbers))
    if not quantized:
        return made[0]
    own, *grid = made
    rest = constant.args[0].args[3:]
    integers = graph.graph.call_function(_BY_CHANNEL[0], (own, *grid, *rest))
    return graph.graph.call_function(_BY_CHANNEL[1], (integers, *grid, *constant.args[3:]))
