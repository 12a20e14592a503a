"""Whose channels can be made larger or smaller together without the network computing anything else.

A layer with weights can give each of its output channels times a positive factor, and a layer that reads
them can take its weights for them by that much smaller: the factors are gone behind it. In between stands
what lets a factor through: ReLU (f max(x, 0) = max(f x, 0)), sums whose parts have the same factors,
poolings, moves that leave the channels where they are. All tensors between such makers and readers are one
*group*, with one factor a channel. What is anything else (a sigmoid, a product of two tensors, an output of
the network) pins the factors of its group to 1. (Nagel et al. 2019, arXiv 1906.04721, section 4.1, for
pairs of layers; groups that hang together by sums are edgekit's own reading. Behind layer norms: Xiao et
al. 2022, arXiv 2211.10438.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import fx

from edgekit.graph import ops
from edgekit.graph.ops import aten

__all__ = ["Group", "channel_axis", "groups_of", "groups_of_convolution"]

_NORMS = {aten.layer_norm.default}
# What lets a positive factor through, channel by channel, and leaves the channels on their axis.
_SAME = {
    aten.relu.default,
    aten.leaky_relu.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.dropout.default,
}
# The same where channels lie on axis 1: the axes behind it are what these work along.
_OVER_PLACES = {
    aten.prelu.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_bilinear2d.default,
}
_SIZES = {aten.sym_size.int, aten.sym_numel.default}
_PADS = {aten.pad.default, aten.constant_pad_nd.default}
_RESHAPES = {aten.view.default, aten.reshape.default, aten.flatten.using_ints}
_SQUEEZES = {aten.squeeze.dims, aten.squeeze.dim}


@dataclass
class Group:
    """Tensors whose channels have one factor each.

    ``makers`` and ``readers``: layers whose output, or input, belongs to it; ``tensors``: all nodes of it,
    each with its axis of channels counted from the front; ``ceilings``: upper ends of clamps that start at 0,
    by node.
    """

    channels: int
    makers: list[fx.Node] = field(default_factory=list)
    readers: list[fx.Node] = field(default_factory=list)
    tensors: dict[fx.Node, int] = field(default_factory=dict)
    ceilings: dict[fx.Node, float] = field(default_factory=dict)


def groups_of(graph: fx.GraphModule) -> list[Group]:
    """The groups of a captured and lowered float graph that have makers and readers, and that nothing pins.

    Time is linear in the number of nodes.
    """
    found = _Finding(graph)
    for node in graph.graph.nodes:
        if node.op == "call_function" and ops.is_float(node) and not ops.is_constant(node):
            found.look(node)
        elif node.op == "output" or (node.op == "call_function" and node.target not in _SIZES):
            # A comparison sees how large a number is.
            found.pin_around(node)
    return found.groups()


def channel_axis(layer: fx.Node) -> int:
    """Where a layer with weights has its channels, counted from the front, in its output."""
    if layer.target in ops.LINEAR or layer.target in _NORMS:
        return len(ops.shape_of(layer) or (0,)) - 1
    return 1


def groups_of_convolution(layer: fx.Node) -> int:
    """1 for linear layers."""
    if layer.target not in ops.CONVOLUTIONS:
        return 1
    position = 8 if layer.target is aten.convolution.default else 6
    given = layer.args[position] if len(layer.args) > position else layer.kwargs.get("groups", 1)
    assert isinstance(given, int)
    return given


class _Finding:
    """Union-find over nodes; each root may be pinned."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.parent: dict[fx.Node, fx.Node] = {}
        self.axis: dict[fx.Node, int] = {}
        self.pinned: set[fx.Node] = set()  # nodes; their groups are asked at the end
        self.makers: list[fx.Node] = []
        self.reads: list[tuple[fx.Node, fx.Node]] = []  # layer, what it reads
        self.ceilings: dict[fx.Node, float] = {}
        self.read = ops.readers(graph)

    def look(self, node: fx.Node) -> None:
        """Each node once, in the order of the graph."""
        if node.target in ops.WEIGHTED | _NORMS:
            self._layer(node)
        elif node.target in ops.SUMS and self._sums(node):
            self.join(node, *node.args[:2])
        elif node.target in ops.PRODUCTS and (scaled := _scaled(node)) is not None:
            self.join(node, scaled)
            for other in node.all_input_nodes:
                if other is not scaled:
                    self.pin(other)
        elif node.target in ops.CLAMPS and (ceiling := _ceiling(node)) is not None:
            self.join(node, node.args[0])
            if ceiling != float("inf"):
                self.ceilings[node] = ceiling
        elif self._lets_through(node):
            self.join(node, node.args[0])  # what else it reads is a constant: a slope
        else:
            self.pin_around(node)

    def pin_around(self, node: fx.Node) -> None:
        """The factors of what it makes and of all that it reads are 1."""
        for one in (node, *node.all_input_nodes):
            self.pin(one)

    def _layer(self, node: fx.Node) -> None:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        operands = node.args[2:4] if node.target in _NORMS else node.args[1:3]
        weight = operands[0] if operands else None
        # A layer whose weights others have too, or that are computed, can neither give factors nor take them.
        if not (isinstance(weight, fx.Node) and all(ops.is_own(one, self.read) for one in operands)):
            self.pin(node)
            self.pin(source)
            return
        self.axis[node] = channel_axis(node)
        if node.target in _NORMS:
            self.pin(source)
            shape = ops.shape_of(weight)
            if shape is None or len(shape) != 1 or (len(operands) > 1 and operands[1] is None):
                self.pin(node)
                return
            self.makers.append(node)
            return
        if node.target in ops.TRANSPOSED or (node.target is aten.convolution.default and node.args[6]):
            self.pin(node)
            self.pin(source)
            return
        self.makers.append(node)
        wanted = len(ops.shape_of(source) or (0,)) - 1 if node.target in ops.LINEAR else 1
        if self.axis.get(source, wanted) != wanted or source.op == "placeholder":
            self.pin(source)
        self.reads.append((node, source))

    def _sums(self, node: fx.Node) -> bool:
        """A sum of two tensors of the same shape, neither a constant."""
        shapes = [ops.shape_of(one) for one in node.args[:2]]
        return (
            None not in shapes
            and len(shapes) == 2
            and list(map(str, shapes[0] or ())) == list(map(str, shapes[1] or ()))
            and not any(ops.is_constant(one) for one in node.args[:2])
        )

    def _lets_through(self, node: fx.Node) -> bool:
        source = node.args[0] if node.args else None
        axis = self.axis.get(source) if isinstance(source, fx.Node) else None
        if axis is None:
            return False
        if node.target in _SAME:
            return True
        shape, before = ops.shape_of(node), ops.shape_of(source)
        if shape is None or before is None:
            return False
        if node.target in _OVER_PLACES:
            # Without a batch, (C, places) are taken for (N, C): then it isn't the channels that stay.
            return axis == 1 and len(shape) == len(before) > 1 and _is(shape[1], before[1])
        if node.target in _PADS:
            return ops.moves_zero_alone(node) and str(shape[axis]) == str(before[axis])
        if node.target is aten.mean.dim:
            if not node.args[1]:  # over all axes
                return False
            dims = _axes(node.args[1], len(before))
            if axis in dims or axis == 0:
                return False
            kept = len(shape) == len(before)
            self.axis[node] = axis if kept else axis - sum(dim < axis for dim in dims)
            return True
        if node.target in _RESHAPES | _SQUEEZES:
            # (N, C, 1, 1) as (N, C): nothing but axes of length 1 come or go.
            long, was = ([size for size in sizes if not _is(size, 1)] for sizes in (shape[1:], before[1:]))
            if axis != 1 or len(long) != 1 or len(was) != 1 or not _is(before[1], shape[1]):
                return False
            self.axis[node] = 1
            return True
        if node.target is aten.permute.default:
            self.axis[node] = _axes(node.args[1], len(before)).index(axis)
            return True
        if node.target is aten.transpose.int:
            swapped = _axes(node.args[1:3], len(before))
            self.axis[node] = swapped[1 - swapped.index(axis)] if axis in swapped else axis
            return True
        return False

    def root(self, node: fx.Node) -> fx.Node:
        """The node that stands for all that it was joined with."""
        top = node
        while (above := self.parent.get(top, top)) is not top:
            top = above
        while (above := self.parent.get(node, node)) is not top:
            self.parent[node], node = top, above
        return top

    def join(self, node: fx.Node, *sources: Any) -> None:
        """They have the same factors."""
        for source in sources:
            axis = self.axis.get(source)
            if axis is None or (self.axis.setdefault(node, axis) != axis and node.target in ops.SUMS):
                self.pin(node)  # no layer's channels, or they lie elsewhere
                self.pin(source)
            self.parent[self.root(source)] = self.root(node)

    def pin(self, node: Any) -> None:
        """The factors of its group are 1."""
        if isinstance(node, fx.Node):
            self.pinned.add(node)

    def groups(self) -> list[Group]:
        """Those with makers and readers that nothing pins."""
        pinned = {self.root(node) for node in self.pinned}
        made: dict[fx.Node, Group] = {}

        def group(node: fx.Node) -> Group | None:
            root = self.root(node)
            if root in pinned:
                return None
            return made.setdefault(root, Group(0))

        for node in self.makers:
            if (one := group(node)) is not None:
                one.makers.append(node)
                shape = ops.shape_of(node)
                one.channels = int((shape or ())[channel_axis(node)])
        for layer, source in self.reads:
            if (one := group(source)) is not None:
                one.readers.append(layer)
        for node, axis in self.axis.items():
            if (one := group(node)) is not None:
                one.tensors[node] = axis
        for node, ceiling in self.ceilings.items():
            if (one := group(node)) is not None:
                one.ceilings[node] = ceiling
        return [one for one in made.values() if one.makers and one.readers]


