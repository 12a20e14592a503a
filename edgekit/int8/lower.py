"""What only the int8 path does: ops spelled as others that every runtime has integer kernels for.

The function stays the same up to the rounding of float arithmetic. Done before quantisers are placed, in the
graph, so that fake-quantised training and every exporter see the same ops:

- a transposed convolution becomes a convolution (``transposed.py``); bicubic resizing two linear layers, a
  pooling whose last window is cut off several (``resampling.py``);
- a batch norm that no layer could take in becomes a depthwise 1x1 convolution, whose one weight a channel is
  exact on its grid;
- SiLU becomes ``x * sigmoid(x)``, hard-swish and hard-sigmoid sums and products whose grid does the clamping,
  attention its two matrix products and softmax;
- numbers in sums and products become constants, which get a grid like any tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.graph import ops
from edgekit.graph.fold import statistics
from edgekit.graph.ops import aten
from edgekit.graph.resampling import as_linear, without_ceil
from edgekit.graph.transposed import as_convolution
from edgekit.int8.scores import LONGEST_ROW

_SPREAD = 4.0  # standard deviations, from a channel's mean to about its largest value
_THREE = 2.99997
_AS_LOUD = 2.0  # times, at most, among parts of a concatenation that keep one grid


def lower(graph: fx.GraphModule) -> fx.GraphModule:
    """Rewrite the captured graph in place, and return it."""
    for node in list(graph.graph.nodes):
        rewrite = _REWRITES.get(node.target)
        if rewrite is not None:
            _replace(graph, node, rewrite)
    ops.refresh(graph)
    graph.delete_all_unused_submodules()
    return graph


def attention_in_products(graph: fx.GraphModule, wanted: Callable[[fx.Node], bool]) -> None:
    """Spell those attentions that are ``wanted`` as their two matrix products and softmax, in place."""
    attention = aten.scaled_dot_product_attention.default
    found = [node for node in graph.graph.nodes if node.target is attention and wanted(node)]
    for node in found:
        _replace(graph, node, _attention)
    if found:
        ops.refresh(graph)


def _replace(
    graph: fx.GraphModule, node: fx.Node, rewrite: Callable[[fx.GraphModule, fx.Node], fx.Node | None]
) -> None:
    with graph.graph.inserting_before(node):
        new = rewrite(graph, node)
    if new is not None:
        _name(new, node.meta.get("nn_module_stack"))
        new.meta.setdefault("val", node.meta.get("val"))
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)  # torch takes attention for an op with side effects


def _name(new: fx.Node, stack: Any) -> None:
    """Say of which layer ``new`` is, and all that was made for it: what has no shape yet."""
    todo = [new]
    while todo:
        node = todo.pop()
        if node.op == "call_function" and "val" not in node.meta and "nn_module_stack" not in node.meta:
            node.meta["nn_module_stack"] = stack
            todo += node.all_input_nodes


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
    stem = unused(graph, stem)
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
    loudness = mean.abs() + _SPREAD * variance.sqrt()
    return _norm_of_parts(
        graph, node, source, loudness, lambda part, i, rows: scaled(part, f"{stem}.scale{i}", rows)
    )


def unused(graph: fx.GraphModule, stem: str) -> str:
    """``stem``, with a number behind it where a norm that is used twice has taken ``stem`` already."""
    taken = {name for name, _ in graph.named_parameters()}
    numbers = (f"{stem}{number or ''}" for number in range(len(taken) + 1))
    return next(s for s in numbers if not {f"{s}.scale.weight", f"{s}.scale0.weight"} & taken)


def _norm_of_parts(
    graph: fx.GraphModule,
    node: fx.Node,
    joined: fx.Node,
    loudness: Tensor,
    scaled: Callable[[fx.Node, int, slice], fx.Node],
) -> fx.Node:
    """The norm (and a clamp behind it) of each part of a concatenation, instead of all on one grid.

    A norm makes quiet channels louder, and with them the steps of a grid that was chosen for loud ones; parts
    by themselves keep the grid that fits them (DenseNet: 10 dB with one grid, 30 dB so). Neighbours that are
    about as loud as each other stay together: in a dense block, parts grow with the square of its depth.
    """
    parts = _as_loud(graph, joined, loudness)
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


def _as_loud(graph: fx.GraphModule, joined: fx.Node, loudness: Tensor) -> list[fx.Node]:
    """The parts of a concatenation, neighbours joined as long as none is much louder than another.

    ``loudness``: (C,) about the largest values of each channel, by the statistics of a norm.
    """
    runs: list[list[fx.Node]] = []
    least = most = start = 0.0
    parts: list[fx.Node] = list(joined.args[0])  # type: ignore[arg-type]
    for part in parts:
        width = int(ops.shape_of(part)[1])  # type: ignore[index]
        loud = float(loudness[int(start) : int(start) + width].max())
        start += width
        if runs and max(most, loud) <= _AS_LOUD * min(least, loud):
            runs[-1].append(part)
            least, most = min(least, loud), max(most, loud)
        else:
            runs.append([part])
            least = most = loud
    if len(runs) == 1:
        return [joined]
    return [run[0] if len(run) == 1 else _joined(graph, run) for run in runs]


def _joined(graph: fx.GraphModule, parts: list[fx.Node]) -> fx.Node:
    node = graph.graph.call_function(aten.cat.default, (parts, 1))
    values = [part.meta["val"] for part in parts]
    shape = [values[0].shape[0], sum(value.shape[1] for value in values), *values[0].shape[2:]]
    node.meta["val"] = values[0].new_empty(shape)
    return node


def _silu(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    gate = graph.graph.call_function(aten.sigmoid.default, (node.args[0],))
    return graph.graph.call_function(aten.mul.Tensor, (node.args[0], gate))


def _hardsigmoid(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """``clamp(x + 3, 0, 6) / 6``: LiteRT's fast kernels on integers are those of sums and products."""
    return _scaled(graph, _shifted(graph, node), 1 / 6, len(ops.shape_of(node) or ()))


