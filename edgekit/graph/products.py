"""Matrix products in one spelling: ``linear`` with a constant, ``matmul`` of two activations."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from edgekit.graph import ops
from edgekit.graph.constants import fold_constants
from edgekit.graph.ops import aten


def spell_products(graph: fx.GraphModule) -> None:
    """Rewrite ``einsum``, ``mm``, ``addmm``, ``baddbmm`` and products with a constant matrix in place.

    A product with a constant matrix is a linear layer, whose weight gets one scale for each output channel;
    a linear layer whose weight is computed is a product of two activations.
    """
    changed = False
    for node in list(graph.graph.nodes):
        rewrite = _REWRITES.get(node.target)
        if rewrite is None or not ops.is_float(node) or ops.is_constant(node):
            continue
        with graph.graph.inserting_before(node):
            new = rewrite(_Emitter(graph, node), node)
        if new is not None:
            new.meta.setdefault("val", node.meta["val"])
            node.replace_all_uses_with(new)
            graph.graph.erase_node(node)
            changed = True
    if changed:
        ops.refresh(graph)
        fold_constants(graph)


class _Emitter:
    """Puts ops in front of a node, named after its layer."""

    def __init__(self, graph: fx.GraphModule, node: fx.Node) -> None:
        self.graph, self.stack = graph, node.meta.get("nn_module_stack")

    def __call__(self, target: Any, *args: Any) -> fx.Node:
        node = self.graph.graph.call_function(target, args)
        node.meta["nn_module_stack"] = self.stack
        return node

    def permute(self, node: fx.Node, order: Sequence[int]) -> fx.Node:
        """The same node where nothing moves."""
        plain = list(order) == list(range(len(order)))
        return node if plain else self(aten.permute.default, node, list(order))

    def reshape(self, node: fx.Node, before: Sequence[Any], after: Sequence[Any]) -> fx.Node:
        """The same node where the sizes stay."""
        return node if list(before) == list(after) else self(aten.reshape.default, node, list(after))


def _is_matrix(node: Any) -> bool:
    shape = ops.shape_of(node)
    return isinstance(node, fx.Node) and ops.is_constant(node) and shape is not None and len(shape) == 2


def _matmul(emit: _Emitter, node: fx.Node) -> fx.Node | None:
    source, matrix = node.args
    if not isinstance(matrix, fx.Node) or not _is_matrix(matrix) or len(ops.shape_of(source) or ()) < 2:
        return None
    return emit(aten.linear.default, source, emit(aten.permute.default, matrix, [1, 0]))


def _addmm(emit: _Emitter, node: fx.Node) -> fx.Node | None:
    """``beta * input + alpha * (first @ second)``."""
    offset, first, second = node.args
    beta, alpha = node.kwargs.get("beta", 1), node.kwargs.get("alpha", 1)
    flat = node.target is aten.addmm.default
    vector = isinstance(offset, fx.Node) and ops.is_constant(offset) and len(ops.shape_of(offset) or ()) == 1
    if flat and vector and beta == alpha == 1 and isinstance(second, fx.Node) and _is_matrix(second):
        return emit(aten.linear.default, first, emit(aten.permute.default, second, [1, 0]), offset)
    product = emit(aten.matmul.default, first, second)
    if flat and isinstance(second, fx.Node) and _is_matrix(second):
        turned = emit(aten.permute.default, second, [1, 0])
        emit.graph.graph.erase_node(product)
        product = emit(aten.linear.default, first, turned)
    if alpha != 1:
        product = emit(aten.mul.Tensor, product, alpha)
    if beta == 0:
        return product
    return emit(aten.add.Tensor, product, offset if beta == 1 else emit(aten.mul.Tensor, offset, beta))


def _linear(emit: _Emitter, node: fx.Node) -> fx.Node | None:
    """A layer whose weight is computed from the input."""
    source, weight, *bias = node.args
    if not isinstance(weight, fx.Node) or ops.is_constant(weight) or len(ops.shape_of(weight) or ()) != 2:
        return None
    product = emit(aten.matmul.default, source, emit(aten.permute.default, weight, [1, 0]))
    return emit(aten.add.Tensor, product, bias[0]) if bias and bias[0] is not None else product


# --- einsum ----------------------------------------------------------------------------------------------


def _einsum(emit: _Emitter, node: fx.Node) -> fx.Node | None:
    """Of two operands: one product of matrices, between permutes and reshapes."""
    equation, operands = str(node.args[0]), list(node.args[1])  # type: ignore[arg-type]
    if len(operands) != 2 or not all(isinstance(operand, fx.Node) for operand in operands):
        return None
    labels = parse(equation, [len(ops.shape_of(operand) or ()) for operand in operands])
    if labels is None:
        return None
    first, second, result = labels
    if ops.is_constant(operands[0]) and not ops.is_constant(operands[1]):
        operands, (first, second) = operands[::-1], (second, first)
    sizes = _sizes(operands, (first, second))
    batch = [label for label in first if label in second and label in result]
    summed = [label for label in first if label in second and label not in result]
    left = [label for label in first if label not in second]
    right = [label for label in second if label not in first]
    if sizes is None or any(label not in result for label in left + right):
        return None

    def arranged(which: int, groups: list[list[str]]) -> fx.Node:
        letters = (first, second)[which]
        order = [letters.index(label) for group in groups for label in group]
        moved = emit.permute(operands[which], order)
        before = [sizes[label] for group in groups for label in group]
        return emit.reshape(moved, before, _merged(groups, sizes))

    each = [[label] for label in batch]
    a = arranged(0, [*each, left, summed])
    if not batch and ops.is_constant(operands[1]):
        product = emit(aten.linear.default, a, arranged(1, [right, summed]))
    else:
        product = emit(aten.matmul.default, a, arranged(1, [*each, summed, right]))
    letters = [*batch, *left, *right]
    product = emit.reshape(product, _merged([*each, left, right], sizes), [sizes[label] for label in letters])
    return emit.permute(product, [letters.index(label) for label in result])


def parse(equation: str, ranks: Sequence[int]) -> tuple[str, str, str] | None:
    """The labels of both operands and of the result, "..." spelled out; None where one repeats a label."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    operands = inputs.split(",")
    if len(operands) != 2:
        return None
    free = [letter for letter in string.ascii_letters if letter not in equation]
    rest = max(rank - len(o.replace("...", "")) for o, rank in zip(operands, ranks, strict=True))
    dots = "".join(free[: max(0, rest)]) if "..." in inputs else ""
    spelled = []
    for operand, rank in zip(operands, ranks, strict=True):
        own = rank - len(operand.replace("...", ""))
        spelled.append(operand.replace("...", dots[len(dots) - own :] if own else ""))
    if not arrow:
        every = "".join(spelled)
        result = dots + "".join(sorted(label for label in set(every) - set(dots) if every.count(label) == 1))
    result = result.replace("...", dots)
    if any(len(set(part)) != len(part) for part in (*spelled, result)):
        return None
    return spelled[0], spelled[1], result


