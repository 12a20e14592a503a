"""What only the int8 road does: ops spelled as others that every runtime has integer kernels for.

The function stays the same up to the rounding of float arithmetic. Done before quantisers are placed, in the
graph, so that fake-quantised training and every exporter see the same ops:

- a transposed convolution becomes a convolution that computes all phases of its stride as channels, and a
  pixel shuffle (Shi et al. 2016, arXiv 1609.05158, section 3): neither ONNX Runtime nor the LiteRT converter
  runs transposed convolutions on integers;
- a batch norm that no layer could take in becomes a depthwise 1x1 convolution, whose one weight a channel is
  exact on its grid;
- SiLU becomes ``x * sigmoid(x)``, attention its two matrix products and softmax;
- numbers in sums and products become constants, which get a grid like any tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.int8 import ops
from edgekit.int8.fold import statistics
from edgekit.int8.ops import aten
from edgekit.int8.scores import LONGEST_ROW


def lower(graph: fx.GraphModule) -> fx.GraphModule:
    """Rewrite the captured graph in place, and return it."""
    for node in list(graph.graph.nodes):
        rewrite = _REWRITES.get(node.target)
        if rewrite is None:
            continue
        with graph.graph.inserting_before(node):
            new = rewrite(graph, node)
        if new is not None:
            new.meta.setdefault("nn_module_stack", node.meta.get("nn_module_stack"))
            node.replace_all_uses_with(new)
            graph.graph.erase_node(node)  # torch takes attention for an op with side effects
    ops.refresh(graph)
    graph.delete_all_unused_submodules()
    return graph


# --- transposed convolutions -----------------------------------------------------------------------------


def _transposed(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    dims = 1 if node.target is aten.conv_transpose1d.default else 2
    settings: list[Any] = [*node.args, *(None, [1], [0], [0], 1, [1])[len(node.args) - 2 :]]
    source, weight_node, bias_node = settings[:3]
    stride, padding, extra = (_each(value, dims) for value in settings[3:6])
    groups, dilation = settings[6], _each(settings[7], dims)
    shape = ops.shape_of(source)
    plain = isinstance(weight_node, fx.Node) and weight_node.op == "get_attr" and len(weight_node.users) == 1
    if shape is None or not plain or set(dilation) != {1}:
        return None  # left as it is; coverage names it
    sizes = [int(size) for size in shape[2:]]
    name = str(weight_node.target)
    weight = ops.attribute(graph, name).detach()
    kernel = list(weight.shape[2:])
    results = [
        (n - 1) * s - 2 * p + k + e
        for n, s, p, k, e in zip(sizes, stride, padding, kernel, extra, strict=True)
    ]
    taps = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    first = [p // s for p, s in zip(padding, stride, strict=True)]
    last = [(p + o - 1) // s for p, o, s in zip(padding, results, stride, strict=True)]
    before = [t - 1 - f for t, f in zip(taps, first, strict=True)]
    after = [b - n + 1 for b, n in zip(last, sizes, strict=True)]
    ops.set_attribute(graph, name, torch.nn.Parameter(_phases(weight, stride, groups)))
    new_weight = graph.graph.create_node("get_attr", name)
    bias = None
    if isinstance(bias_node, fx.Node):
        values = ops.attribute(graph, str(bias_node.target)).detach()
        ops.set_attribute(
            graph, str(bias_node.target), torch.nn.Parameter(values.repeat_interleave(math.prod(stride)))
        )
        bias = graph.graph.create_node("get_attr", str(bias_node.target))
    if before != after or min(before) < 0:
        around = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
        source = graph.graph.call_function(aten.constant_pad_nd.default, (source, around, 0.0))
        before = [0] * dims
    convolution = aten.conv1d.default if dims == 1 else aten.conv2d.default
    arguments = (source, new_weight, bias, [1] * dims, before, [1] * dims, groups)
    phases = graph.graph.call_function(convolution, arguments)
    positions = [b - f + 1 for b, f in zip(last, first, strict=True)]
    result = _shuffle(graph, phases, stride, positions, weight.shape[1] * groups)
    for axis, (p, f, s, size) in enumerate(zip(padding, first, stride, results, strict=True)):
        start = p - f * s
        if (start, size) != (0, positions[axis] * s):
            arguments = (result, axis + 2, start, start + size)  # type: ignore[assignment]
            result = graph.graph.call_function(aten.slice.Tensor, arguments)
    return result


def _each(value: Any, dims: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * dims if len(values) == 1 else values


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


# --- the others ------------------------------------------------------------------------------------------


def _norm(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A batch norm as a depthwise 1x1 convolution: ``factor * x + offset``."""
    source = node.args[0]
    shape = ops.shape_of(source)
    convolution = {3: aten.conv1d.default, 4: aten.conv2d.default}.get(len(shape or ()))
    if convolution is None:
        return None
    assert isinstance(source, fx.Node)
    gamma, beta, mean, variance, eps = statistics(graph, node)
    factor = gamma / torch.sqrt(variance + eps)
    dims, dtype = len(shape or ()) - 2, ops.attribute(graph, str(node.args[3].target)).dtype  # type: ignore[union-attr]
    stem = str(node.args[3].target).removesuffix("running_mean").rstrip(".") or node.name  # type: ignore[union-attr]
    weight, bias = factor.to(dtype).reshape(-1, 1, *[1] * dims), (beta - mean * factor).to(dtype)

    def scaled(part: fx.Node, name: str, rows: slice) -> fx.Node:
        constants = [
            ops.constant_node(graph, f"{name}.{kind}", torch.nn.Parameter(value[rows].clone()))
            for kind, value in (("weight", weight), ("bias", bias))
        ]
        arguments = (part, *constants, [1] * dims, [0] * dims, [1] * dims, len(weight[rows]))
        return graph.graph.call_function(convolution, arguments)  # type: ignore[arg-type]

    joined = source.target is aten.cat.default and len(source.users) == 1 and source.args[1:] == (1,)
    if not joined:
        return scaled(source, f"{stem}.scale", slice(None))
    return _norm_of_parts(graph, node, source, lambda part, i, rows: scaled(part, f"{stem}.scale{i}", rows))


