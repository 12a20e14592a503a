"""Which layers are computed in float: chosen by name, layer by layer, in the lowered graph.

A layer goes by the name of its module, as ``edgekit inspect`` shows it; what stands in a module, at whatever
depth, goes by that module's name, too. So "blocks.0" is a block with all that it adds, scales and activates
inside, and what is made and read inside of it never meets a grid. What such a layer reads from others, and
what others read from it, lies on a grid as ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from torch import fx

from edgekit.errors import StageError
from edgekit.graph import ops

__all__ = ["kept_float", "modules_of", "nodes_of", "part_from_grids"]

_NEAREST = 5
# Of a step of the grid: little beside its rounding, and more than what ONNX's optimiser takes for 0 (1e-8).
_NOTHING = 2.0**-8
_BECOMES = ops.INTEGER | ops.CLAMPS | ops.MOVES | ops.RECURRENT


def modules_of(node: fx.Node) -> Iterator[str]:
    """Names of the modules that a node of a captured graph belongs to, from the outermost to its own.

    A layer with weights belongs to the module that holds them, which needn't be the one that calls it.
    """
    found: dict[str, None] = {}
    for own in _own_names(node):
        parts = own.split(".")
        found.update(dict.fromkeys(".".join(parts[: depth + 1]) for depth in range(len(parts))))
    yield from found


def _own_names(node: fx.Node) -> Iterator[str]:
    if name := ops.layer_of(node):
        yield name
    weight = node.args[1] if node.target in ops.WEIGHTED else None
    if isinstance(weight, fx.Node) and weight.op == "get_attr":
        yield ops.user_name(str(weight.target)).removesuffix(".weight")


def nodes_of(graph: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """By module, the nodes that compute in it, or in a module inside of it; in the graph's order.

    Modules in which nothing could be computed on integers are left out.
    """
    found: dict[str, list[fx.Node]] = {}
    for node in graph.graph.nodes:
        computes = ops.is_float(node) or node.target in ops.RECURRENT
        if node.op == "call_function" and computes and not ops.is_constant(node):
            for name in modules_of(node):
                found.setdefault(name, []).append(node)
    return {name: nodes for name, nodes in found.items() if any(one.target in _BECOMES for one in nodes)}


def kept_float(graph: fx.GraphModule, patterns: Collection[str]) -> set[str]:
    """Names of the nodes that stay in float, for ``EdgeQuantizer``.

    Args:
        graph: captured and lowered.
        patterns: of names of modules, as a shell has them: ``head.*``, ``blocks.?``, ``*.attn``.

    Raises:
        StageError: a pattern that matches no module; the message has the names that come nearest.
    """
    if not patterns:
        return set()
    nodes = nodes_of(graph)
    unmatched, kept = [], set[str]()
    for pattern in patterns:
        names = [name for name in nodes if fnmatchcase(name, pattern)]
        kept.update(node.name for name in names for node in nodes[name])
        unmatched += [] if names else [pattern]
    if unmatched:
        raise StageError(
            "there is no layer of this name",
            where="stages.qat.float",
            got="; ".join(f"{one!r}, {_nearest(one, nodes)}" for one in unmatched),
            expected="names of modules as `edgekit inspect` shows them, or patterns of them (blocks.0.*)",
            next="correct the names, or take them out of stages.qat.float",
        )
    return kept


def part_from_grids(graph: fx.GraphModule) -> int:
    """Add a 256th of a step to what a float layer reads, in place, where integers stand in front and behind.

    ONNX Runtime and LiteRT's converter take such a layer for one that was left to be quantised, and round its
    weights by themselves. To be done when grids are settled.

    Returns:
        How many there are.
    """
    parted = 0
    for node in list(graph.graph.nodes):
        if node.target not in ops.WEIGHTED or node.args[1].target in ops.DEQUANTIZE:
            continue
        source = node.args[0]
        origin = source
        while origin.target in ops.MOVES and isinstance(origin.args[0], fx.Node):
            origin = origin.args[0]
        if origin.target not in ops.DEQUANTIZE or not any(user.target in ops.QUANTIZE for user in node.users):
            continue
        with graph.graph.inserting_before(node):
            number = ops.constant_node(
                graph, f"{node.name}_nothing", torch.tensor(_NOTHING * float(origin.args[1]))
            )
            moved = graph.graph.call_function(ops.aten.add.Tensor, (source, number))
        moved.meta = {"val": source.meta.get("val"), "nn_module_stack": node.meta.get("nn_module_stack")}
        node.replace_input_with(source, moved)
        parted += 1
    graph.recompile()
    return parted


def _nearest(pattern: str, names: Iterable[str]) -> str:
    known = list(names)
    plain = pattern.rstrip("*?.")
    close = get_close_matches(plain, known, n=_NEAREST, cutoff=0.6)
    if plain in known:
        close = list(dict.fromkeys([plain, *close]))[:_NEAREST]
    if close:
        return f"nearest: {', '.join(close)}"
    outermost = list(dict.fromkeys(name.partition(".")[0] for name in known))
    return f"outermost names: {', '.join(outermost[:_NEAREST])}"
