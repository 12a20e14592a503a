"""Rewrites on the integer grid: none of them changes a number."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx

from edgekit.graph import ops
from edgekit.graph.constants import evaluate_constant
from edgekit.int8.accumulators import biased, hold_biases

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
        if node.args[0].target in ops.DEQUANTIZE:
            continue  # without the clamp two grids would follow each other, which LiteRT's converter refuses
        if _in_float(node.args[0]):
            continue
        grids = [_grid(graph, user) for user in node.users]
        lower, upper = clamp_bounds(node)
        if all(grid is not None and _does_nothing(lower, upper, *grid) for grid in grids):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
            removed += 1
    graph.recompile()
    return removed


def _in_float(node: Any) -> bool:
    """Whether a layer is float in LiteRT, whose converter drops the quantiser behind it, clamp and all; or is
    float in the graph itself, where a clamp costs nothing.
    """
    if not isinstance(node, fx.Node) or node.target not in ops.WEIGHTED:
        return False
    weight = node.args[1]
    plain = isinstance(weight, fx.Node) and weight.target not in ops.DEQUANTIZE
    return len(ops.shape_of(node) or ()) == 5 or plain


def meet_clamps(graph: fx.GraphModule) -> int:
    """Put a pair in front of every clamp that is left, on the grid behind it.

    A grid that others share may reach below zero; the clamp then has work to do. With the same grid on both
    sides it is a comparison of integers, and its producer ends on integers too. The numbers stay the same: a
    clamp of what saturates at the grid's ends saturates at the nearer of both.

    Returns:
        How many were met.
    """
    met = 0
    for node in list(graph.graph.nodes):
        quantizers = [user for user in node.users if user.target is ops.qd.quantize_per_tensor.default]
        source = node.args[0] if node.target in ops.CLAMPS else None
        if not isinstance(source, fx.Node) or source.target in ops.DEQUANTIZE or not quantizers:
            continue
        if _in_float(source):
            continue
        grids = {quantize.args[1:] for quantize in quantizers}
        if len(grids) != 1 or len(quantizers) != len(node.users):
            continue
        grid = grids.pop()
        with graph.graph.inserting_before(node):
            quantize = graph.graph.call_function(ops.qd.quantize_per_tensor.default, (source, *grid))
            dequantize = graph.graph.call_function(ops.qd.dequantize_per_tensor.default, (quantize, *grid))
        node.replace_input_with(source, dequantize)
        met += 1
    graph.recompile()
    return met


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


def clamp_bounds(node: fx.Node) -> tuple[float, float]:
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


def snap_weights(graph: fx.GraphModule) -> None:
    """Move every float weight onto its integer grid, in place: quantising it again finds the same integers.

    A converter that rounds with other arithmetic than torch's could otherwise decide a tie the other way.
    """
    with torch.no_grad():
        for node in graph.graph.nodes:
            if (
                node.target in ops.QUANTIZE
                and ops.is_constant(node.args[0])
                and node.args[0].op == "get_attr"
            ):
                grid = [_value(graph, argument) for argument in node.args]
                back = {ops.qd.quantize_per_tensor.default: ops.qd.dequantize_per_tensor.default}
                dequantize = back.get(node.target, ops.qd.dequantize_per_channel.default)
                grid[0].copy_(dequantize(node.target(*grid), *grid[1:]))


def snap_biases(graph: fx.GraphModule) -> int:
    """Round every bias to the grid of its layer's integer accumulator: input scale times weight scale.

    (Jacob et al. 2018, arXiv 1712.05877, section 2.4.) Runtimes hold biases as int32 on that grid; rounded
    here, the graph computes with the very numbers that they will compute with. Where int32 can't hold one,
    its channel's weights get a coarser grid first (see ``accumulators``). In place, done after calibration
    and after training.

    Returns:
        How many were rounded.
    """
    hold_biases(graph)
    layers = biased(graph)
    for layer in layers:
        scale = layer.input_scale * ops.attribute(graph, layer.weight_scale).double()
        value = ops.attribute(graph, layer.bias)
        with torch.no_grad():
            value.copy_((value.double() / scale).round() * scale)
    return len(layers)


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
    """A copy in which every quantised constant is stored as integers: only its dequantise op is left.

    What the graph computes stays bit for bit the same.
    """
    graph = copy.deepcopy(graph)
    for node in list(graph.graph.nodes):
        if node.target not in ops.QUANTIZE:
            continue
        source = node.args[0]
        if not ops.is_constant(source):
            continue
        arguments = [_value(graph, argument) for argument in node.args]
        baked = node.target(*arguments).detach()
        owned = isinstance(source, fx.Node) and source.op == "get_attr" and len(source.users) == 1
        name = str(source.target) if owned else f"{node.name}_constant"
        if owned:
            owner, _, leaf = name.rpartition(".")
            delattr(graph.get_submodule(owner), leaf)
        with graph.graph.inserting_before(node):
            constant = ops.constant_node(graph, name, baked)
        node.replace_all_uses_with(constant)
        graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _value(graph: fx.GraphModule, argument: Any) -> Any:
    return evaluate_constant(graph, argument) if isinstance(argument, fx.Node) else argument