def _norm_of_parts(
    graph: fx.GraphModule, node: fx.Node, joined: fx.Node, scaled: Callable[[fx.Node, int, slice], fx.Node]
) -> fx.Node:
    """The norm (and a clamp behind it) of each part of a concatenation, instead of all on one grid.

    A norm makes quiet channels louder, and with them the steps of a grid that was chosen for loud ones; each
    part by itself keeps the grid that fits it (DenseNet: 10 dB with one grid, 30 dB so).
    """
    parts: list[fx.Node] = list(joined.args[0])  # type: ignore[arg-type]
    clamp = next(iter(node.users)) if len(node.users) == 1 else None
    done, start = [], 0
    for index, part in enumerate(parts):
        width = int(ops.shape_of(part)[1])  # type: ignore[index]
        new = scaled(part, index, slice(start, start + width))
        start += width
        if clamp is not None and clamp.target in ops.CLAMPS:
            new = graph.graph.call_function(clamp.target, (new, *clamp.args[1:]), clamp.kwargs)
        done.append(new)
    result = graph.graph.call_function(aten.cat.default, (done, 1))
    if clamp is not None and clamp.target in ops.CLAMPS:
        clamp.replace_all_uses_with(result)  # before the clamp's place in the graph, behind all of its parts
    return result


def _silu(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    gate = graph.graph.call_function(aten.sigmoid.default, (node.args[0],))
    return graph.graph.call_function(aten.mul.Tensor, (node.args[0], gate))


def _attention(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """softmax(q * scale @ k^T + mask) @ v (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1)."""
    query, key, value = node.args[:3]
    mask, _, causal = [*node.args[3:6], *(None, 0.0, False)[len(node.args) - 3 :]][:3]
    shape, key_shape = ops.shape_of(query), ops.shape_of(key)
    if shape is None or key_shape is None or node.kwargs.get("enable_gqa") or len(node.args) > 6:
        return None
    scale = node.kwargs.get("scale") or 1 / math.sqrt(int(shape[-1]))
    add = graph.graph.call_function
    turned = add(aten.transpose.int, (key, -2, -1))
    # A long row is float as a whole (see ``scores``): its factor needs no grid, and no rounding.
    long = not isinstance(key_shape[-2], int) or key_shape[-2] > LONGEST_ROW
    if long:
        scores = _scaled(graph, add(aten.matmul.default, (query, turned)), float(scale))  # type: ignore[arg-type]
    else:
        scores = add(aten.matmul.default, (_scaled(graph, query, float(scale)), turned))  # type: ignore[arg-type]
    if causal:
        length, width = int(shape[-2]), int(key_shape[-2])
        hidden = torch.ones(length, width, dtype=torch.bool).triu(1)
        scores = add(
            aten.masked_fill.Scalar,
            (scores, ops.constant_node(graph, f"{node.name}_hidden", hidden), -math.inf),
        )
    elif isinstance(mask, fx.Node):
        if mask.meta["val"].dtype is torch.bool:
            scores = add(aten.masked_fill.Scalar, (scores, add(aten.logical_not.default, (mask,)), -math.inf))
        else:
            scores = add(aten.add.Tensor, (scores, mask))
    return add(aten.matmul.default, (add(aten.softmax.int, (scores, -1)), value))


def _scaled(graph: fx.GraphModule, node: fx.Node, factor: float) -> fx.Node:
    constant = ops.constant_node(graph, f"{node.name}_factor", torch.tensor(factor))
    return graph.graph.call_function(aten.mul.Tensor, (node, constant))


def _number(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A number beside a float tensor as a constant tensor."""
    if node.kwargs or len(node.args) != 2 or not ops.is_float(node):
        return None
    first, second = node.args
    number = second if isinstance(first, fx.Node) else first
    if isinstance(number, fx.Node) or not math.isfinite(number):  # type: ignore[arg-type]
        return None
    constant = ops.constant_node(graph, f"{node.name}_number", torch.tensor(float(number)))  # type: ignore[arg-type]
    operands: Any = (first, constant) if number is second else (constant, second)
    target: Any = node.target
    return graph.graph.call_function(target, operands)


_REWRITES: dict[Any, Callable[[fx.GraphModule, fx.Node], fx.Node | None]] = {
    aten.conv_transpose1d.default: _transposed,
    aten.conv_transpose2d.input: _transposed,
    aten.batch_norm.default: _norm,
    aten.silu.default: _silu,
    aten.scaled_dot_product_attention.default: _attention,
    aten.add.Tensor: _number,
    aten.mul.Tensor: _number,
}
