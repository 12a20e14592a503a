"""What LiteRT's converter gets wrong or doesn't know, spelled otherwise, or refused by layer."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import fx

from edgekit.errors import ExportError
from edgekit.formats.litert.multipliers import one_kernel_each
from edgekit.graph import ops
from edgekit.graph.constants import evaluate_constant
from edgekit.graph.depthwise import split_large_kernels
from edgekit.graph.ops import aten
from edgekit.graph.transposed import DIMENSIONS, Settings, as_convolution
from edgekit.int8.scores import SOFTMAX

# Choose or move numbers: quantising commutes with them. The converter computes them on the grid of what they
# read, whatever grid stands behind, and numbers that don't fit there are cut off.
_CHOICES = {
    aten.where.self,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.masked_fill.Scalar,
    aten.index.Tensor,
    aten.index_put.default,
    aten.select_scatter.default,
    aten.slice_scatter.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.gather.default,
    aten.fill.Scalar,
    aten.fill.Tensor,
    aten.maximum.default,
    aten.minimum.default,
}
_MOST_AXES = 4  # of what is repeated: the converter makes two of each, and broadcasts 8 at most
_PADS = {aten.constant_pad_nd.default, aten.pad.default}


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


def respell(graph: fx.GraphModule, *, whole_kernels: bool = False) -> fx.GraphModule:
    """A copy that the converter takes, and computes rightly, and XNNPACK computes fast.

    Args:
        whole_kernels: see ``ExportOptions``.
    """
    graph = copy.deepcopy(graph)
    for node in list(graph.graph.nodes):
        if node.target in DIMENSIONS and not _is_known(node):
            _convolve(graph, node)
        elif node.target is aten.expand.default:
            _repeat(graph, node)
        elif node.target is aten.group_norm.default and node.args[1] == 1:
            _normalize_whole(graph, node)
        elif node.target in SOFTMAX:
            _along_last_axis(graph, node)
        elif node.target is ops.qd.quantize_per_tensor.default:
            _quantize_first(graph, node)
            if node.args[0].target is aten.conv3d.default:
                _clamp(graph, node)
    ops.refresh(graph)
    if not whole_kernels:
        if one_kernel_each(graph):
            ops.refresh(graph)
        split_large_kernels(graph)
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


def _repeat(graph: fx.GraphModule, node: fx.Node) -> None:
    """Numbers that are repeated, not a view of them: behind a view the converter permutes wrongly."""
    before, after = ops.shape_of(node.args[0]), ops.shape_of(node)
    if before is None or after is None or len(before) != len(after) or before[0] != after[0]:
        return
    if any(not isinstance(size, int) for size in (*before[1:], *after[1:])):
        return
    times = [1, *(new // old for old, new in zip(before[1:], after[1:], strict=True))]
    with graph.graph.inserting_before(node):
        if len(after) <= _MOST_AXES:
            repeated = graph.graph.call_function(aten.repeat.default, (node.args[0], times))
        else:
            repeated = _repeat_each(graph, node.args[0], list(before[1:]), times[1:])
    repeated.meta = dict(node.meta)
    node.replace_all_uses_with(repeated)


def _normalize_whole(graph: fx.GraphModule, node: fx.Node) -> None:
    """A group norm of one group by means over all but the batch, whatever order its axes stand in.

    The converter's own reshapes to rows and broadcasts the statistics back, which XNNPACK doesn't take.
    """
    shape = ops.shape_of(node)
    if shape is None or node.kwargs:
        return
    values: list[Any] = [*node.args, *(None, None, 1e-5)[len(node.args) - 2 :]]
    source, _, weight, bias, eps, *_ = values
    # Without an axis for the batch: the converter's own order of axes mistakes constants of four.
    axes, each = list(range(1, len(shape))), [int(shape[1]), *([1] * (len(shape) - 2))]
    call = graph.graph.call_function
    with graph.graph.inserting_before(node):
        centred = call(aten.sub.Tensor, (source, call(aten.mean.dim, (source, axes, True))))
        squares = call(aten.mean.dim, (call(aten.mul.Tensor, (centred, centred)), axes, True))
        small = ops.constant_node(graph, f"{node.name}_eps", torch.tensor(float(eps)))
        root = call(aten.rsqrt.default, (call(aten.add.Tensor, (squares, small)),))
        result = call(aten.mul.Tensor, (centred, root))
        for name, op, numbers in (("scale", aten.mul.Tensor, weight), ("shift", aten.add.Tensor, bias)):
            if numbers is not None:
                own = evaluate_constant(graph, numbers).reshape(each).clone()
                result = call(op, (result, ops.constant_node(graph, f"{node.name}_{name}", own)))
    result.meta = dict(node.meta)
    node.replace_all_uses_with(result)
    graph.graph.erase_node(node)


def _along_last_axis(graph: fx.GraphModule, node: fx.Node) -> None:
    """A softmax along the last axis, between transposes: along others the converter has none, and spells one
    by maxima, exponentials and sums.
    """
    shape = ops.shape_of(node)
    if shape is None:
        return
    last, axis = len(shape) - 1, int(node.args[1]) % len(shape)  # type: ignore[arg-type]
    if axis == last:
        return
    call = graph.graph.call_function
    with graph.graph.inserting_before(node):
        source = call(aten.transpose.int, (node.args[0], axis, last))
        result = graph.graph.node_copy(node)
        result.args = (source, last, *node.args[2:])
        back = call(aten.transpose.int, (result, axis, last))
    back.meta, result.meta = dict(node.meta), dict(node.meta)
    source.meta = dict(node.args[0].meta)  # type: ignore[union-attr]
    node.replace_all_uses_with(back)
    graph.graph.erase_node(node)


def _repeat_each(graph: fx.GraphModule, value: Any, sizes: list[int], times: list[int]) -> fx.Node:
    """One axis after the other, between what stands in front of it and behind it."""
    call = graph.graph.call_function
    for axis, count in enumerate(times):
        if count > 1:
            value = call(aten.reshape.default, (value, [-1, 1, math.prod(sizes[axis + 1 :])]))
            value = call(aten.repeat.default, (value, [1, count, 1]))
            sizes[axis] = count
            value = call(aten.reshape.default, (value, [-1, *sizes]))
    return value  # type: ignore[no-any-return]


def _clamp(graph: fx.GraphModule, quantize: fx.Node) -> None:
    """A clamp to the grid's ends in front of a quantiser that the converter drops, with its saturation."""
    value, scale, zero, low, high, *_ = quantize.args
    bounds = ((low - zero) * scale, (high - zero) * scale)  # type: ignore[operator]
    with graph.graph.inserting_before(quantize):
        clamp = graph.graph.call_function(aten.clamp.default, (value, *bounds))
    clamp.meta = dict(value.meta)  # type: ignore[union-attr]
    quantize.replace_input_with(value, clamp)  # type: ignore[arg-type]


