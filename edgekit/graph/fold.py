"""Batch norm folding: exact, in the captured graph, whatever module the op came from."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, fx

from edgekit.graph import ops


def fold_batch_norm(graph: fx.GraphModule) -> int:
    """Fold every batch norm that follows a convolution or a linear layer into its weight and bias.

    With ``factor = gamma / sqrt(variance + eps)`` per output channel: ``weight * factor`` and
    ``(bias - mean) * factor + beta`` (Jacob et al. 2018, arXiv 1712.05877, section 3.2). Computed in
    float64. A batch norm is left alone where the fold would not be exact: its producer has other consumers,
    shares its weight with another op, or is a linear layer over more than two dimensions (batch norm then
    normalises another dimension). Joined rows, ``norm(x.flatten(0, 1))``, are no matter.

    Returns:
        How many were folded.
    """
    folded = 0
    for node in list(graph.graph.nodes):
        if node.target not in ops.BATCH_NORM:
            continue
        if _fold(graph, node):
            folded += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    graph.delete_all_unused_submodules()
    return folded


def _fold(graph: fx.GraphModule, norm: fx.Node) -> bool:
    between = norm.args[0] if _joins_rows(norm.args[0]) else None
    producer = between.args[0] if between is not None else norm.args[0]
    if not isinstance(producer, fx.Node) or producer.target not in ops.WEIGHTED or len(producer.users) != 1:
        return False
    weight_node = producer.args[1]
    if not isinstance(weight_node, fx.Node) or weight_node.op != "get_attr" or len(weight_node.users) != 1:
        return False
    shape = ops.shape_of(producer)
    if producer.target in ops.LINEAR and between is None and (shape is None or len(shape) != 2):
        return False
    if between is not None and producer.target not in ops.LINEAR:
        return False
    gamma, beta, mean, variance, eps = statistics(graph, norm)
    factor = gamma / torch.sqrt(variance + eps)

    name = str(weight_node.target)
    weight = ops.attribute(graph, name)
    scaled = _scale_output_channels(weight.double(), factor, producer)
    ops.set_attribute(graph, name, torch.nn.Parameter(scaled.to(weight.dtype)))

    bias_node = producer.args[2] if len(producer.args) > 2 else None
    old_bias = ops.attribute(graph, str(bias_node.target)).double() if isinstance(bias_node, fx.Node) else 0.0
    bias = ((old_bias - mean) * factor + beta).to(weight.dtype)
    set_bias(graph, producer, bias)
    result = next(iter(norm.users)) if norm.target is not ops.aten.batch_norm.default else norm
    result.replace_all_uses_with(producer if between is None else between)
    if between is not None:  # rows that were joined for the norm alone
        for user in list(between.users):
            if user.target is ops.aten.reshape.default and ops.shape_of(user) == shape:
                user.replace_all_uses_with(producer)
    return True


def _joins_rows(node: Any) -> TypeGuard[fx.Node]:
    """Whether a reshape, which nothing else reads, gives (rows, channels) of (…, channels)."""
    if not isinstance(node, fx.Node) or node.target not in _RESHAPES or len(node.users) != 1:
        return False
    before, after = ops.shape_of(node.args[0]), ops.shape_of(node)
    return before is not None and after is not None and len(after) == 2 and before[-1] == after[-1]


_RESHAPES = {ops.aten.reshape.default, ops.aten.flatten.using_ints}


def statistics(graph: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """gamma, beta, running mean and running variance (each (C), float64), and eps of a batch norm node."""
    _, gamma, beta, mean, variance = norm.args[:5]
    eps = norm.args[7] if norm.target is ops.aten.batch_norm.default else norm.args[6]
    mean_value = ops.attribute(graph, str(mean.target)).double()  # type: ignore[union-attr]
    variance_value = ops.attribute(graph, str(variance.target)).double()  # type: ignore[union-attr]
    one, zero = torch.ones_like(mean_value), torch.zeros_like(mean_value)
    return (
        ops.attribute(graph, str(gamma.target)).double() if isinstance(gamma, fx.Node) else one,
        ops.attribute(graph, str(beta.target)).double() if isinstance(beta, fx.Node) else zero,
        mean_value,
        variance_value,
        float(eps),  # type: ignore[arg-type]
    )


def _scale_output_channels(weight: Tensor, factor: Tensor, producer: fx.Node) -> Tensor:
    if producer.target not in ops.TRANSPOSED:
        return weight * factor.reshape(-1, *[1] * (weight.dim() - 1))
    # A transposed convolution's weight is (in, out / groups, ...), its groups stacked along "in".
    groups = int(producer.args[6]) if len(producer.args) > 6 else 1  # type: ignore[arg-type]
    per_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    scale = factor.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
    return (per_group * scale).reshape(weight.shape)


def fold_affine(graph: fx.GraphModule) -> int:
    """Fold factors and offsets that stand behind a convolution or linear layer into it, in place.

    A constant that is one number, or one for each output channel, times (plus) the layer's output equals a
    layer with scaled weights (a shifted bias): layer scale (Touvron et al. 2021, arXiv 2103.17239) and
    normalisation written out by hand disappear. Computed in float64. Returns how many were folded.
    """
    folded = 0
    for node in list(graph.graph.nodes):
        if node.target in (ops.aten.mul.Tensor, ops.aten.add.Tensor) and _fold_affine(graph, node):
            folded += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return folded


def _fold_affine(graph: fx.GraphModule, node: fx.Node) -> bool:
    if len(node.args) != 2 or node.kwargs:
        return False
    producer, constant = node.args
    if not isinstance(producer, fx.Node) or producer.target not in ops.WEIGHTED:
        producer, constant = constant, producer
    if not isinstance(producer, fx.Node) or producer.target not in ops.WEIGHTED or len(producer.users) != 1:
        return False
    weight_node = producer.args[1]
    if not isinstance(weight_node, fx.Node) or weight_node.op != "get_attr" or len(weight_node.users) != 1:
        return False
    name = str(weight_node.target)
    weight = ops.attribute(graph, name)
    values = _per_channel(graph, constant, producer)
    if values is None:
        return False
    bias_node = producer.args[2] if len(producer.args) > 2 else None
    if isinstance(bias_node, fx.Node) and (bias_node.op != "get_attr" or len(bias_node.users) != 1):
        return False
    bias = torch.zeros_like(values)
    if isinstance(bias_node, fx.Node):
        bias = ops.attribute(graph, str(bias_node.target)).detach().double()
    if node.target is ops.aten.mul.Tensor:
        scaled = _scale_output_channels(weight.detach().double(), values, producer)
        ops.set_attribute(graph, name, torch.nn.Parameter(scaled.to(weight.dtype)))
        bias = bias * values
    else:
        bias = bias + values
    set_bias(graph, producer, bias.to(weight.dtype))
    node.replace_all_uses_with(producer)
    graph.graph.erase_node(node)
    return True


def _per_channel(graph: fx.GraphModule, constant: Any, producer: fx.Node) -> Tensor | None:
    """The constant as (out channels) in float64, if that is what it broadcasts to."""
    shape = ops.shape_of(producer)
    if shape is None:
        return None
    axis = len(shape) - 1 if producer.target in ops.LINEAR else 1
    channels = shape[axis]
    if isinstance(constant, int | float) and not isinstance(constant, bool):
        return torch.full((int(channels),), float(constant), dtype=torch.float64)
    if not isinstance(constant, fx.Node) or constant.op != "get_attr":
        return None
    value = ops.attribute(graph, str(constant.target)).detach().double()
    if value.dim() > len(shape):
        return None
    sizes = [1] * (len(shape) - value.dim()) + list(value.shape)
    if any(size != 1 for index, size in enumerate(sizes) if index != axis):
        return None
    return value.reshape(-1).expand(int(channels)).clone()


def set_bias(graph: fx.GraphModule, producer: fx.Node, bias: Tensor) -> None:
    """Give a convolution or linear node this bias (out channels), named after its weight."""
    weight_node = producer.args[1]
    assert isinstance(weight_node, fx.Node)
    name = str(weight_node.target)
    bias_name = name.removesuffix("weight") + ("bias" if name.endswith("weight") else "_bias")
    ops.set_attribute(graph, bias_name, torch.nn.Parameter(bias))
    with graph.graph.inserting_before(producer):
        new_bias = graph.graph.create_node("get_attr", bias_name)
    new_bias.meta["val"] = bias
    args = list(producer.args)
    args[2:3] = [new_bias]
    producer.args = tuple(args)
