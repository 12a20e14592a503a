"""Training-time branches become one convolution: RepVGG, MobileOne and their kin, fused exactly.

A sum of convolutions that read the same tensor is a convolution whose kernel is the sum of theirs, the
smaller ones padded with zeros; a batch norm of that tensor is a 1x1 convolution with a diagonal kernel
(Ding et al. 2021, RepVGG, arXiv 2101.03697, section 3.3; Vasu et al. 2022, MobileOne, arXiv 2206.04040).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.graph import ops
from edgekit.graph.fold import statistics

_CONVOLUTIONS = {ops.aten.conv1d.default: 1, ops.aten.conv2d.default: 2}


@dataclass(frozen=True)
class _Branch:
    """One term of the sum: ``weight`` (out, in / groups, k…) and ``bias`` (out) in float64."""

    node: fx.Node
    weight: Tensor
    bias: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    name: str


def fuse_branches(graph: fx.GraphModule) -> int:
    """Replace sums of branches in place, after batch norms were folded. Returns how many were replaced."""
    fused = 0
    for node in list(graph.graph.nodes):
        if (
            node.target is ops.aten.add.Tensor
            and len(node.args) == 2
            and not node.kwargs
            and _fuse(graph, node)
        ):
            fused += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return fused


def _fuse(graph: fx.GraphModule, total: fx.Node) -> bool:
    first, second = total.args
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node) or first is second:
        return False
    if len(first.users) != 1 or len(second.users) != 1 or not _same_input(first, second):
        return False
    convolution = next((node for node in (first, second) if node.target in _CONVOLUTIONS), None)
    if convolution is None or ops.shape_of(first) != ops.shape_of(second):
        return False
    groups = _argument(convolution, 6, 1)
    one, other = (_branch(graph, node, convolution, groups) for node in (first, second))
    if one is None or other is None:
        return False
    size = {branch.name: branch.weight[0, 0].numel() if branch.name else 0 for branch in (one, other)}
    large, small = (one, other) if size[one.name] >= size[other.name] else (other, one)  # never the norm
    if (large.stride, large.groups) != (small.stride, small.groups):
        return False
    placed = _place(small, large)
    if placed is None:
        return False
    _replace(graph, total, large, large.weight + placed, large.bias + small.bias)
    return True


def _same_input(first: fx.Node, second: fx.Node) -> bool:
    known = _CONVOLUTIONS.keys() | {ops.aten.batch_norm.default}
    return first.target in known and second.target in known and first.args[0] is second.args[0]


def _argument(node: fx.Node, index: int, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else default


def _branch(graph: fx.GraphModule, node: fx.Node, beside: fx.Node, groups: int) -> _Branch | None:
    dims = _CONVOLUTIONS[beside.target]  # type: ignore[index]
    if node.target is ops.aten.batch_norm.default:
        return _norm_branch(graph, node, beside, dims, groups)
    weight, bias = node.args[1], _argument(node, 2, None)
    constants = [value for value in (weight, bias) if value is not None]
    if any(not isinstance(v, fx.Node) or v.op != "get_attr" or len(v.users) != 1 for v in constants):
        return None
    assert isinstance(weight, fx.Node)
    values = ops.attribute(graph, str(weight.target)).detach().double()
    offset = torch.zeros(len(values), dtype=torch.float64)
    if isinstance(bias, fx.Node):
        offset = ops.attribute(graph, str(bias.target)).detach().double()
    settings = [_tuple(_argument(node, index, default), dims) for index, default in ((3, 1), (4, 0), (5, 1))]
    stride, padding, dilation = settings
    groups = _argument(node, 6, 1)
    return _Branch(node, values, offset, stride, padding, dilation, groups, str(weight.target))


def _tuple(value: Any, dims: int) -> tuple[int, ...]:
    values = [value] if isinstance(value, int) else list(value)
    return tuple(values * dims if len(values) == 1 else values)


def _norm_branch(
    graph: fx.GraphModule, node: fx.Node, beside: fx.Node, dims: int, groups: int
) -> _Branch | None:
    """``gamma * (x - mean) / sqrt(var + eps) + beta`` as a 1x1 convolution with a diagonal kernel."""
    gamma, beta, mean, variance, eps = statistics(graph, node)
    factor = gamma / torch.sqrt(variance + eps)
    channels = len(factor)
    if channels % groups:
        return None
    weight = torch.zeros(channels, channels // groups, *[1] * dims, dtype=torch.float64)
    rows = torch.arange(channels)
    weight.reshape(channels, -1)[rows, rows % (channels // groups)] = factor
    ones, zeros = (1,) * dims, (0,) * dims
    return _Branch(node, weight, beta - mean * factor, ones, zeros, ones, groups, "")


def _place(small: _Branch, large: _Branch) -> Tensor | None:
    """The small kernel in one of the large one's size, where it reads the same pixels; None if it can't."""
    placed = torch.zeros_like(large.weight)
    window: list[slice] = []
    for axis, size in enumerate(large.weight.shape[2:]):
        small_size, dilation = small.weight.shape[2 + axis], large.dilation[axis]
        distance = large.padding[axis] - small.padding[axis]
        start, rest = divmod(distance, dilation)
        fits = start >= 0 and start + small_size <= size
        if rest or not fits or (small_size > 1 and small.dilation[axis] != dilation):
            return None
        window.append(slice(start, start + small_size))
    placed[(slice(None), slice(None), *window)] = small.weight
    return placed


def _replace(graph: fx.GraphModule, total: fx.Node, large: _Branch, weight: Tensor, bias: Tensor) -> None:
    node, dtype = large.node, ops.attribute(graph, large.name).dtype
    ops.set_attribute(graph, large.name, torch.nn.Parameter(weight.to(dtype)))
    bias_name = large.name.removesuffix("weight") + ("bias" if large.name.endswith("weight") else "_bias")
    ops.set_attribute(graph, bias_name, torch.nn.Parameter(bias.to(dtype)))
    # Behind both branches: the input stands in front of either.
    with graph.graph.inserting_before(total):
        weight_node = graph.graph.create_node("get_attr", large.name)
        bias_node = graph.graph.create_node("get_attr", bias_name)
        weight_node.meta["val"] = ops.attribute(graph, large.name).detach()
        bias_node.meta["val"] = ops.attribute(graph, bias_name).detach()
        arguments = (node.args[0], weight_node, bias_node, *node.args[3:])
        fused = graph.graph.call_function(node.target, arguments)  # type: ignore[arg-type]
    fused.meta = dict(node.meta)
    total.replace_all_uses_with(fused)
    graph.graph.eliminate_dead_code()