def _quantize_first(graph: fx.GraphModule, quantize: fx.Node) -> None:
    """The quantiser in front of choices as well as behind them: the numbers stay the same."""
    grid = quantize.args[1:]
    todo = [quantize.args[0]]
    while todo:
        choice = todo.pop()
        if not isinstance(choice, fx.Node) or not _is_choice(choice):
            continue
        for source in choice.all_input_nodes:
            if not ops.is_float(source) or (source.target in ops.DEQUANTIZE and source.args[1:] == grid):
                continue
            with graph.graph.inserting_before(choice):
                value = source
                if source.target in ops.DEQUANTIZE:
                    value = graph.graph.call_function(aten.add.Tensor, (source, _zero(graph)))
                back = _pair(graph, value, grid)
            value.meta, back.meta = dict(source.meta), dict(source.meta)
            choice.replace_input_with(source, back)
            todo.append(source)


def _pair(graph: fx.GraphModule, value: fx.Node, grid: tuple[Any, ...]) -> fx.Node:
    quantize = graph.graph.call_function(ops.qd.quantize_per_tensor.default, (value, *grid))
    return graph.graph.call_function(ops.qd.dequantize_per_tensor.default, (quantize, *grid))


def _zero(graph: fx.GraphModule) -> fx.Node:
    """What is added to bring numbers to another grid: the converter refuses two without an op between."""
    return _pair(graph, ops.constant_node(graph, "zero", torch.zeros(())), (1.0, 0, -128, 127, torch.int8))


def _is_choice(node: fx.Node) -> bool:
    if node.target in (aten.masked_fill.Scalar, aten.where.ScalarOther, aten.where.ScalarSelf):
        return all(math.isfinite(number) for number in node.args if isinstance(number, int | float))
    return node.target in _CHOICES or (node.target in _PADS and not ops.moves_zero_alone(node))
