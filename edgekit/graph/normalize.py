"""One spelling for one meaning, so that later passes know few ops. The function stays the same."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from edgekit.graph import ops
from edgekit.graph.compounds import COMPOUNDS
from edgekit.graph.ops import aten
from edgekit.graph.resampling import NEAREST

_SAME_FUNCTION = {
    # view refuses memory that isn't contiguous (channels-last training); reshape is the same function.
    aten.view.default: aten.reshape.default,
    aten.add.Scalar: aten.add.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.div.Scalar: aten.div.Tensor,
}
_NOTHING_IN_EVAL = {
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.alias.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.lift_fresh_copy.default,
    aten.detach.default,
}
_REPEATING = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
_PARTS = {
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
}


def normalize(graph: fx.GraphModule) -> None:
    """Rewrite the captured graph in place.

    No dropout; splits as slices; pooling over the whole map as a mean, other adaptive
    pooling as a pooling with a fixed window where the sizes divide; division by a number as a multiplication;
    compounds as sums and products.
    """
    for node in list(graph.graph.nodes):
        if node.target in _SAME_FUNCTION:
            node.target = _SAME_FUNCTION[node.target]
        rewrite = _REWRITES.get(node.target)
        if node.target in _NOTHING_IN_EVAL:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)  # fx keeps what draws random numbers, read or not
        elif node.target in _PARTS:
            _slices(graph, node)
        elif rewrite is not None or node.target in NEAREST:
            with graph.graph.inserting_before(node):
                new = rewrite(graph.graph, node) if rewrite else NEAREST[node.target](graph, node)
            if new is not None and new is not node:
                new.meta.setdefault("val", node.meta.get("val"))
                new.meta.setdefault("nn_module_stack", node.meta.get("nn_module_stack"))
                node.replace_all_uses_with(new)
    ops.refresh(graph)


def _slices(graph: fx.GraphModule, node: fx.Node) -> None:
    """The parts of a split, each as a slice (or, of an unbind, a selection) of its own."""
    source = node.args[0]
    dim = _argument(node, 1 if node.target is aten.unbind.int else 2, "dim", 0)
    bounds = _bounds(node, source, dim)
    for user in list(node.users):
        if user.target is not operator.getitem or bounds is None:
            return
        start, end = bounds[user.args[1]]  # type: ignore[index]
        with graph.graph.inserting_before(user):
            if node.target is aten.unbind.int:
                part = graph.graph.call_function(aten.select.int, (source, dim, start))
            else:
                part = graph.graph.call_function(aten.slice.Tensor, (source, dim, start, end))
        part.meta = dict(user.meta)
        user.replace_all_uses_with(part)
        graph.graph.erase_node(user)


def _bounds(node: fx.Node, source: Any, dim: int) -> list[tuple[int, int]] | None:
    shape = ops.shape_of(source)
    if shape is None or not isinstance(shape[dim], int):
        return None
    size = shape[dim]
    if node.target is aten.unbind.int:
        return [(index, index + 1) for index in range(size)]
    if node.target is aten.split_with_sizes.default:
        sizes: Sequence[int] = node.args[1]  # type: ignore[assignment]
    else:
        step: int = node.args[1]  # type: ignore[assignment]
        step = -(-size // step) if node.target is aten.chunk.default else step
        sizes = [step] * -(-size // step)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [(start, min(start + length, size)) for start, length in zip(starts, sizes, strict=True)]


def _argument(node: fx.Node, index: int, name: str, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _adaptive_average(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    one_dimensional = node.target is aten.adaptive_avg_pool1d.default
    wanted: list[int] = list(node.args[1])  # type: ignore[arg-type]
    axes = [-1] if one_dimensional else [-2, -1]
    if wanted == [1] * len(axes):
        return graph.call_function(aten.mean.dim, (node.args[0], axes, True))
    window = _window(node, wanted)
    if window is None:
        return None
    if window == [1] * len(axes):
        return node.args[0]  # type: ignore[return-value]
    pool = aten.avg_pool1d.default if one_dimensional else aten.avg_pool2d.default
    return graph.call_function(pool, (node.args[0], window, window))


def _adaptive_maximum(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Only the values, if nobody reads the indices."""
    readers = [user for user in node.users if user.users]
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in readers):
        return None
    wanted: list[int] = list(node.args[1])  # type: ignore[arg-type]
    one_dimensional = node.target is aten.adaptive_max_pool1d.default
    window = _window(node, wanted, readers[0]) if readers else None
    if window is None:
        return None
    pool = aten.max_pool1d.default if one_dimensional else aten.max_pool2d.default
    values = graph.call_function(pool, (node.args[0], window, window))
    for user in readers:
        values.meta = dict(user.meta)
        user.replace_all_uses_with(values)
    return None


