"""A model that only answers, made faster: batch norm folded, and a convolution's activation and residual
addition computed by the convolution itself.

oneDNN's convolutions write their result once, with what follows already done to it; as separate ops a
residual block goes through memory five times more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekit.errors import CaptureError
from edgekit.execution import call, mode
from edgekit.tensors import NamedTensors, Tensors
from edgekit.training.distillation.taps import Taps

__all__ = ["fused"]

_TOLERANCE = 1e-4  # of the largest answer: float32 sums in another order


def fused(model: nn.Module, example: Tensors, watched: Sequence[str] = ()) -> fx.GraphModule | None:
    """``model`` in eval mode as a graph with fused convolutions, or None where that can't be had.

    Args:
        model: any module; not changed.
        example: (N, …) as the model takes it. The graph's answers to it are compared with the model's.
        watched: layers by name; with any, the graph gives the answer, features of the first, of the second, …

    Returns:
        A graph for inference of any batch of 1 … ``int8.capture.MAX_BATCH``; or None if the model can't be
        captured, has no convolution that fuses, or the graph's answers differ by more than 1e-4 of the
        largest.
    """
    from edgekit.graph.capture import capture

    if not torch.backends.mkldnn.is_available() or not isinstance(example, Tensor):
        return None
    try:
        model = _Watched(model, watched) if watched else model
        graph = capture(model, example)
    except CaptureError:
        return None
    count = _fuse(graph)
    if not count:
        return None
    graph.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # oneDNN refuses what it has no kernel for only when it is asked; then there is no fast form.
    order = torch.channels_last if example.dim() == 4 else torch.contiguous_format
    with contextlib.suppress(RuntimeError), mode(model, training=False), torch.inference_mode():
        if _equal(call(graph, example.contiguous(memory_format=order)), call(model, example)):
            return graph
    return None


class _Watched(nn.Module):
    """Answers, and tells what some layers gave."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, x: Tensor) -> Any:
        taps = Taps(self.model, self.names)
        try:
            with taps.recording():
                answer = call(self.model, x)
            assert isinstance(answer, Tensor)
            return answer, *taps.take()
        finally:
            taps.close()


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(found, NamedTensors) and isinstance(expected, NamedTensors):
        return found.names == expected.names and all(map(_equal, found.values(), expected.values()))
    if not isinstance(found, Tensor) or not isinstance(expected, Tensor) or found.shape != expected.shape:
        return False
    bound = _TOLERANCE * float(expected.abs().max())
    return bool(((found - expected).abs() <= bound).all())


def _fuse(graph: fx.GraphModule) -> int:
    """Replace every two-dimensional convolution by its fused form; how many took something in."""
    aten = torch.ops.aten
    count = 0
    for node in list(graph.graph.nodes):
        value = node.meta.get("val")
        if node.target is not aten.conv2d.default or getattr(value, "dtype", None) is not torch.float32:
            continue
        last, other, activation = _followers(node)
        if last is node:
            continue
        _replace(graph, node, last, other, activation)
        count += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return count


def _followers(conv: fx.Node) -> tuple[fx.Node, fx.Node | None, tuple[str, list[float]] | None]:
    """The last node that the convolution can take in, the tensor that is added, the activation."""
    last, other = conv, None
    follower = _only_user(last)
    if follower is not None and _adds_equals(follower, conv):
        first, second = follower.args
        candidate = second if first is conv else first
        if isinstance(candidate, fx.Node):
            last, other, follower = follower, candidate, _only_user(follower)
    if follower is not None and (activation := _activation(follower, binary=other is not None)):
        return follower, other, activation
    return last, other, None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _adds_equals(node: fx.Node, conv: fx.Node) -> bool:
    """Whether it is an addition of two tensors of the convolution's own shape and type."""
    if node.target is not torch.ops.aten.add.Tensor or node.kwargs or len(node.args) != 2:
        return False
    if node.args[0] is node.args[1] or not all(isinstance(argument, fx.Node) for argument in node.args):
        return False
    own = conv.meta["val"]
    values = [argument.meta.get("val") for argument in node.args if isinstance(argument, fx.Node)]
    return all(isinstance(v, Tensor) and v.shape == own.shape and v.dtype is own.dtype for v in values)


def _activation(node: fx.Node, *, binary: bool) -> tuple[str, list[float]] | None:
    aten = torch.ops.aten
    if node.target is aten.relu.default:
        return "relu", []
    if binary:  # behind an addition oneDNN knows ReLU alone
        return None
    if node.target is aten.relu6.default:
        return "hardtanh", [0.0, 6.0]
    if node.target is aten.hardtanh.default:
        bounds = [*node.args[1:], *(-1.0, 1.0)[len(node.args) - 1 :]]
        return "hardtanh", [float(bound) for bound in bounds]  # type: ignore[arg-type]
    if node.target is aten.hardswish.default:
        return "hardswish", []
    return None


def _replace(
    graph: fx.GraphModule,
    conv: fx.Node,
    last: fx.Node,
    other: fx.Node | None,
    activation: tuple[str, list[float]] | None,
) -> None:
    inputs, weight, *rest = conv.args
    defaults: list[Any] = [None, [1, 1], [0, 0], [1, 1], 1]
    whole: list[Any] = [*rest, *defaults[len(rest) :]]
    bias, stride, padding, dilation, groups = whole
    kernel = [padding, stride, dilation, groups]
    name, scalars = activation or ("none", [])
    with graph.graph.inserting_before(last):  # by then all that it reads is there
        if other is None:
            arguments = (inputs, weight, bias, *kernel, name, scalars, "")
            target: Any = torch.ops.mkldnn._convolution_pointwise.default
        else:
            unary = name if activation else None
            arguments = (inputs, other, weight, bias, *kernel, "add", 1.0, unary, [], None)
            target = torch.ops.mkldnn._convolution_pointwise.binary
        new = graph.graph.call_function(target, arguments)
    new.meta = dict(last.meta)
    last.replace_all_uses_with(new)
