"""The arena of a captured graph: its ops as steps, the sizes of its tensors for one sample."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.execution import arguments
from edgekit.graph import ops
from edgekit.memory.arena import Arena, Step, plan
from edgekit.tensors import Tensors

__all__ = ["ItemSize", "label", "measure", "record"]

Name = tuple[str, int]  # node, and which of its results
ItemSize = Callable[[fx.Node, Tensor], int]
aten = torch.ops.aten

# The same numbers in the same order: no runtime moves them.
_VIEWS = {
    aten.reshape.default,
    aten.view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.detach.default,
    aten.alias.default,
    operator.getitem,
}
_PADDING = {aten.conv1d.default, aten.conv2d.default}
_IN_PLACE = ops.CLAMPS | ops.QUANTIZE | ops.DEQUANTIZE


def record(graph: fx.GraphModule, example: Tensors) -> dict[str, Any]:
    """Run the graph once on the first sample of ``example`` (N, …): node name → its value."""
    recorder = _Recorder(graph)
    with torch.no_grad():
        recorder.run(*arguments(graph, example[:1]))
    return recorder.values


def measure(graph: fx.GraphModule, values: dict[str, Any], item_size: ItemSize | None = None) -> Arena:
    """Peak activation memory of ``graph`` for one sample; see ``arena`` for what counts.

    Args:
        graph: of ATen ops.
        values: what ``record`` gave.
        item_size: bytes of one element of a node's tensor; by default those of its own type.
    """
    size_of = item_size or (lambda _, tensor: tensor.element_size())
    sizes: dict[Any, int] = {}
    shares: dict[Any, Any] = {}
    steps, inputs, outputs = [], [], []
    for node in graph.graph.nodes:
        reads = [name for source in node.all_input_nodes for name in _names(source, values)]
        if node.op == "output":
            outputs += reads
            continue
        if node.op == "get_attr" or (node.op != "placeholder" and (ops.is_constant(node) or not node.users)):
            continue  # weights, what a converter computes from them beforehand, and what nobody reads
        made = _names(node, values)
        for name, tensor in zip(made, _tensors(values.get(node.name)), strict=True):
            sizes[name] = tensor.numel() * size_of(node, tensor)
        if node.op == "placeholder":
            inputs += made
            continue
        if (owner := _shared(node, values)) is not None and made:
            shares[made[0]] = owner
        if (padded := _padded(node, values)) is not None:
            copy, source = (f"{node.name} padded", 0), node.all_input_nodes[0]
            sizes[copy] = padded * size_of(source, values[source.name])
            steps.append(Step(node.name, (reads[0],), (copy,)))
            reads[0] = copy
        steps.append(Step(node.name, tuple(reads), tuple(made), _scratch(node, values)))
    arena = plan(sizes, steps, inputs=inputs, outputs=outputs, shares=shares)
    labels = {node.name: label(node) for node in graph.graph.nodes}
    labels |= {f"{name} padded": f"{text}, padded input" for name, text in labels.items()}
    live = tuple((labels[name], size) for (name, _), size in arena.live)
    return replace(arena, at=labels.get(arena.at, ""), live=live)


def label(node: fx.Node) -> str:
    """Where a node stands in the model, and what it is: "block1.conv2 (conv2d)"."""
    if node.op == "placeholder":
        return "input"
    stack = node.meta.get("nn_module_stack") or {}
    path = [str(name) for name, _ in stack.values()][-1:]
    packet = getattr(node.target, "overloadpacket", node.target)
    op = str(getattr(packet, "__name__", packet))
    return f"{path[0]} ({op})" if path and path[0] else op


class _Recorder(fx.Interpreter):
    """Keeps the value of every node. Only shapes and types are looked at, so views keep no copies alive."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.values[n.name] = _shapes(value)
        return value


def _shapes(value: Any) -> Any:
    """The same without memory: tensors on the "meta" device."""
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return tuple(_shapes(each) for each in value) if isinstance(value, tuple | list) else value


def _tensors(value: Any) -> list[Tensor]:
    values = value if isinstance(value, tuple | list) else [value]
    return [each for each in values if isinstance(each, Tensor)]


def _names(node: fx.Node, values: dict[str, Any]) -> list[Name]:
    return [(node.name, index) for index in range(len(_tensors(values.get(node.name))))]


def _shared(node: fx.Node, values: dict[str, Any]) -> Name | None:
    """The tensor in whose memory the node's result lies; None if it has its own."""
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or not _names(source, values):
        return None
    if node.target is operator.getitem:
        index = node.args[1]
        return (source.name, index) if isinstance(index, int) else None
    if node.target in _VIEWS or (node.target in _IN_PLACE and len(source.users) == 1):
        return source.name, 0
    return None


def _padded(node: fx.Node, values: dict[str, Any]) -> int | None:
    """Elements of a convolution's padded input, where LiteRT has to copy it; None where it pads on the fly.

    Its kernels know no padding, and the "same" of TensorFlow, which is lopsided when a stride is more than 1.
    """
    if node.target not in _PADDING or len(node.args) < 5:
        return None
    size, weight = values[str(node.args[0])].shape, values[str(node.args[1])].shape
    dims = len(size) - 2
    given = (*node.args[3:5], (*node.args, 1)[5])
    strides, padding, dilation = (ops.for_each_axis(value, dims) for value in given)
    total, lopsided = size[0] * size[1], False
    for n, k, s, p, d in zip(size[2:], weight[2:], strides, padding, dilation, strict=True):
        needed = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        lopsided |= p > 0 and (needed // 2, needed - needed // 2) != (p, p)
        total *= n + 2 * p
    return int(total) if lopsided else None


def _scratch(node: fx.Node, values: dict[str, Any]) -> int:
    """Attention, where a runtime spells it out, holds its scores (…, L, S) before and after the softmax."""
    if node.target is not aten.scaled_dot_product_attention.default:
        return 0
    query, key = (values[str(argument)] for argument in node.args[:2])
    scores = query.numel() // query.shape[-1] * key.shape[-2]
    return int(2 * scores * query.element_size())
