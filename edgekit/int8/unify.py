"""Which tensors share a grid, and which grid is known beforehand: settled after calibration, in the graph.

Runtimes move integers without rescaling them: the inputs and the output of a concatenation, of a pooling, of
a transpose must have one scale and zero point, or the answers are silently wrong. Calibration looks at each
tensor alone; here all that belong together get the range that holds them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx

from edgekit.graph import ops
from edgekit.graph.constants import evaluate_constant
from edgekit.int8.scores import is_long

_FINEST_SUMMAND = 512  # parts of a step of the sum
LOW, HIGH = -128, 127
Grid = tuple[float, int]  # scale, zero point; of int8


def unify(graph: fx.GraphModule) -> None:
    """Give one grid to all quantisers that must share one, in place.

    What is only moved, chosen or averaged has the grid of what it is made from; a sigmoid, tanh or softmax
    keeps the grid that its function has. Where tensors are concatenated see ``joins``.

    Raises:
        ValueError: a quantiser has another integer type than int8.
    """
    _fix_known(graph)
    for members in groups(graph, is_moved):
        entering = [node for node in members if enters(node)]
        common = grid_of((entering or members)[0])
        for node in members:
            set_grid(node, common)
    graph.recompile()


def grid_of(quantize: fx.Node) -> Grid:
    """(scale, zero point) of a per-tensor quantise node."""
    _, scale, zero_point, low, high, _ = quantize.args
    if (low, high) != (LOW, HIGH):
        raise ValueError(f"{quantize.name}: not an int8 quantiser ({low} to {high})")
    return float(scale), int(zero_point)  # type: ignore[arg-type]


def set_grid(quantize: fx.Node, grid: Grid) -> None:
    """Change a quantiser and all dequantise ops behind it."""
    quantize.args = (quantize.args[0], *grid, *quantize.args[3:])
    for user in list(quantize.users):
        user.args = (quantize, *grid, *user.args[3:])


def grid_for(smallest: float, largest: float, *, symmetric: bool = False) -> Grid:
    """The int8 grid of a range, zero included exactly; of ±the larger bound if ``symmetric``."""
    smallest, largest = min(smallest, 0.0), max(largest, 0.0)
    if symmetric:
        bound = max(-smallest, largest)
        return _float32(bound / HIGH) or 1.0, 0
    scale = _float32((largest - smallest) / (HIGH - LOW))
    if not scale:
        return 1.0, 0
    return scale, max(LOW, min(HIGH, round(LOW - smallest / scale)))


def _float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))


def holding(grids: list[Grid]) -> Grid:
    """The finest grid whose range holds those of all."""
    lows = [(LOW - zero) * scale for scale, zero in grids]
    highs = [(HIGH - zero) * scale for scale, zero in grids]
    return grid_for(min(lows), max(highs))


def _fix_known(graph: fx.GraphModule) -> None:
    for node in per_tensor(graph):
        known = _known_grid(node.args[0])
        if known is not None:
            set_grid(node, known)


def per_tensor(graph: fx.GraphModule) -> list[fx.Node]:
    """All per-tensor quantise nodes, in the graph's order."""
    return [node for node in graph.graph.nodes if node.target is ops.qd.quantize_per_tensor.default]


def _known_grid(node: Any) -> Grid | None:
    if not isinstance(node, fx.Node) or is_long(node):
        return None
    return ops.FIXED_GRID.get(node.target)  # type: ignore[call-overload,no-any-return]


def is_shared(node: Any) -> bool:
    """Whether what the node gives lies within what enters it, so that both must have one grid."""
    return isinstance(node, fx.Node) and node.target in ops.ONE_GRID and ops.moves_zero_alone(node)


def is_moved(node: Any) -> bool:
    """``is_shared``, but for concatenations, which bring tensors together (see ``joins``)."""
    return is_shared(node) and node.target not in ops.CONCATENATIONS


def enters(quantize: fx.Node) -> bool:
    """Whether a quantiser's grid is its own: what it quantises isn't moved from integers."""
    source = quantize.args[0]
    return not is_moved(source) or not any(_quantizers_in_front(source))  # type: ignore[arg-type]


def has_known_grid(node: Any) -> bool:
    """Whether the function that ``node`` computes brings its grid with it (sigmoid, tanh, softmax)."""
    return _known_grid(node) is not None


def groups(graph: fx.GraphModule, shared: Callable[[fx.Node], bool]) -> list[list[fx.Node]]:
    """Quantisers with one grid, in the graph's order: ``shared`` ops join those around them (union-find)."""
    nodes = per_tensor(graph)
    leader = {node: node for node in nodes}

    def find(node: fx.Node) -> fx.Node:
        while leader[node] is not node:
            node = leader[node]
        return node

    for node in graph.graph.nodes:
        if not shared(node):
            continue
        beside = [*_quantizers_in_front(node), *(user for user in node.users if user in leader)]
        for other in beside[1:]:
            leader[find(other)] = find(beside[0])
    together: dict[fx.Node, list[fx.Node]] = {}
    for node in nodes:
        together.setdefault(find(node), []).append(node)
    return list(together.values())


def _quantizers_in_front(node: fx.Node) -> Iterator[fx.Node]:
    for source in node.all_input_nodes:
        quantize = source.args[0] if source.target is ops.qd.dequantize_per_tensor.default else None
        if isinstance(quantize, fx.Node) and quantize.target is ops.qd.quantize_per_tensor.default:
            yield quantize