def _scaled(node: fx.Node) -> fx.Node | None:
    """The operand of a product whose channels the result has: it is scaled by a constant, or by a gate
    (N, C, 1, 1).
    """
    one, other = node.args[:2]
    if ops.is_constant(one) or ops.is_constant(other):
        made = other if ops.is_constant(one) else one
        return made if isinstance(made, fx.Node) and _as_large(made, node) else None
    for made, gate in ((one, other), (other, one)):
        shape = ops.shape_of(gate)
        if (
            isinstance(made, fx.Node)
            and shape is not None
            and len(shape) == 4
            and all(_is(size, 1) for size in shape[2:])
            and _as_large(made, node)
            and made is not gate
        ):
            return made
    return None


def _as_large(made: fx.Node, node: fx.Node) -> bool:
    return list(map(str, ops.shape_of(made) or ())) == list(map(str, ops.shape_of(node) or ()))


def _ceiling(node: fx.Node) -> float | None:
    """The upper end of a clamp that starts at 0 (infinite for a ReLU); None for another clamp."""
    from edgekit.int8.grid import clamp_bounds

    lower, upper = clamp_bounds(node)
    return upper if lower == 0 and upper > 0 else None


def _axes(given: Any, dims: int) -> list[int]:
    """Counted from the front."""
    return [int(axis) % dims for axis in given]


def _is(size: Any, wanted: Any) -> bool:
    """Whether two sizes are surely the same number; one that depends on the batch is none."""
    return isinstance(size, int) and isinstance(wanted, int) and size == wanted
