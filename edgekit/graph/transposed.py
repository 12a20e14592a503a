"""Transposed convolutions as convolutions: the phases of the stride as channels, and a pixel shuffle.

(Shi et al. 2016, arXiv 1609.05158, section 3.) Neither ONNX Runtime nor the LiteRT converter runs transposed
convolutions on integers, and the latter knows few of their settings in float.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.graph import ops
from edgekit.graph.ops import aten

DIMENSIONS = {aten.conv_transpose1d.default: 1, aten.conv_transpose2d.input: 2}


@dataclass(frozen=True)
class Settings:
    """Of a transposed convolution, one number for each dimension of space."""

    stride: list[int]
    padding: list[int]
    extra: list[int]
    dilation: list[int]
    groups: int

    @classmethod
    def of(cls, node: fx.Node) -> Settings:
        """As they stand at the node, defaults filled in."""
        dims = DIMENSIONS[node.target]  # type: ignore[index]
        values: list[Any] = [*node.args, *(None, [1], [0], [0], 1, [1])[len(node.args) - 2 :]]
        stride, padding, extra = (ops.for_each_axis(value, dims) for value in values[3:6])
        return cls(stride, padding, extra, ops.for_each_axis(values[7], dims), values[6])


def as_convolution(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The same as other ops, in front of ``node``; None (nothing done) where the weight is computed."""
    source, weight_node = node.args[:2]
    bias_node = node.args[2] if len(node.args) > 2 else None
    shape = ops.shape_of(source)
    if shape is None or not _is_parameter(weight_node) or not (bias_node is None or _is_parameter(bias_node)):
        return None
    assert isinstance(source, fx.Node)
    assert isinstance(weight_node, fx.Node)
    settings = Settings.of(node)
    weight = ops.attribute(graph, str(weight_node.target)).detach()
    channels = weight.shape[1] * settings.groups
    stride, dilation = settings.stride, settings.dilation
    if set(stride) != {1}:  # an ordinary convolution can be dilated, but its phases can't
        weight, dilation = _spread(weight, dilation), [1] * len(stride)
    geometry = _Geometry.of([int(size) for size in shape[2:]], list(weight.shape[2:]), settings, dilation)
    new_weight = _parameter(graph, weight_node, _phases(weight, stride, settings.groups))
    bias = None
    if isinstance(bias_node, fx.Node):
        values = ops.attribute(graph, str(bias_node.target)).detach()
        bias = _parameter(graph, bias_node, values.repeat_interleave(math.prod(stride)))
    before, after = geometry.before, geometry.after
    if before != after or min(before) < 0:
        around = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
        source = graph.graph.call_function(aten.constant_pad_nd.default, (source, around, 0.0))
        before = [0] * len(stride)
    convolution = aten.conv1d.default if len(stride) == 1 else aten.conv2d.default
    arguments = (source, new_weight, bias, [1] * len(stride), before, dilation, settings.groups)
    phases = graph.graph.call_function(convolution, arguments)
    result = _shuffle(graph, phases, stride, geometry.positions, channels)
    return _cut(graph, result, geometry, stride)


