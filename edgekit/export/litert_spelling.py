"""What LiteRT's converter gets wrong or doesn't know, spelled otherwise, or refused by layer."""

from __future__ import annotations

import copy

from torch import fx

from edgekit.errors import ExportError
from edgekit.int8 import ops
from edgekit.int8.ops import aten
from edgekit.int8.transposed import DIMENSIONS, Settings, as_convolution

# Ops whose integer kernels move numbers without rescaling them: what the converter makes of them between two
# grids is wrong. And what LiteRT has in float alone: there the converter drops the quantiser with its clamp.
_FLOAT = {
    aten.conv3d.default,
    aten.where.self,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.masked_fill.Scalar,
    aten.masked_fill.Tensor,
    aten.index.Tensor,
    aten.index_put.default,
    aten.select_scatter.default,
    aten.slice_scatter.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.gather.default,
    aten.constant_pad_nd.default,
    aten.pad.default,
    aten.maximum.default,
    aten.minimum.default,
    aten.abs.default,
    aten.neg.default,
}


def refuse(graph: fx.GraphModule, file: str) -> None:
    """Raise ExportError for a layer that LiteRT has no kernel for, by name."""
    for node in graph.graph.nodes:
        what = None
        if node.target is aten.conv3d.default and len(node.args) > 6 and node.args[6] != 1:
            what = "a three-dimensional convolution in groups"
        elif node.target is aten.conv_transpose3d.input:
            what = "a three-dimensional transposed convolution"
        if what is not None:
            raise ExportError(
                f"LiteRT has no kernel for {what}",
                where=f"{file}: layer {ops.layer_of(node) or node.name!r}",
                got=str(node.target).removeprefix("aten."),
                expected="nn.Conv3d with groups=1, or layers of one and two dimensions",
                next="leave litert out of exports.formats to get the other files (onnx)",
            )


def respell(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy that the converter takes, and computes rightly."""
    graph = copy.deepcopy(graph)
    for node in list(graph.graph.nodes):
        if node.target in DIMENSIONS and not _is_known(node):
            _convolve(graph, node)
        elif node.target is ops.qd.quantize_per_tensor.default:
            _keep_in_float(graph, node)
    ops.refresh(graph)
    return graph


def _is_known(node: fx.Node) -> bool:
    """Whether the converter has a transposed convolution with these settings: without padding, or with the
    padding that makes the stride's multiple of the input (TensorFlow's VALID and SAME).
    """
    weight = ops.shape_of(node.args[1])
    settings = Settings.of(node)
    if weight is None or any(settings.extra) or set(settings.dilation) != {1}:
        return False
    overlap = [kernel - step for kernel, step in zip(weight[2:], settings.stride, strict=True)]
    same = all(2 * pad == size for pad, size in zip(settings.padding, overlap, strict=True))
    return same or not any(settings.padding)


def _convolve(graph: fx.GraphModule, node: fx.Node) -> None:
    with graph.graph.inserting_before(node):
        new = as_convolution(graph, node)
    if new is not None:
        new.meta.update(val=node.meta.get("val"), nn_module_stack=node.meta.get("nn_module_stack"))
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)


def _keep_in_float(graph: fx.GraphModule, quantize: fx.Node) -> None:
    """A clamp to the grid's ends, which quantising does anyway, between a float op and its quantiser."""
    value, scale, zero, low, high, *_ = quantize.args
    if not isinstance(value, fx.Node) or value.target not in _FLOAT:
        return
    moves = value.target in ops.MOVES and ops.moves_zero_alone(value)
    grids = {source.args[1:3] for source in value.all_input_nodes if source.target in ops.DEQUANTIZE}
    inside = all(source.target in ops.DEQUANTIZE for source in value.all_input_nodes if ops.is_float(source))
    if value.target is not aten.conv3d.default and inside and grids == {(scale, zero)}:
        if moves or value.target not in ops.MOVES:
            return
    bounds = ((low - zero) * scale, (high - zero) * scale)  # type: ignore[operator]
    with graph.graph.inserting_before(quantize):
        clamp = graph.graph.call_function(aten.clamp.default, (value, *bounds))
    clamp.meta = dict(value.meta)
    quantize.replace_input_with(value, clamp)