def _hardswish(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """``x * clamp(x + 3, 0, 6) / 6`` (Howard et al. 2019, "Searching for MobileNetV3", section 5.2)."""
    product = graph.graph.call_function(aten.mul.Tensor, (node.args[0], _shifted(graph, node)))
    return _scaled(graph, product, 1 / 6, len(ops.shape_of(node) or ()))


def _shifted(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """``clamp(x + 3, 0, 6)``. Its grid ends where the clamp does, so that no op is needed for that.

    Exactly 3 would be 127.5 of its steps, and whether zero is rounded up or down each runtime's own affair.
    """
    shape = [1] * len(ops.shape_of(node) or ())
    three = ops.constant_node(graph, f"{node.name}_three", torch.full(shape, _THREE))
    total = graph.graph.call_function(aten.add.Tensor, (node.args[0], three))
    return graph.graph.call_function(aten.hardtanh.default, (total, 0.0, 6.0))


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


def _scaled(graph: fx.GraphModule, node: fx.Node, factor: float, dims: int = 0) -> fx.Node:
    """``dims``: of the factor. With as many as ``node`` has, LiteRT's converter keeps channels last."""
    constant = ops.constant_node(graph, f"{node.name}_factor", torch.full([1] * dims, factor))
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
    aten.conv_transpose1d.default: as_convolution,
    aten.conv_transpose2d.input: as_convolution,
    aten.upsample_bicubic2d.vec: as_linear,
    aten.avg_pool1d.default: without_ceil,
    aten.avg_pool2d.default: without_ceil,
    aten.batch_norm.default: _norm,
    aten.silu.default: _silu,
    aten.hardsigmoid.default: _hardsigmoid,
    aten.hardswish.default: _hardswish,
    aten.scaled_dot_product_attention.default: _attention,
    aten.add.Tensor: _number,
    aten.mul.Tensor: _number,
}
