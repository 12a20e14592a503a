"""Resizing and pooling with odd windows, spelled as ops that every runtime computes rightly on integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from edgekit.graph import ops
from edgekit.graph.ops import aten

_NEAREST: dict[Any, str] = {
    aten.upsample_nearest1d.vec: "nearest",
    aten.upsample_nearest2d.vec: "nearest",
    aten._upsample_nearest_exact1d.vec: "nearest-exact",
    aten._upsample_nearest_exact2d.vec: "nearest-exact",
}
_ALONG: dict[str, Any] = {
    "nearest": aten.upsample_nearest1d.vec,
    "nearest-exact": aten._upsample_nearest_exact1d.vec,
}
_PLAIN: dict[int, Any] = {1: aten.upsample_nearest1d.vec, 2: aten.upsample_nearest2d.vec}


def nearest(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Nearest-neighbour resizing by a whole factor in its plain form, by any other as a choice of rows and
    columns: LiteRT's kernel rounds places otherwise than torch.
    """
    before, after = ops.shape_of(node.args[0]), ops.shape_of(node)
    if (
        before is None
        or after is None
        or any(not isinstance(size, int) for size in (*before[2:], *after[2:]))
    ):
        return None
    mode, dims = _NEAREST[node.target], len(before) - 2
    if all(new % old == 0 for old, new in zip(before[2:], after[2:], strict=True)):
        if mode == "nearest":
            return None
        factors = [float(new // old) for old, new in zip(before[2:], after[2:], strict=True)]
        return graph.graph.call_function(_PLAIN[dims], (node.args[0], None, factors))
    result: Any = node.args[0]
    scales: Any = node.args[2] if len(node.args) > 2 else None
    resize = _ALONG[mode]
    for axis in range(2, dims + 2):
        places = torch.arange(before[axis], dtype=torch.float64)[None, None]
        factor = None if scales is None else [float(scales[axis - 2])]
        chosen = resize(places, None if factor else [int(after[axis])], factor)[0, 0].to(torch.int64)
        index = ops.constant_node(graph, f"{node.name}_rows{axis}", chosen)
        result = graph.graph.call_function(aten.index_select.default, (result, axis, index))
    return result  # type: ignore[no-any-return]


def as_linear(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Bicubic resizing, which is linear along each axis: a product with a constant matrix for each of them.

    The matrix holds what the op itself makes of each unit vector. LiteRT has no bicubic resizing.
    """
    before, after = ops.shape_of(node.args[0]), ops.shape_of(node)
    if before is None or after is None or len(node.args) < 3:
        return None
    scales: Any = node.args[3] if len(node.args) > 3 else None
    resize = node.target
    result: Any = node.args[0]
    for axis in (3, 2):
        old, new = int(before[axis]), int(after[axis])
        unit = torch.eye(old).reshape(1, old, 1, old)
        factors = None if scales is None else [1.0, float(scales[axis - 2])]
        made = resize(unit, None if factors else [1, new], node.args[2], factors)  # type: ignore[operator]
        matrix = made.reshape(old, new).T.contiguous()
        weight = ops.constant_node(graph, f"{node.name}_matrix{axis}", torch.nn.Parameter(matrix, False))
        result = graph.graph.call_function(aten.linear.default, (result, weight))
        result = graph.graph.call_function(aten.transpose.int, (result, -1, -2))
    return result  # type: ignore[no-any-return]


def without_ceil(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """An average pooling whose last window reaches beyond the edge (``ceil_mode``), as poolings that don't.

    The mean of such a window is that of its pixels alone: the rest of rows (columns) is pooled by itself,
    with a smaller window, and put behind the others. ONNX Runtime's fused integer kernel divides by the whole
    window's size.
    """
    dims = 1 if node.target is aten.avg_pool1d.default else 2
    shape, after = ops.shape_of(node.args[0]), ops.shape_of(node)
    settings = [*node.args[1:], *([], [0], False, True, None)[len(node.args) - 2 :]]
    window, stride, padding = (ops.for_each_axis(value, dims) for value in settings[:3])
    if not settings[3] or shape is None or after is None or (len(settings) > 5 and settings[5] is not None):
        return None
    source: Any = node.args[0]
    if any(padding):
        if not settings[4]:
            return None
        around = [size for size in reversed(padding) for _ in range(2)]
        source = graph.graph.call_function(aten.constant_pad_nd.default, (source, around, 0.0))
    sizes = [int(size) + 2 * pad for size, pad in zip(shape[2:], padding, strict=True)]
    return _pooled(graph, source, _Pool(node.target, window, stride or window, sizes), [], 0)


class _Pool:
    def __init__(self, target: Any, window: list[int], stride: list[int], sizes: list[int]) -> None:
        self.target, self.window, self.stride, self.sizes = target, window, stride, sizes

    def parts(self, axis: int) -> list[tuple[int, int, int]]:
        """(first pixel, behind the last, window) of the whole windows, and of the one at the edge."""
        size, window, stride = self.sizes[axis], self.window[axis], self.stride[axis]
        whole = (size - window) // stride + 1 if size >= window else 0
        rest = whole * stride
        found = [(0, (whole - 1) * stride + window, window)] if whole else []
        beyond = rest < size and (whole == 0 or (size - window) % stride)
        return [*found, (rest, size, size - rest)] if beyond else found


def _pooled(graph: fx.GraphModule, source: fx.Node, pool: _Pool, windows: list[int], axis: int) -> fx.Node:
    call = graph.graph.call_function
    if axis == len(pool.sizes):
        return call(pool.target, (source, windows, pool.stride))
    parts = []
    for start, end, window in pool.parts(axis):
        part = source
        if (start, end) != (0, pool.sizes[axis]):
            part = call(aten.slice.Tensor, (source, axis + 2, start, end))
        parts.append(_pooled(graph, part, pool, [*windows, window], axis + 1))
    return parts[0] if len(parts) == 1 else call(aten.cat.default, (parts, axis + 2))


NEAREST: dict[Any, Callable[[fx.GraphModule, fx.Node], fx.Node | None]] = dict.fromkeys(_NEAREST, nearest)