def minmax_weight_scales(rows: torch.Tensor) -> torch.Tensor:
    """The scale (C,) of each row of ``rows`` (C, n) that holds all of it: ``max |w| / 127``."""
    largest = rows.abs().amax(1)
    # A channel of zeros alone: any scale will do.
    return torch.where(largest > 0, largest / HIGH, torch.ones_like(largest))


def fit_weight_scales(
    graph: fx.GraphModule, scales_of: Callable[[torch.Tensor], torch.Tensor] = minmax_weight_scales
) -> int:
    """Every weight on a signed symmetric grid, one scale for each channel. In place.

    NNCF gives channels without negative weights a zero point, which LiteRT takes for 0, and gives the first
    layer half the grid, against an overflow that only x86 without VNNI has (the exporter sees to that one).

    Args:
        scales_of: finds the scales (C,) of a weight given as (C, n).

    Returns:
        How many weights there are.
    """
    count = 0
    for node in graph.graph.nodes:
        if node.target is not ops.qd.quantize_per_channel.default:
            continue
        weight, scale, zero_point = (ops.attribute(graph, str(arg.target)) for arg in node.args[:3])
        axis: int = node.args[3]
        scale.copy_(scales_of(weight.detach().transpose(0, axis).flatten(1)))
        zero_point.zero_()
        count += 1
    return count


def quantize_constants(graph: fx.GraphModule) -> None:
    """Put a pair behind every constant that an integer op computes with, its grid from its own values.

    Positional embeddings, class tokens, tables of embeddings, factors: known numbers need no calibration. The
    constant operand of a matrix product is symmetric, as weights are; one that is concatenated gets the grid
    of the result, and a summand no finer steps than count in the sum. Left alone is what isn't finite.
    """
    computing = ops.SUMS | ops.PRODUCTS | ops.MATMULS | ops.CONCATENATIONS
    for node in list(graph.graph.nodes):
        if node.target is ops.aten.embedding.default and any(
            user.target in ops.QUANTIZE for user in node.users
        ):
            _quantize_constant(graph, node, node.args[0], symmetric=False)
            _on_the_grid_of_its_table(node)
        elif node.target in computing and _on_integers(node):
            grid = grid_of(next(iter(node.users))) if node.target in ops.CONCATENATIONS else None
            for source in node.all_input_nodes:
                symmetric = node.target in ops.MATMULS
                _quantize_constant(graph, node, source, symmetric=symmetric, grid=grid)
    graph.recompile()


def _on_the_grid_of_its_table(node: fx.Node) -> None:
    """What is looked up stays what it is in the table, where nothing else wants another grid of it."""
    table = node.args[0]
    quantizers = [user for user in node.users if user.target in ops.QUANTIZE]
    readers = [reader for one in quantizers for pair in one.users for reader in pair.users]
    if not isinstance(table, fx.Node) or table.target not in ops.DEQUANTIZE:
        return
    if all(ops.is_float(reader) and reader.target not in ops.ONE_GRID | ops.QUANTIZE for reader in readers):
        for one in quantizers:
            set_grid(one, grid_of(table))


def _on_integers(node: fx.Node) -> bool:
    """Whether integers stand in front of ``node`` and behind it (perhaps behind its clamp)."""
    behind = all(user.target in ops.QUANTIZE | ops.CLAMPS for user in node.users)
    return behind and any(source.target in ops.DEQUANTIZE for source in node.all_input_nodes)


def _scale_behind(node: fx.Node) -> float:
    """Of the grid that the result of ``node`` is put on, behind its clamp if it has one."""
    todo = list(node.users)
    for user in todo:
        if user.target in ops.QUANTIZE:
            return grid_of(user)[0]
        todo += user.users if user.target in ops.CLAMPS else ()
    return 0.0


def _as_a_summand(grid: Grid, smallest: float, largest: float, behind: float) -> Grid:
    """No finer than a 512th of a step of the sum. XNNPACK adds tensors whose scales are 1/1024 to 256 times
    that of the sum; an addition of others would part its graph (a bias that training left near 0).
    """
    if behind and smallest == largest == 0:
        return behind, 0
    scale = _float32(behind / _FINEST_SUMMAND)
    if grid[0] >= scale:
        return grid
    return scale, max(LOW, min(HIGH, round(LOW - min(smallest, 0.0) / scale)))


def _quantize_constant(
    graph: fx.GraphModule, reader: fx.Node, source: Any, *, symmetric: bool, grid: Grid | None = None
) -> None:
    if not isinstance(source, fx.Node) or source.target in ops.DEQUANTIZE or not ops.is_constant(source):
        return
    value = evaluate_constant(graph, source)
    if not value.is_floating_point() or not value.numel() or not bool(torch.isfinite(value).all()):
        return
    smallest, largest = float(value.min()), float(value.max())
    grid = grid or grid_for(smallest, largest, symmetric=symmetric)
    if reader.target in ops.SUMS:
        grid = _as_a_summand(grid, smallest, largest, _scale_behind(reader))
    settings = (*grid, LOW, HIGH, torch.int8)
    with graph.graph.inserting_before(reader):
        quantize = graph.graph.call_function(ops.qd.quantize_per_tensor.default, (source, *settings))
        dequantize = graph.graph.call_function(ops.qd.dequantize_per_tensor.default, (quantize, *settings))
    quantize.meta, dequantize.meta = {"val": value.to(torch.int8)}, {"val": value}
    reader.replace_input_with(source, dequantize)
