"""The ATen ops that the int8 graph knows, by the role that they play in it."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

# Registers the quantized_decomposed namespace, which torch itself doesn't load on import.
from torch.ao.quantization.fx import _decomposed  # noqa: F401

aten = torch.ops.aten
qd = torch.ops.quantized_decomposed

CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.convolution.default,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
}
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input}
LINEAR = {aten.linear.default}
WEIGHTED = CONVOLUTIONS | LINEAR
BATCH_NORM = {aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default}
# Ops whose result, quantised, equals a clamp of the grid when the range is chosen to fit.
CLAMPS = {
    aten.relu.default,
    aten.relu6.default,
    aten.hardtanh.default,
    aten.clamp.default,
    aten.clamp_min.default,
}
SUMS = {aten.add.Tensor, aten.sub.Tensor}
PRODUCTS = {aten.mul.Tensor}
MATMULS = {aten.matmul.default, aten.bmm.default}
MEANS = {aten.mean.dim, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool1d.default}
CONCATENATIONS = {aten.cat.default}
# Ops that move numbers or choose among them: what comes out lies on the grid of what went in.
MOVES = {
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.contiguous.default,
    aten.clone.default,
    aten.max_pool2d.default,
    aten.avg_pool2d.default,  # LiteRT wants one scale for its input and output
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default,
}
QUANTIZE = {qd.quantize_per_tensor.default, qd.quantize_per_channel.default}
DEQUANTIZE = {qd.dequantize_per_tensor.default, qd.dequantize_per_channel.default}
_SAME_FUNCTION = {
    # view refuses memory that isn't contiguous (channels-last training); reshape is the same function.
    aten.view.default: aten.reshape.default,
    aten.relu_.default: aten.relu.default,
    aten.relu6_.default: aten.relu6.default,
    aten.hardtanh_.default: aten.hardtanh.default,
    aten.clamp_.default: aten.clamp.default,
    aten.clamp_min_.default: aten.clamp_min.default,
    aten.add_.Tensor: aten.add.Tensor,
    aten.sub_.Tensor: aten.sub.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.silu_.default: aten.silu.default,
    aten.hardswish_.default: aten.hardswish.default,
    aten.hardsigmoid_.default: aten.hardsigmoid.default,
    aten.sigmoid_.default: aten.sigmoid.default,
    aten.leaky_relu_.default: aten.leaky_relu.default,
    aten.elu_.default: aten.elu.default,
}
_NOTHING_IN_EVAL = {
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.alias.default,
}


def normalize(graph: fx.GraphModule) -> None:
    """One spelling for one meaning: no in-place ops, no dropout, pooling over the whole map as a mean.

    The function that the graph computes in eval mode stays the same.
    """
    for node in list(graph.graph.nodes):
        if node.target in _SAME_FUNCTION:
            node.target = _SAME_FUNCTION[node.target]
        elif node.target in _NOTHING_IN_EVAL:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
        elif _pools_whole_map(node):
            with graph.graph.inserting_before(node):
                mean = graph.graph.call_function(aten.mean.dim, (node.args[0], [-2, -1], True))
            mean.meta = dict(node.meta)
            node.replace_all_uses_with(mean)
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _pools_whole_map(node: fx.Node) -> bool:
    if node.target is aten.adaptive_avg_pool2d.default:
        return list(node.args[1]) == [1, 1]  # type: ignore[arg-type]
    if node.target is not aten.avg_pool2d.default or len(node.args) > 3:
        return False
    value = shape_of(node.args[0])
    return value is not None and [int(s) for s in value[-2:]] == list(node.args[1])  # type: ignore[arg-type]


def shape_of(node: Any) -> torch.Size | None:
    """Shape of a node's value as captured (the batch may be symbolic), or None where it isn't known."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.shape if isinstance(value, torch.Tensor) else None


def is_float(node: Any) -> bool:
    """Whether the node's value is a floating-point tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def is_constant(node: Any) -> bool:
    """Whether the node is a parameter or a buffer, or computed from those alone."""
    if not isinstance(node, fx.Node):
        return True
    if node.op == "get_attr":
        return True
    return (
        node.op == "call_function"
        and bool(node.args)
        and all(is_constant(arg) for arg in node.all_input_nodes)
        and bool(node.all_input_nodes)
    )


def attribute(graph: fx.GraphModule, name: str) -> torch.Tensor:
    """The tensor behind a ``get_attr`` node's dotted name."""
    value: Any = operator.attrgetter(name)(graph)
    assert isinstance(value, torch.Tensor)
    return value


def set_attribute(graph: fx.GraphModule, name: str, value: torch.Tensor) -> None:
    """Put ``value`` (a Parameter stays a Parameter) under a dotted name, creating modules on the way."""
    *path, leaf = name.split(".")
    owner: torch.nn.Module = graph
    for part in path:
        if not hasattr(owner, part):
            owner.add_module(part, torch.nn.Module())
        owner = getattr(owner, part)
    if leaf in owner._parameters or isinstance(value, torch.nn.Parameter):
        owner._buffers.pop(leaf, None)
        owner._parameters[leaf] = (
            value if isinstance(value, torch.nn.Parameter) else torch.nn.Parameter(value)
        )
    elif leaf in owner._buffers:
        owner._buffers[leaf] = value
    else:
        owner.register_buffer(leaf, value)
