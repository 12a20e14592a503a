"""Nearest up-sampling of integers as ONNX Runtime has it fast.

It doubles rows and columns quickly where these are the last axes of four. Between integer convolutions it
brings Resize into its own order of axes first, channels last, where that takes 8 times as long.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from edgekit.graph import ops
from edgekit.graph.ops import aten

__all__ = ["double_by_itself"]

_NEAREST = {aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default}
_PAIR = ops.qd.quantize_per_tensor.default, ops.qd.dequantize_per_tensor.default


def double_by_itself(graph: fx.GraphModule) -> int:
    """Put reshapes around up-samplings by powers of two between integers, in place, and double step by step.

    Behind a reshape ONNX Runtime leaves the order of axes alone. The numbers stay the same.

    Returns:
        How many there were.
    """
    found = 0
    for node in list(graph.graph.nodes):
        source: Any = node.args[0] if node.args else None
        doublings = _doublings(node)
        if not doublings or source.target is not _PAIR[1]:
            continue
        if not all(user.target is _PAIR[0] and user.args[1:3] == source.args[1:3] for user in node.users):
            continue
        with graph.graph.inserting_before(node):
            value = _spelled(graph, source, doublings)
        value.meta = dict(node.meta)
        node.replace_all_uses_with(value)
        graph.graph.erase_node(node)
        found += 1
    if found:
        graph.recompile()
    return found


def _doublings(node: fx.Node) -> int:
    """How often rows and columns are doubled; 0 for anything else."""
    if node.target not in _NEAREST:
        return 0
    before, after = ops.shape_of(node.args[0]), ops.shape_of(node)
    if before is None or after is None or any(not isinstance(one, int) for one in (*before[1:], *after[1:])):
        return 0
    rows, columns = (int(new) / int(old) for old, new in zip(before[2:], after[2:], strict=True))
    return int(rows).bit_length() - 1 if rows == columns and rows in (2, 4, 8, 16) else 0


def _spelled(graph: fx.GraphModule, source: fx.Node, doublings: int) -> fx.Node:
    shape = ops.shape_of(source)
    assert shape is not None
    channels, rows, columns = (int(one) for one in shape[1:])
    grid = source.args[1:]
    steps: list[tuple[Any, tuple[Any, ...]]] = [(aten.reshape.default, ([-1, 1, rows, columns],))]
    steps += [(aten.upsample_nearest2d.vec, (None, [2.0, 2.0]))] * doublings
    steps += [(aten.reshape.default, ([-1, channels, rows << doublings, columns << doublings],))]
    value = source
    for index, (op, arguments) in enumerate(steps):
        value = graph.graph.call_function(op, (value, *arguments))
        for step in _PAIR if index < len(steps) - 1 else ():
            value = graph.graph.call_function(step, (value, *grid))
    return value
