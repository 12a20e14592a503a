"""Convolutions in groups of an int8 graph, as ONNX Runtime on x86 is faster with: in fewer, wider groups.

Its integer kernel multiplies one matrix for each group, of as many columns as a group has channels, and has
room for 32 of them at once. Groups side by side become one whose weights are zero where they don't meet:
the same integers, with more products and in less time (benchmarks/op_costs.py).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from edgekit.graph import ops

__all__ = ["merge_groups", "merged"]

_WIDE = 32  # channels of a group
_MOST = 64  # where no number of groups side by side has that many
_GROUPS = 6  # place of the number of groups among a convolution's arguments


def merge_groups(graph: fx.GraphModule) -> int:
    """Widen the groups of convolutions with int8 weights, in place.

    Args:
        graph: whose weights are integers already (``int8.grid.bake_weights``).

    Returns:
        How many convolutions there were.
    """
    found = 0
    for node in list(graph.graph.nodes):
        times = _times(node)
        weight = _baked(node) if times > 1 else None
        if weight is None:
            continue
        groups, pair = cast("int", node.args[_GROUPS]), cast("fx.Node", node.args[1])
        value = widened(ops.attribute(graph, str(weight.target)), groups, times)
        ops.set_attribute(graph, str(weight.target), value)
        weight.meta["val"] = value
        for one in list(pair.users):
            one.args = (*one.args[:_GROUPS], groups // times, *one.args[_GROUPS + 1 :])
        pair.meta["val"] = value.float()
        found += 1
    if found:
        graph.recompile()
    return found


def widened(weight: Tensor, groups: int, times: int) -> Tensor:
    """A weight (out, in / groups, …) for ``groups / times`` groups, (out, times · in / groups, …)."""
    out, width, *kernel = weight.shape
    wide = weight.new_zeros(groups // times, times, out // groups, times, width, *kernel)
    parts = weight.reshape(groups // times, times, out // groups, width, *kernel)
    for index in range(times):
        wide[:, index, :, index] = parts[:, index]
    return wide.reshape(out, times * width, *kernel)


def merged(weight: NDArray[Any], groups: int) -> int:
    """How many groups side by side were made one in a weight (out, in / groups, …), by its zeros."""
    out, width = weight.shape[:2]
    per_group = out // groups
    for times in range(min(width, per_group), 1, -1):
        if width % times or per_group % times:
            continue
        blocks = (weight != 0).reshape(groups, times, per_group // times, times, width // times, -1)
        met = blocks.any(axis=(0, 2, 4, 5))  # which part of a group reads which
        if not (met & ~np.eye(times, dtype=bool)).any():
            return times
    return 1


def _times(node: fx.Node) -> int:
    """How many groups of a convolution become one; 1 leaves it as it is."""
    if node.target not in (ops.aten.conv1d.default, ops.aten.conv2d.default) or len(node.args) <= _GROUPS:
        return 1
    groups, shape = cast("int", node.args[_GROUPS]), ops.shape_of(node.args[1])
    if groups == 1 or shape is None or shape[1] == 1:
        return 1
    width = max(int(shape[1]), int(shape[0]) // groups)
    divisors = [times for times in range(1, groups + 1) if groups % times == 0]
    fitting = max(times for times in divisors if times == 1 or times * width <= _WIDE)
    more = [times for times in divisors if fitting < times and times * width <= _MOST]
    return min(more) if fitting * width < _WIDE // 2 and more else fitting


def _baked(node: fx.Node) -> fx.Node | None:
    """The integers of a convolution's weight, where nothing but such convolutions reads them."""
    pair = node.args[1]
    if not isinstance(pair, fx.Node) or pair.target is not ops.qd.dequantize_per_channel.default:
        return None
    weight = pair.args[0]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr" or len(weight.users) != 1:
        return None
    alike = all(user.target is node.target and user.args[1] is pair for user in pair.users)
    same = all(user.args[_GROUPS:] == node.args[_GROUPS:] for user in pair.users)
    return weight if alike and same else None
