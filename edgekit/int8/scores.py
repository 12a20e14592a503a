"""What stands around a softmax stays float where integers can't hold it: masks, and long rows.

Minus infinity, or nearly, has no place on a grid: what shares one with a mask would be lost, and a mask that
is brought onto the scores' grid would leave masked positions their weight. So factors, masks and position
biases between scores and a softmax are computed in float.

The weights that a softmax gives sum to 1: the longer a row, the smaller they are, and where one head attends
to few places and another to all of them no grid holds both. Up to ``LONGEST_ROW`` places they stand on the
grid of LiteRT's kernel, 1/256. Longer rows stay float together with the products in front of and behind them:
attention over 64 to 1,600 tokens. That is no slower in ONNX Runtime and many times faster in LiteRT, whose
int8 softmax and batch matrix product are its plainest kernels (docs/int8.md has the figures).
"""

from __future__ import annotations

import torch
from torch import fx

from edgekit.graph import ops
from edgekit.graph.constants import evaluate_constant
from edgekit.graph.ops import aten

__all__ = [
    "LONGEST_ROW",
    "SOFTMAX",
    "constant_number",
    "float_scores",
    "free_coarse_scores",
    "is_long",
    "part_from_grid",
    "reads_long_row",
]

LONGEST_ROW = 48
SOFTMAX = {aten.softmax.int, aten._softmax.default, aten.log_softmax.int}
_MASKS = {
    *ops.SUMS,
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
    aten.where.self,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
}
_BETWEEN = {*_MASKS, *ops.PRODUCTS, *ops.MOVES, aten.div.Tensor}


def is_long(node: object) -> bool:
    """Whether ``node`` is a softmax over more places than an integer grid holds, or over a free number."""
    if not isinstance(node, fx.Node) or node.target not in SOFTMAX:
        return False
    shape = ops.shape_of(node)
    places = None if shape is None else shape[node.args[1]]  # type: ignore[index]
    return not isinstance(places, int) or places > LONGEST_ROW


def float_scores(graph: fx.GraphModule) -> set[fx.Node]:
    """What computes in float because nothing but a softmax reads it.

    Masks, and what stands between them and the softmax; in front of a long row all that stands there, the
    matrix product that gives the scores included.
    """
    between: dict[fx.Node, bool] = {}  # whether a long row reads it
    for node in reversed(graph.graph.nodes):
        if node.target not in _BETWEEN | ops.MATMULS or not node.users or not ops.is_float(node):
            continue
        if all(user in between or user.target in SOFTMAX for user in node.users):
            long = any(between.get(user, is_long(user)) for user in node.users)
            if node.target not in ops.MATMULS:
                between[node] = long
            elif long:
                between[node] = True
    found: set[fx.Node] = set()
    for node in graph.graph.nodes:
        masked = node.target in _MASKS or any(source in found for source in node.all_input_nodes)
        if node in between and (masked or between[node]):
            found.add(node)
    return found


def reads_long_row(node: fx.Node) -> bool:
    """Whether ``node`` adds or multiplies what a long softmax gives, perhaps moved: it computes in float."""
    if node.target not in ops.SUMS | ops.PRODUCTS | ops.MATMULS | ops.MEANS:
        return False
    for source in node.all_input_nodes:
        while source.target in ops.MOVES and isinstance(source.args[0], fx.Node):
            source = source.args[0]
        if is_long(source):
            return True
    return False


def part_from_grid(graph: fx.GraphModule) -> int:
    """Add a number to what a long softmax reads, in place, where integers stand in front and behind.

    Its result stays the same (a softmax doesn't feel a common number), but no converter takes it for its
    int8 kernel any more, which has another grid (LiteRT) or is the slower one (ONNX Runtime).

    Returns:
        How many there are.
    """
    parted = 0
    for node in list(graph.graph.nodes):
        if not is_long(node) or not any(user.target in ops.QUANTIZE for user in node.users):
            continue
        source = node.args[0]
        origin = source
        while origin.target in ops.MOVES:
            origin = origin.args[0]
        if origin.target not in ops.DEQUANTIZE:
            continue
        with graph.graph.inserting_before(node):
            number = ops.constant_node(graph, f"{node.name}_number", torch.tensor(-1.0))
            moved = graph.graph.call_function(aten.add.Tensor, (source, number))
        moved.meta["val"] = source.meta.get("val")
        node.replace_input_with(source, moved)
        parted += 1
    graph.recompile()
    return parted


# A weight moves by as much as its score, relatively: half of this step at random is 30 dB.
_COARSEST = 0.1


def free_coarse_scores(graph: fx.GraphModule) -> int:
    """Take the quantisers off scores whose grid is too coarse for a softmax, in place, after calibration.

    A step of the grid, times the factors in front of the softmax, may be at most 0.1; else the matrix product
    gives its scores in float (ONNX Runtime's integer kernel does that, too).

    Returns:
        How many matrix products do so.
    """
    freed = 0
    quantizers = [node for node in graph.graph.nodes if node.target is ops.qd.quantize_per_tensor.default]
    for node in [one for one in quantizers if one.args[0].target in ops.MATMULS]:
        pairs = _pairs_before_softmax(graph, node)
        if pairs is None:
            continue
        for one in reversed(pairs):
            one.replace_all_uses_with(one.args[0])  # type: ignore[arg-type]
            graph.graph.erase_node(one)
        freed += 1
    graph.recompile()
    return freed


def _pairs_before_softmax(graph: fx.GraphModule, quantize: fx.Node) -> list[fx.Node] | None:
    """All quantise and dequantise nodes between coarse scores and what alone reads them, softmaxes."""
    pairs: list[fx.Node] = []
    coarse = False
    todo = [(quantize, float(quantize.args[1]))]  # type: ignore[arg-type]
    while todo:
        node, step = todo.pop()
        if node.target in ops.QUANTIZE | ops.DEQUANTIZE:
            pairs.append(node)
        for user in node.users:
            if user.target in SOFTMAX:
                coarse = coarse or step > _COARSEST
            elif user.target in _BETWEEN | ops.QUANTIZE | ops.DEQUANTIZE:
                todo.append((user, step * _factor(graph, user)))
            else:
                return None
    return pairs if coarse else None


def _factor(graph: fx.GraphModule, node: fx.Node) -> float:
    """What a product with, or a division by, one number makes of a step; other ops leave it."""
    if node.target not in ops.PRODUCTS | {aten.div.Tensor}:
        return 1.0
    for value in node.args:
        number = constant_number(graph, value)
        if number:
            return abs(number if node.target in ops.PRODUCTS else 1 / number)
    return 1.0


def constant_number(graph: fx.GraphModule, value: object) -> float | None:
    """The one number that ``value``, an argument of a node, stands for, or None."""
    if isinstance(value, int | float):
        return float(value)
    while isinstance(value, fx.Node) and value.target in ops.QUANTIZE | ops.DEQUANTIZE:
        value = value.args[0]
    if not isinstance(value, fx.Node) or not ops.is_constant(value):
        return None
    constant = evaluate_constant(graph, value)
    return float(constant) if constant.numel() == 1 else None
