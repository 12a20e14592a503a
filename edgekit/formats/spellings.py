"""The int8 graph's numbers on other grids, where an instruction set or a precision wants them so.

Nothing is calibrated here: every grid follows from one that the graph has already.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx

from edgekit.graph import ops

_LIMIT = 64  # of 7-bit weights
_INT16_MIN, _INT16_MAX = -32768, 32767
# Behind these a lower bound of zero is a ReLU that the int8 grid did; other ops pass on what they were given.
_COMPUTE = ops.WEIGHTED | ops.SUMS | ops.PRODUCTS | ops.MATMULS
# Results in 0 … 1 or -1 … 1, for which LiteRT's int16 kernels demand this very scale.
_UNIT = {ops.aten.sigmoid.default, ops.aten.softmax.int, ops.aten.tanh.default}
_UNIT_SCALE = 1 / 32768


def seven_bit_weights(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy whose weights stand on grids twice as coarse, in -64 … 64: scales doubled, weights rounded anew.

    For x86 without VNNI, whose kernels add pairs of products in 16 bits: ``2 · 255 · 64 = 32,640`` fits
    there, products with 127 saturate and are wrong. A weight moves by half a (new) step at most; activations
    and biases keep their numbers. A layer whose integers are within 64 already stays as it is.
    """
    graph = copy.deepcopy(graph)
    doubled: set[str] = set()
    for node in graph.graph.nodes:
        if node.target not in ops.QUANTIZE or not ops.is_constant(node.args[0]):
            continue
        if _largest(graph, node) <= _LIMIT:
            continue
        for one in (node, *(user for user in node.users if user.target in ops.DEQUANTIZE)):
            one.args = _doubled(graph, one, doubled)
    graph.recompile()
    return graph


def _largest(graph: fx.GraphModule, quantizer: fx.Node) -> int:
    """The largest magnitude among a quantised weight's integers."""
    values = [
        ops.attribute(graph, str(value.target)).detach() if isinstance(value, fx.Node) else value
        for value in quantizer.args
    ]
    quantize: Any = quantizer.target
    return int(quantize(*values).int().abs().max())


def _doubled(graph: fx.GraphModule, node: fx.Node, doubled: set[str]) -> tuple[Any, ...]:
    """The arguments of a quantise or dequantise node with its scale doubled, once where nodes share it."""
    value, scale, zero, *rest = node.args
    if isinstance(scale, fx.Node):
        name = str(scale.target)
        if name not in doubled:
            doubled.add(name)
            ops.set_attribute(graph, name, 2 * ops.attribute(graph, name).detach())
    else:
        scale = 2 * scale  # type: ignore[operator]
    *axis, _, _, dtype = rest
    return (value, scale, zero, *axis, -_LIMIT, _LIMIT, dtype)


def int16_activations(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy whose activations are int16, symmetric: scale = largest magnitude of the int8 grid / 32,767.

    LiteRT's int16 kernels want zero point 0, so that a grid can't begin at zero any more: ReLUs that the int8
    grid did by saturating (``grid.absorb_clamps``) are put back, fused by the converter.
    """
    graph = copy.deepcopy(graph)
    per_tensor = {ops.qd.quantize_per_tensor.default, ops.qd.dequantize_per_tensor.default}
    for node in list(graph.graph.nodes):
        if node.target not in per_tensor or _is_weight(node):
            continue
        value, scale, zero, low, high, _ = node.args[:6]
        if node.target in ops.QUANTIZE and zero == low and _may_be_negative(value):
            with graph.graph.inserting_before(node):
                relu = graph.graph.call_function(ops.aten.relu.default, (value,))
            relu.meta = dict(value.meta)
            value = relu
        largest = max(abs(low - zero), abs(high - zero)) * scale
        step = _UNIT_SCALE if _producer(node) in _UNIT else largest / _INT16_MAX
        node.args = (value, step, 0, _INT16_MIN, _INT16_MAX, torch.int16)
    graph.recompile()
    return graph


def _may_be_negative(value: fx.Node) -> bool:
    """Whether a tensor that is quantised on a grid from zero up may be below zero: the grid was its ReLU."""
    if value.target in ops.DEQUANTIZE and len(value.args) == 6:  # another grid's numbers, brought to this one
        return bool(value.args[2] != value.args[3])
    return value.target in _COMPUTE


def _is_weight(node: fx.Node) -> bool:
    """Whether a quantise or dequantise node holds a layer's weight: int8 whatever the activations are.

    Other constants (a number that is added, say) have the type of the tensor that they meet.
    """
    pairs = node.users if node.target in ops.QUANTIZE else (node,)
    readers = [reader for pair in pairs for reader in pair.users]
    return ops.is_constant(node.args[0]) and any(
        reader.target in ops.WEIGHTED and reader.args[0] not in pairs for reader in readers
    )


def _producer(node: fx.Node) -> Any:
    """The op whose result a quantise or dequantise node holds."""
    source = node.args[0]
    while isinstance(source, fx.Node) and source.target in ops.QUANTIZE:
        source = source.args[0]
    while isinstance(source, fx.Node) and source.target in ops.MOVES:
        pair = source.args[0]
        for _ in range(2):  # through the pair in front of a move: its grid is the same
            if isinstance(pair, fx.Node) and pair.target in ops.QUANTIZE | ops.DEQUANTIZE:
                pair = pair.args[0]
        source = pair
    return source.target if isinstance(source, fx.Node) else None
