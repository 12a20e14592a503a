"""The ATen ops that the int8 graph knows, by the role that they play in it."""

from __future__ import annotations

import contextlib
import operator
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

# Registers the quantized_decomposed namespace, which torch itself doesn't load on import.
from torch.ao.quantization.fx import _decomposed  # noqa: F401

from edgekit.tensors import NamedTensors, Tensors

aten = torch.ops.aten
qd = torch.ops.quantized_decomposed

CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv1d.padding,
    aten.conv3d.default,
    aten.convolution.default,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
}
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input}
LINEAR = {aten.linear.default}
WEIGHTED = CONVOLUTIONS | LINEAR
# Layers over time, whole: (input, states, weights and biases, …), see ``int8/recurrent.py``.
RECURRENT = {aten.lstm.input, aten.gru.input}
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
# Between the smallest and the largest of its inputs: the output fits the grid of the input, without lying on
# it. LiteRT wants one scale for input and output of these.
AVERAGES = {
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_bilinear2d.default,
}
# Functions of one number. Their results have a grid that is known beforehand: (scale, zero point) in int8,
# the one that LiteRT's kernels demand.
FIXED_GRID = {
    aten.sigmoid.default: (1 / 256, -128),
    aten.softmax.int: (1 / 256, -128),
    aten.tanh.default: (1 / 128, 0),
}
ACTIVATIONS = {
    *FIXED_GRID,
    aten.hardswish.default,
    aten.hardsigmoid.default,
    aten.silu.default,
    aten.gelu.default,
    aten.leaky_relu.default,
    aten.elu.default,
    aten.prelu.default,
    aten.mish.default,
    aten.softplus.default,
}
# Ops that move numbers or choose among them: what comes out lies on the grid of what went in.
MOVES = {
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.permute.default,
    aten.transpose.int,
    aten.t.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.expand.default,
    aten.repeat.default,
    aten.contiguous.default,
    aten.clone.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.amax.default,
    aten.pad.default,
    aten.constant_pad_nd.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest2d.default,
    aten.embedding.default,
    aten.index_select.default,
    aten.roll.default,
    aten.flip.default,
}
ONE_GRID = MOVES | AVERAGES | CONCATENATIONS
# Compute on integers, and give integers: where a quantiser belongs behind them and in front of them.
INTEGER = WEIGHTED | SUMS | PRODUCTS | MATMULS | MEANS | CONCATENATIONS | AVERAGES | ACTIVATIONS
QUANTIZE = {qd.quantize_per_tensor.default, qd.quantize_per_channel.default}
DEQUANTIZE = {qd.dequantize_per_tensor.default, qd.dequantize_per_channel.default}


# Behind a name that an attribute of fx.GraphModule would hide (``prepare.py``).
RENAMED = "__renamed"
_CONSTANTS = "_edgekit_constants"  # attribute of an fx.Graph: what ``is_constant`` has found in it


def user_name(name: str) -> str:
    """A name in the graph as it stands in the user's own model."""
    return name.replace(RENAMED, "")


def input_names(graph: fx.GraphModule, example: Tensors) -> list[str]:
    """What a file calls the graph's inputs, in their order; a plain one is "input"."""
    if not isinstance(example, NamedTensors):
        return ["input"]
    return [str(node.target) for node in graph.graph.nodes if node.op == "placeholder"]


