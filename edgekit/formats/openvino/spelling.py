"""An int8 graph without the grids that OpenVINO has no use for. No layer's integers are on another grid.

ONNX Runtime and LiteRT have integer kernels for sums, products and sigmoids, so that the int8 graph spells
SiLU and hard-swish by these, each on a grid of its own. OpenVINO computes an activation in float32 inside of
the kernel of the layer in front; grids on its way make kernels of their own out of it. And it takes a grid
for one only where it is read right behind it, in front of any move.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import fx

from edgekit.graph import ops
from edgekit.graph.constants import evaluate_constant
from edgekit.graph.ops import aten

__all__ = ["spell_whole"]

_QUANTIZE, _DEQUANTIZE = ops.qd.quantize_per_tensor.default, ops.qd.dequantize_per_tensor.default
_LIKE = 0.01  # a number on a grid is as near to the one that is meant, as a share of it
_AS_ONE = ops.ACTIVATIONS - {aten.softmax.int}


def spell_whole(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy without the grids inside of activations, between a layer and its activation, and behind moves.

    Every grid in front of and behind layers, sums and products stays as it is, and so does one that clamps
    (a ReLU that calibration put there). Without the others less is rounded, and nothing else.
    """
    graph = copy.deepcopy(graph)
    for node in list(graph.graph.nodes):
        known = _silu(node) or _hard(graph, node)
        if known is not None:
            target, source = known
            with graph.graph.inserting_after(node):
                new = graph.graph.call_function(target, (source,))
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
    graph.graph.eliminate_dead_code()
    for node in list(graph.graph.nodes):
        if node.target in _AS_ONE:
            _unite(node)
        elif node.target in ops.MOVES and ops.moves_zero_alone(node):
            _once(node)
    ops.refresh(graph)
    return graph


def _silu(node: fx.Node) -> tuple[Any, fx.Node] | None:
    """``x * sigmoid(x)``."""
    if node.target is not aten.mul.Tensor:
        return None
    for value, gate in (node.args[:2], node.args[1::-1]):
        sigmoid = _read(gate)
        if sigmoid is not None and sigmoid.target is aten.sigmoid.default and _same(value, sigmoid.args[0]):
            return aten.silu.default, value  # type: ignore[return-value]
    return None


def _hard(graph: fx.GraphModule, node: fx.Node) -> tuple[Any, fx.Node] | None:
    """``x * clamp(x + 3, 0, 6) / 6`` and ``clamp(x + 3, 0, 6) / 6``, as ``int8.lower`` spells them."""
    if node.target is not aten.mul.Tensor or not _is_number(graph, node.args[1], 1 / 6):
        return None
    inner = _read(node.args[0])
    if inner is None:
        return None
    source = _shifted(graph, node.args[0])
    if source is not None:
        return aten.hardsigmoid.default, source
    if inner.target is not aten.mul.Tensor:
        return None
    for value, gate in (inner.args[:2], inner.args[1::-1]):
        source = _shifted(graph, gate)
        if source is not None and _same(value, source):
            return aten.hardswish.default, value  # type: ignore[return-value]
    return None


def _shifted(graph: fx.GraphModule, node: Any) -> fx.Node | None:
    """What ``node`` adds 3 to, where its grid ends at 0 and at 6, or at less if calibration saw less."""
    total = _read(node)
    if total is None:
        return None
    _, scale, zero, low, high, _ = node.args
    ends = (low - zero) * scale, (high - zero) * scale
    if total.target in ops.CLAMPS:  # with a grid on both sides
        total = _read(total.args[0])
    if total is None or total.target is not aten.add.Tensor or not _is_number(graph, total.args[1], 3):
        return None
    return total.args[0] if ends[0] == 0 and ends[1] < 6 * (1 + _LIKE) else None  # type: ignore[return-value]


def _unite(node: fx.Node) -> None:
    """Let an activation read what its layer gives, not what a grid makes of it."""
    source = node.args[0]
    layer = _read(source)
    if layer is None or layer.target not in ops.WEIGHTED:
        return
    assert isinstance(source, fx.Node)
    _, _, zero, low, high, _ = source.args
    if zero in (low, high):  # a clamp
        return
    pair: Any = source.args[0]
    readers = [user for one in pair.users for user in one.users]
    if len(layer.users) == 1 and readers == [node]:
        node.args = (layer, *node.args[1:])


def _once(node: fx.Node) -> None:
    """Leave out the pair behind a move of numbers that stand on its grid already."""
    source = node.args[0]
    if not isinstance(source, fx.Node) or source.target is not _DEQUANTIZE:
        return
    for pair in list(node.users):
        if pair.target is _QUANTIZE and pair.args[1:] == source.args[1:]:
            for reader in list(pair.users):
                if reader.target is _DEQUANTIZE and reader.args[1:] == source.args[1:]:
                    reader.replace_all_uses_with(node)


def _read(node: Any) -> fx.Node | None:
    """What stands in front of a pair that ends with ``node``; None if none does."""
    if not isinstance(node, fx.Node) or node.target is not _DEQUANTIZE:
        return None
    pair = node.args[0]
    if not isinstance(pair, fx.Node) or pair.target is not _QUANTIZE or pair.args[1:] != node.args[1:]:
        return None
    return pair.args[0]  # type: ignore[return-value]


def _same(one: Any, other: Any) -> bool:
    """Whether both read the same integers on the same grid."""
    if not isinstance(one, fx.Node) or not isinstance(other, fx.Node):
        return False
    return one is other or (one.target is other.target is _DEQUANTIZE and one.args == other.args)


def _is_number(graph: fx.GraphModule, node: Any, number: float) -> bool:
    if not isinstance(node, fx.Node) or not ops.is_constant(node):
        return False
    value = evaluate_constant(graph, node)
    return value.numel() == 1 and abs(float(value) - number) < _LIKE * number
