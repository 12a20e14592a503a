"""Rewrites on the integer grid: none of them changes a number."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx

from edgekit.int8 import ops

INT8_MIN, INT8_MAX = -128, 127


def absorb_clamps(graph: fx.GraphModule) -> int:
    """Remove clamps (ReLU, ReLU6, hardtanh) whose quantiser clamps at the same bounds.

    Quantising saturates: ``q(x) = clip(round(x / scale) + zero_point, low, high)``. So a clamp in front of it
    does nothing when its lower bound is at or below the grid's smallest value ``(low - zero_point) * scale``
    and its upper bound at or above the grid's largest. The kernels of every runtime then need no clamp.

    Returns:
        How many were removed.
    """
    removed = 0
    for node in list(graph.graph.nodes):
        if node.target not in ops.CLAMPS or not node.users:
            continue
        grids = [_grid(graph, user) for user in node.users]
        lower, upper = _bounds(node)
        if all(grid is not None and _does_nothing(lower, upper, *grid) for grid in grids):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            removed += 1
    graph.recompile()
    return removed


def _does_nothing(lower: float, upper: float, smallest: float, largest: float, scale: float) -> bool:
    # A thousandth of a step: the scale is a rounded float32 quotient of the range.
    tolerance = 1e-3 * scale
    return lower <= smallest + tolerance and upper >= largest - tolerance


def _grid(graph: fx.GraphModule, node: fx.Node) -> tuple[float, float, float] | None:
    """(smallest value, largest value, step) of a per-tensor quantise node; None for any other node."""
    if node.target is not ops.qd.quantize_per_tensor.default:
        return None
    _, scale, zero_point, low, high, _ = node.args
    step, zero, low, high = (float(v) for v in (scale, zero_point, low, high))  # type: ignore[arg-type]
    return (low - zero) * step, (high - zero) * step, step


def _bounds(node: fx.Node) -> tuple[float, float]:
    """Lower and upper bound of a clamp node."""
    infinity = float("inf")
    if node.target is ops.aten.relu.default:
        return 0.0, infinity
    if node.target is ops.aten.relu6.default:
        return 0.0, 6.0
    lower, upper = [*node.args[1:3], None, None][:2]
    if node.target is ops.aten.hardtanh.default:
        lower, upper = (-1.0 if lower is None else lower), (1.0 if upper is None else upper)
    return (
        -infinity if lower is None else float(lower),  # type: ignore[arg-type]
        infinity if upper is None else float(upper),  # type: ignore[arg-type]
    )


def tie_moves(graph: fx.GraphModule) -> None:
    """Give every quantiser behind a move the grid in front of it: the move is then exact on integers."""
    for node in graph.graph.nodes:
        if node.target not in ops.MOVES:
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.target is not ops.qd.dequantize_per_tensor.default:
            continue
        for user in list(node.users):
            if user.target is ops.qd.quantize_per_tensor.default:
                old = user
                old.args = (node, *source.args[1:6])
                for dequantize in list(old.users):
                    dequantize.args = (old, *source.args[1:6])
    graph.recompile()


def spell(graph: fx.GraphModule, dtype: torch.dtype) -> fx.GraphModule:
    """The same numbers with all activations stored as ``dtype`` (int8 or uint8).

    uint8 = int8 + 128 with the zero point moved alike: every dequantised value stays what it was. ONNX
    Runtime on x86 has its fast kernels for uint8, LiteRT and ARM for int8.
    """
    graph = copy.deepcopy(graph)
    shift = {torch.int8: 0, torch.uint8: 128}[dtype]
    for node in graph.graph.nodes:
        if node.target in (ops.qd.quantize_per_tensor.default, ops.qd.dequantize_per_tensor.default):
            value, scale, zero, low, high, old = node.args[:6]
            move: Any = shift - {torch.int8: 0, torch.uint8: 128}[old]
            node.args = (value, scale, zero + move, low + move, high + move, dtype)
    graph.recompile()
    return graph


def bake_weights(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy in which every quantised weight is stored as int8: only its dequantise op is left.

    What the graph computes stays bit for bit the same.
    """
    graph = copy.deepcopy(graph)
    for node in list(graph.graph.nodes):
        if node.target not in ops.QUANTIZE:
            continue
        weight = node.args[0]
        if not isinstance(weight, fx.Node) or weight.op != "get_attr" or len(weight.users) != 1:
            continue
        arguments = [_value(graph, arg) for arg in node.args]
        baked = node.target(*arguments).detach()
        name = str(weight.target)
        owner, _, leaf = name.rpartition(".")
        module = graph.get_submodule(owner)
        delattr(module, leaf)
        module.register_buffer(leaf, baked)
        weight.meta["val"] = baked
        node.replace_all_uses_with(weight)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _value(graph: fx.GraphModule, argument: Any) -> Any:
    if isinstance(argument, fx.Node):
        return ops.attribute(graph, str(argument.target))
    return argument