def zeros_for(graph: fx.GraphModule) -> Tensors:
    """Zeros in the shapes and types that the graph takes, one sample; by name where there are several."""
    given = {str(node.target): node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"}
    zeros = {
        name: torch.zeros([1, *(int(size) for size in value.shape[1:])], dtype=value.dtype)
        for name, value in given.items()
    }
    plain = len(zeros) == 1 and getattr(graph.graph._codegen, "pytree_info", None) is not None
    return next(iter(zeros.values())) if plain else NamedTensors(zeros)


def results(graph: fx.GraphModule) -> dict[str, fx.Node]:
    """What the graph gives, by name; one alone is "output"."""
    (given,) = next(node for node in graph.graph.nodes if node.op == "output").args
    if isinstance(given, dict):
        return dict(given)
    if isinstance(given, list | tuple):
        names = ("output", *(f"output_{index}" for index in range(1, len(given))))
        return dict(zip(names, given, strict=True))
    return {"output": given}


def layer_of(node: fx.Node) -> str:
    """Dotted name of the module of the user's model whose forward() calls the node; "" outside of any."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    return user_name(path.removeprefix("L['self'].").removeprefix("L['self']"))


def shape_of(node: Any) -> torch.Size | None:
    """Shape of a node's value as captured (the batch may be symbolic), or None where it isn't known."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value.shape if isinstance(value, torch.Tensor) else None


def is_float(node: Any) -> bool:
    """Whether the node's value is a floating-point tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def is_constant(node: Any) -> bool:
    """Whether the node is a parameter or a buffer, or computed from those alone.

    Iterative, and remembered for each graph, so that asking for all nodes takes time linear in their number
    however deep the graph is. Rewrites keep what a node computes, and ``refresh`` forgets all answers.
    """
    if not isinstance(node, fx.Node):
        return True
    known: dict[fx.Node, bool] = node.graph.__dict__.setdefault(_CONSTANTS, {})
    todo = [node]
    while todo:
        one = todo[-1]
        sources = one.all_input_nodes if one.op == "call_function" and one.args else ()
        if one in known:
            todo.pop()
        elif any(known.get(source) is False for source in sources):
            known[one] = False
        elif unknown := [source for source in sources if source not in known]:
            todo += unknown[:1]
        else:
            known[one] = one.op == "get_attr" or (
                one.op == "call_function"
                and bool(one.args)
                and (bool(sources) or isinstance(one.meta.get("val"), torch.Tensor))
            )
    return known[node]


def moves_zero_alone(node: fx.Node) -> bool:
    """Whether a pad puts in zeros (which every grid holds) or numbers of its input; true for other moves."""
    if node.target is aten.constant_pad_nd.default:
        return float(node.args[2] if len(node.args) > 2 else 0) == 0  # type: ignore[arg-type]
    if node.target is aten.pad.default and (len(node.args) < 3 or node.args[2] == "constant"):
        value = node.args[3] if len(node.args) > 3 else 0
        return float(value or 0) == 0  # type: ignore[arg-type]
    return True


def attribute(graph: fx.GraphModule, name: str) -> torch.Tensor:
    """The tensor behind a ``get_attr`` node's dotted name."""
    value: Any = operator.attrgetter(name)(graph)
    assert isinstance(value, torch.Tensor)
    return value


def readers(graph: fx.GraphModule) -> Counter[str]:
    """How many ``get_attr`` nodes there are for each parameter or buffer, by its name."""
    return Counter(str(node.target) for node in graph.graph.nodes if node.op == "get_attr")


def is_own(operand: Any, read: Mapping[str, int]) -> bool:
    """Whether a weight or bias is a parameter that nothing else reads, or isn't there.

    ``read``: what ``readers`` gave.
    """
    return operand is None or (
        isinstance(operand, fx.Node)
        and operand.op == "get_attr"
        and len(operand.users) == read[str(operand.target)] == 1
    )


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


def for_each_axis(value: Any, dims: int) -> list[int]:
    """A convolution's or pooling's stride, padding, dilation or kernel: one number is that of all axes.

    Empty where nothing was given (None, []), which is for the op to interpret.
    """
    values = [value] if isinstance(value, int) else list(value or [])
    return values * dims if len(values) == 1 else values


def constant_node(graph: fx.GraphModule, name: str, value: torch.Tensor) -> fx.Node:
    """A ``get_attr`` node (at the graph's insertion point) for a new parameter or buffer."""
    set_attribute(graph, name, value)
    node = graph.graph.create_node("get_attr", name)
    node.meta["val"] = value.detach()
    return node


def refresh(graph: fx.GraphModule) -> None:
    """Compute the shapes of nodes that a rewrite put in (``meta["val"]``), and drop what nothing reads."""
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    graph.graph.__dict__.pop(_CONSTANTS, None)
    modes = [getattr(node.meta.get("val"), "fake_mode", None) for node in graph.graph.nodes]
    usual = next(mode for mode in modes if mode is not None)
    for node in graph.graph.nodes:
        if node.op == "get_attr" and "val" not in node.meta:
            node.meta["val"] = attribute(graph, str(node.target)).detach()
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.meta.get("val") is None:
            _compute_shape(node, usual)


def _compute_shape(node: fx.Node, usual: Any) -> None:
    """In the mode of what the node reads: sizes mean nothing in another one."""
    read = (getattr(source.meta["val"], "fake_mode", None) for source in node.all_input_nodes)
    mode: Any = next((one for one in read if one is not None), usual)

    def known(source: fx.Node) -> Any:
        value = source.meta["val"]  # what copying a graph leaves of it can't be computed with
        return torch.empty(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value

    # What torch asks about sizes on the way must not bind the batch to the example's.
    with mode, mode.shape_env.suppress_guards() if mode.shape_env else contextlib.nullcontext():
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), known)
        node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]