def _sizes(operands: Sequence[fx.Node], labels: Sequence[str]) -> dict[str, int] | None:
    """Size of each label, -1 for the free one; None where one operand is broadcast, or two sizes are free."""
    sizes: dict[str, int] = {}
    for operand, letters in zip(operands, labels, strict=True):
        for label, size in zip(letters, ops.shape_of(operand) or (), strict=True):
            known = int(size) if isinstance(size, int) else -1
            if sizes.setdefault(label, known) != known:
                return None
    return sizes if list(sizes.values()).count(-1) <= 1 else None


def _merged(groups: Sequence[Sequence[str]], sizes: dict[str, int]) -> list[int]:
    """One size for each group: their product, -1 where one is free, 1 of none."""
    merged = []
    for group in groups:
        size = 1
        for label in group:
            size = -1 if -1 in (size, sizes[label]) else size * sizes[label]
        merged.append(size)
    return merged


_REWRITES: dict[Any, Callable[[_Emitter, fx.Node], fx.Node | None]] = {
    torch.ops.aten.matmul.default: _matmul,
    torch.ops.aten.mm.default: _matmul,
    torch.ops.aten.addmm.default: _addmm,
    torch.ops.aten.baddbmm.default: _addmm,
    torch.ops.aten.linear.default: _linear,
    torch.ops.aten.einsum.default: _einsum,
}
