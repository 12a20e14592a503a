"""Batch norm folding: exact, in the captured graph, whatever module the op came from."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from edgekit.int8 import ops


def fold_batch_norm(graph: fx.GraphModule) -> int:
    """Fold every batch norm that follows a convolution or a linear layer into its weight and bias.

    With ``factor = gamma / sqrt(variance + eps)`` per output channel: ``weight * factor`` and
    ``(bias - mean) * factor + beta`` (Jacob et al. 2018, arXiv 1712.05877, section 3.2). Computed in
    float64. A batch norm is left alone where the fold would not be exact: its producer has other consumers,
    shares its weight with another op, or is a linear layer over more than two dimensions (batch norm then
    normalises another dimension).

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
    producer = norm.args[0]
    if not isinstance(producer, fx.Node) or producer.target not in ops.WEIGHTED or len(producer.users) != 1:
        return False
    weight_node = producer.args[1]
    if not isinstance(weight_node, fx.Node) or weight_node.op != "get_attr" or len(weight_node.users) != 1:
        return False
    shape = ops.shape_of(producer)
    if producer.target in ops.LINEAR and (shape is None or len(shape) != 2):
        return False
    gamma, beta, mean, variance, eps = _statistics(graph, norm)
    factor = gamma / torch.sqrt(variance + eps)

    name = str(weight_node.target)
    weight = ops.attribute(graph, name)
    scaled = _scale_output_channels(weight.double(), factor, producer)
    ops.set_attribute(graph, name, torch.nn.Parameter(scaled.to(weight.dtype)))

    bias_node = producer.args[2] if len(producer.args) > 2 else None
    old_bias = ops.attribute(graph, str(bias_node.target)).double() if isinstance(bias_node, fx.Node) else 0.0
    bias = ((old_bias - mean) * factor + beta).to(weight.dtype)
    bias_name = name.removesuffix("weight") + ("bias" if name.endswith("weight") else "_bias")
    ops.set_attribute(graph, bias_name, torch.nn.Parameter(bias))
    with graph.graph.inserting_before(producer):
        new_bias = graph.graph.create_node("get_attr", bias_name)
    new_bias.meta["val"] = bias
    args = list(producer.args)
    args[2:3] = [new_bias]
    producer.args = tuple(args)
    result = next(iter(norm.users)) if norm.target is not ops.aten.batch_norm.default else norm
    result.replace_all_uses_with(producer)
    return True


def _statistics(graph: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
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