def _is_parameter(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr"


def _parameter(graph: fx.GraphModule, node: fx.Node, value: Tensor) -> fx.Node:
    """In the place of the old one, or beside it where something else reads that as well."""
    name = str(node.target)
    if len(node.users) > 1:
        stem, _, leaf = name.rpartition(".")
        taken = {known for known, _ in graph.named_parameters()}
        names = (f"{stem}.phases{number}.{leaf}".lstrip(".") for number in range(len(taken) + 1))
        name = next(known for known in names if known not in taken)
    return ops.constant_node(graph, name, torch.nn.Parameter(value))


@dataclass(frozen=True)
class _Geometry:
    """Of the convolution: its ``positions``, its padding ``before`` and ``after``; of the shuffled result:
    where the answer stands in it (``start``, ``size``).
    """

    before: list[int]
    after: list[int]
    positions: list[int]
    start: list[int]
    size: list[int]

    @classmethod
    def of(cls, sizes: list[int], kernel: list[int], settings: Settings, dilation: list[int]) -> _Geometry:
        axes = range(len(sizes))
        n, k, d = sizes, kernel, dilation
        s, p, extra = settings.stride, settings.padding, settings.extra
        result = [(n[i] - 1) * s[i] - 2 * p[i] + d[i] * (k[i] - 1) + 1 + extra[i] for i in axes]
        reach = [d[i] * (-(-k[i] // s[i]) - 1) for i in axes]
        first = [p[i] // s[i] for i in axes]
        last = [(p[i] + result[i] - 1) // s[i] for i in axes]
        return cls(
            before=[reach[i] - first[i] for i in axes],
            after=[last[i] - n[i] + 1 for i in axes],
            positions=[last[i] - first[i] + 1 for i in axes],
            start=[p[i] - first[i] * s[i] for i in axes],
            size=result,
        )


def _spread(weight: Tensor, dilation: list[int]) -> Tensor:
    """The kernel with zeros where a dilated one has gaps."""
    if set(dilation) == {1}:
        return weight
    sizes = [rate * (size - 1) + 1 for rate, size in zip(dilation, weight.shape[2:], strict=True)]
    spread = weight.new_zeros(*weight.shape[:2], *sizes)
    spread[(slice(None), slice(None), *(slice(None, None, rate) for rate in dilation))] = weight
    return spread


def _cut(graph: fx.GraphModule, result: fx.Node, geometry: _Geometry, stride: list[int]) -> fx.Node:
    for axis, (start, size) in enumerate(zip(geometry.start, geometry.size, strict=True)):
        if (start, size) != (0, geometry.positions[axis] * stride[axis]):
            arguments = (result, axis + 2, start, start + size)
            result = graph.graph.call_function(aten.slice.Tensor, arguments)
    return result


def _phases(weight: Tensor, stride: list[int], groups: int) -> Tensor:
    """(in, out / groups, k…) as (out * phases, in / groups, taps…): a convolution for each phase.

    Output ``q * stride + r`` (counted before the padding is cut) sums ``x[q - m] * w[r + stride * m]`` over
    m, which is a convolution over q with the taps in reverse order.
    """
    dims = len(stride)
    taps = [-(-k // s) for k, s in zip(weight.shape[2:], stride, strict=True)]
    missing = [t * s - k for t, s, k in zip(taps, stride, weight.shape[2:], strict=True)]
    weight = torch.nn.functional.pad(weight, [size for m in reversed(missing) for size in (0, m)])
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    split = [size for t, s in zip(taps, stride, strict=True) for size in (t, s)]
    parts = weight.reshape(groups, inputs, outputs, *split)
    taps_at, phases_at = [3 + 2 * i for i in range(dims)], [4 + 2 * i for i in range(dims)]
    parts = parts.permute(0, 2, *phases_at, 1, *taps_at)
    parts = parts.flip([3 + dims + i for i in range(dims)])
    return parts.reshape(groups * outputs * math.prod(stride), inputs, *taps).contiguous()


def _shuffle(
    graph: fx.GraphModule, phases: fx.Node, stride: list[int], positions: list[int], channels: int
) -> fx.Node:
    """(N, channels * phases, q…) to (N, channels, q * stride…)."""
    if set(stride) == {1}:
        return phases
    if len(stride) == 2 and stride[0] == stride[1]:
        return graph.graph.call_function(aten.pixel_shuffle.default, (phases, stride[0]))
    dims = len(stride)
    split = graph.graph.call_function(aten.reshape.default, (phases, [-1, channels, *stride, *positions]))
    order = [0, 1, *(axis for i in range(dims) for axis in (2 + dims + i, 2 + i))]
    moved = graph.graph.call_function(aten.permute.default, (split, order))
    sizes = [q * s for q, s in zip(positions, stride, strict=True)]
    return graph.graph.call_function(aten.reshape.default, (moved, [-1, channels, *sizes]))