def _window(node: fx.Node, wanted: Sequence[int], shaped: fx.Node | None = None) -> list[int] | None:
    """The window of a pooling that makes ``wanted`` of the input's size, if one does it exactly."""
    shape = ops.shape_of(node.args[0])
    sizes = [] if shape is None else list(shape[-len(wanted) :])
    if not sizes or any(not isinstance(size, int) for size in sizes):
        return None
    if any(size % want for size, want in zip(sizes, wanted, strict=True)):
        return None
    return [size // want for size, want in zip(sizes, wanted, strict=True)]


def _average(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """A pooling over the whole map is a mean; padding that counts is a pad of its own."""
    one_dimensional = node.target is aten.avg_pool1d.default
    axes = [-1] if one_dimensional else [-2, -1]
    shape = ops.shape_of(node.args[0])
    window: list[int] = list(node.args[1])  # type: ignore[arg-type]
    stride = list(_argument(node, 2, "stride", [])) or window
    padding = list(_argument(node, 3, "padding", [0] * len(axes)))
    if shape is not None and list(shape[-len(axes) :]) == window and not any(padding):
        return graph.call_function(aten.mean.dim, (node.args[0], axes, True))
    ceil, counts = _argument(node, 4, "ceil_mode", False), _argument(node, 5, "count_include_pad", True)
    divisor = _argument(node, 6, "divisor_override", None)
    if not any(padding) or ceil or not counts or divisor is not None:
        return None
    around = [size for size in reversed(padding) for _ in range(2)]
    padded = graph.call_function(aten.constant_pad_nd.default, (node.args[0], around, 0.0))
    pool = aten.avg_pool1d.default if one_dimensional else aten.avg_pool2d.default
    return graph.call_function(pool, (padded, window, stride))


def _divide(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    divisor = node.args[1]
    if isinstance(divisor, int | float) and not isinstance(divisor, bool) and ops.is_float(node.args[0]):
        return graph.call_function(aten.mul.Tensor, (node.args[0], 1.0 / divisor))
    return None


def _weighted(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """``torch.add(x, y, alpha=2)`` as a product and a sum."""
    one, other, *rest = node.args
    alpha: Any = rest[0] if rest else node.kwargs.get("alpha", 1)
    if alpha == 1 or not ops.is_float(node):
        return None
    factor = alpha if node.target is aten.add.Tensor else -alpha
    if isinstance(other, int | float):
        return graph.call_function(aten.add.Tensor, (one, factor * other))
    product = graph.call_function(aten.mul.Tensor, (other, factor))
    return graph.call_function(aten.add.Tensor, (one, product))


def _subtract(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """A number subtracted is a number added."""
    if (found := _weighted(graph, node)) is not None:
        return found
    number = node.args[1]
    if isinstance(number, int | float) and not node.kwargs and ops.is_float(node.args[0]):
        return graph.call_function(aten.add.Tensor, (node.args[0], -float(number)))
    return None


def _neutral(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """``x + 0`` (what ``sum`` starts with) and ``x * 1``."""
    if node.target is aten.add.Tensor and (found := _weighted(graph, node)) is not None:
        return found
    neutral = 0 if node.target is aten.add.Tensor else 1
    operands = [arg for arg in node.args if isinstance(arg, fx.Node)]
    numbers = [arg for arg in node.args if not isinstance(arg, fx.Node)]
    if len(operands) == 1 and len(numbers) == 1 and numbers[0] == neutral and ops.is_float(operands[0]):
        return operands[0]
    return None


def _norm(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """What batch norm is called where in-place ops had to be taken out; only its first result is read."""
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in node.users):
        return None
    *tensors, momentum, eps = node.args
    norm = graph.call_function(aten.batch_norm.default, (*tensors, False, momentum, eps, False))
    for user in list(node.users):
        norm.meta = dict(user.meta)
        user.replace_all_uses_with(norm)
    return None


def _cast(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """A cast to the type that is there already, on the one device that there is."""
    source = node.args[0]
    before, after = (getattr(one.meta.get("val"), "dtype", None) for one in (source, node))  # type: ignore[union-attr]
    return source if before is not None and before is after else None  # type: ignore[return-value]


def _reshape_as(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    sizes = [size if isinstance(size, int) else -1 for size in ops.shape_of(node) or ()]
    if not sizes or sizes.count(-1) > 1:
        return None
    return graph.call_function(aten.reshape.default, (node.args[0], sizes))


def _expand(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Nothing to do where sums and products, which repeat sizes of 1 by themselves, are all that read it.

    (LiteRT's converter takes the repeated one for another layout than its partner's, and multiplies wrongly.)
    """
    source, shape = node.args[0], ops.shape_of(node)
    if shape is None or len(ops.shape_of(source) or ()) != len(shape):
        return None
    for user in node.users:
        partners = [arg for arg in user.args if isinstance(arg, fx.Node) and arg is not node]
        if user.target not in _REPEATING or len(partners) != 1 or ops.shape_of(partners[0]) != shape:
            return None
    return source  # type: ignore[return-value]


def _named_padding(graph: fx.Graph, node: fx.Node) -> fx.Node | None:
    """Padding "valid" or "same" as numbers, the odd pixel of "same" as a pad in front."""
    arguments: list[Any] = [*node.args, *(None, [1], "valid", [1], 1)[len(node.args) - 2 :]]
    source, weight, bias, stride, padding, dilation, groups = arguments
    dims = 1 if node.target is aten.conv1d.padding else 2
    sizes = ops.shape_of(weight)
    assert sizes is not None
    stride, rates = (list(value) * (dims if len(value) == 1 else 1) for value in (stride, dilation))
    total = [
        rate * (int(size) - 1) if padding == "same" else 0
        for rate, size in zip(rates, sizes[2:], strict=True)
    ]
    if any(size % 2 for size in total):
        around = [part for size in reversed(total) for part in (size // 2, size - size // 2)]
        padded = graph.call_function(aten.constant_pad_nd.default, (source, around, 0.0))
        source, total = padded, [0] * dims
    convolution = aten.conv1d.default if dims == 1 else aten.conv2d.default
    halves = [size // 2 for size in total]
    return graph.call_function(convolution, (source, weight, bias, stride, halves, rates, groups))


_REWRITES: dict[Any, Callable[[fx.Graph, fx.Node], fx.Node | None]] = {
    aten.adaptive_avg_pool1d.default: _adaptive_average,
    aten.adaptive_avg_pool2d.default: _adaptive_average,
    aten.adaptive_max_pool1d.default: _adaptive_maximum,
    aten.adaptive_max_pool2d.default: _adaptive_maximum,
    aten.avg_pool1d.default: _average,
    aten.avg_pool2d.default: _average,
    aten.div.Tensor: _divide,
    aten.sub.Tensor: _subtract,
    aten.add.Tensor: _neutral,
    aten.mul.Tensor: _neutral,
    aten._native_batch_norm_legit_no_training.default: _norm,
    aten.to.dtype: _cast,
    aten.to.device: _cast,
    aten.to.dtype_layout: _cast,
    aten.to.other: _cast,
    aten.type_as.default: _cast,
    aten.reshape_as.default: _reshape_as,
    aten.view_as.default: _reshape_as,
    aten.expand.default: _expand,
    aten.expand_as.default: _expand,
    aten.conv1d.padding: _named_padding,
    aten.conv2d.padding: _named_padding,
    **COMPOUNDS,
}
