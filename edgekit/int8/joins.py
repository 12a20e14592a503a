"""Which grid a concatenation has, and what is requantised in front of it.

Inputs and result of a concatenation have one grid in every runtime: the finest that holds them all. An input
that is finer by more than 3 dB and is read elsewhere too keeps its own grid for its other readers, and is
brought onto the common one by a second quantiser right in front of the concatenation; so is always what has
the grid of its function (sigmoid, tanh, softmax). An input that nothing else reads is put on the common grid
at once: a second rounding would only add to the first.

Concatenations up to which nothing multiplies any more are float (see ``tail``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import fx

from edgekit.graph import ops
from edgekit.graph.constants import evaluate_constant
from edgekit.int8.unify import (
    Grid,
    enters,
    grid_for,
    grid_of,
    groups,
    has_known_grid,
    holding,
    is_moved,
    is_shared,
    set_grid,
)

__all__ = ["join"]

# A grid that is coarser by this factor has 3 dB more of rounding noise.
_COARSER = math.sqrt(2)


@dataclass
class _Group:
    """Quantisers with one grid; ``finest``: the smallest scale that a reader besides concatenations wants."""

    members: list[fx.Node]
    grid: Grid | None
    finest: float = math.inf
    known: bool = False


def join(graph: fx.GraphModule) -> int:
    """Give the inputs and the result of every concatenation one grid, in place, after ``unify``.

    Returns:
        How many inputs are requantised.
    """
    group_of: dict[fx.Node, _Group] = {}
    for members in groups(graph, is_moved):
        group = _cell(members)
        group_of.update(dict.fromkeys(members, group))
    requantised = 0
    for node in list(graph.graph.nodes):
        if node.target in ops.CONCATENATIONS and any(user in group_of for user in node.users):
            requantised += _join_one(graph, node, group_of)
    for group in {id(one): one for one in group_of.values()}.values():
        for member in group.members:
            if group.grid is not None:
                set_grid(member, group.grid)
    graph.recompile()
    return requantised


def _cell(members: list[fx.Node]) -> _Group:
    """What one tensor and its moves share."""
    sources: list[Any] = [node.args[0] for node in members if enters(node)]
    sources = [source for source in sources if source.target not in ops.CONCATENATIONS]
    group = _Group(members, grid_of(members[0]) if sources else None)
    group.known = any(has_known_grid(source) for source in sources)
    if group.grid is not None and _read_elsewhere(members):
        group.finest = group.grid[0]
    return group


def _read_elsewhere(members: list[fx.Node]) -> bool:
    """Whether anything but moves and concatenations reads these tensors."""
    readers = (reader for node in members for back in node.users for reader in back.users)
    return any(not is_shared(reader) for reader in readers)


def _join_one(graph: fx.GraphModule, node: fx.Node, group_of: dict[fx.Node, _Group]) -> int:
    """Join the groups around one concatenation; returns how many inputs got a second quantiser."""
    behind = [group_of[user] for user in node.users if user in group_of]
    quantizers: dict[fx.Node, Any] = {s: s.args[0] for s in node.all_input_nodes if s.args}
    fronts = {s: group_of[q] for s, q in quantizers.items() if isinstance(q, fx.Node) and q in group_of}
    grids = [group.grid for group in fronts.values() if group.grid is not None]
    for source in node.all_input_nodes:
        if source not in fronts and ops.is_constant(source):
            value = evaluate_constant(graph, source)
            grids.append(grid_for(float(value.min()), float(value.max())))
    if not grids:
        return 0
    common = grids[0] if len(set(grids)) == 1 else holding(grids)
    joined = behind[0]
    cut = 0
    for source, group in fronts.items():
        coarser = common[0] > _COARSER * group.finest
        if group.grid is None or (common != group.grid and (group.known or coarser)):
            again = _requantise(graph, node, source)
            joined.members.append(again)
            group_of[again] = joined
            cut += 1
        else:
            joined = _merge(joined, group, group_of)
    for group in behind[1:]:
        joined = _merge(joined, group, group_of)
    joined.grid = common
    if _read_elsewhere([user for user in node.users if user in group_of]):
        joined.finest = min(joined.finest, common[0])
    return cut


def _merge(one: _Group, other: _Group, group_of: dict[fx.Node, _Group]) -> _Group:
    """Into the larger of both, so that a long chain of concatenations is no more than n log n steps."""
    if one is other:
        return one
    if len(one.members) < len(other.members):
        one, other = other, one
    one.members += other.members
    one.finest = min(one.finest, other.finest)
    one.known = one.known or other.known
    group_of.update(dict.fromkeys(other.members, one))
    return one


def _requantise(graph: fx.GraphModule, node: fx.Node, source: fx.Node) -> fx.Node:
    """A second pair between ``source``, a dequantise op, and the concatenation; its grid is set later."""
    first = source
    with graph.graph.inserting_before(node):
        if any(user.target in ops.QUANTIZE for user in source.users):  # for another concatenation
            first = graph.graph.call_function(source.target, source.args)  # type: ignore[arg-type]
            first.meta = dict(source.meta)
        again = graph.graph.call_function(ops.qd.quantize_per_tensor.default, (first, *source.args[1:]))
        back = graph.graph.call_function(source.target, (again, *source.args[1:]))  # type: ignore[arg-type]
    quantize = source.args[0]
    assert isinstance(quantize, fx.Node)
    again.meta, back.meta = dict(quantize.meta), dict(source.meta)
    node.replace_input_with(source, back)
    return again
