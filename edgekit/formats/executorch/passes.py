"""The captured graph as XNNPACK's partitioner in ExecuTorch wants it spelled. No pass changes a result."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.fx.passes.infra.pass_base import PassResult

from edgekit.formats.subsampling import subsample_by_convolution
from edgekit.graph import ops
from edgekit.int8.grid import bake_weights, spell


def spell_for_xnnpack(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy, int8 throughout and with baked weights, that XNNPACK's partitioner takes whole.

    What it computes stays bit for bit the same.

    Raises:
        ValueError: a weight's zero point isn't 0: XNNPACK would take it for 0 and answer wrongly.
    """
    graph = spell(graph, torch.int8)
    _check_weights(graph)
    subsample_by_convolution(graph)
    keep_dimensions(graph)
    join_on_one_grid(graph)
    clamp_as_hardtanh(graph)
    open_hardsigmoid(graph)
    open_pixel_shuffle(graph)
    own_biases(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return bake_weights(graph)


def _check_weights(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        weight = node.args[1] if node.target in ops.WEIGHTED else None
        if isinstance(weight, fx.Node) and weight.target is ops.qd.dequantize_per_channel.default:
            name = str(weight.args[2].target)  # type: ignore[union-attr]
            if bool(ops.attribute(graph, name).any()):
                raise ValueError(f"{name} isn't 0 throughout, but XNNPACK's weights are symmetric")


def keep_dimensions(graph: fx.GraphModule) -> None:
    """Spell a mean over height and width as one that keeps them, and a reshape: XNNPACK has that kernel.

    Between quantised tensors the mean is quantised before the reshape, as it was behind it.
    """
    for node in list(graph.graph.nodes):
        shape = ops.shape_of(node.args[0]) if node.target is ops.aten.mean.dim else None
        if shape is None or len(shape) != 4 or node.kwargs or sorted(d % 4 for d in node.args[1]) != [2, 3]:
            continue
        if len(node.args) > 2 and node.args[2]:
            continue
        with graph.graph.inserting_after(node):
            flat = graph.graph.call_function(ops.aten.reshape.default, (node, [-1, int(shape[1])]))
        flat.meta = dict(node.meta)
        node.replace_all_uses_with(flat, delete_user_cb=lambda user, flat=flat: user is not flat)
        node.args = (*node.args[:2], True)
        if isinstance(node.meta.get("val"), torch.Tensor):
            node.meta["val"] = node.meta["val"][:, :, None, None]
        grids = {user.args[1:] for user in flat.users if user.target is ops.qd.quantize_per_tensor.default}
        if len(grids) == 1 and all(user.target in ops.QUANTIZE for user in flat.users):
            flat.args = (_pair(graph, flat, node, grids.pop()), flat.args[1])


def join_on_one_grid(graph: fx.GraphModule) -> None:
    """Requantise the parts of a concatenation that aren't on its output's grid: XNNPACK copies integers.

    A concatenation of one part, which XNNPACK doesn't have, goes.
    """
    for node in list(graph.graph.nodes):
        users = list(node.users)
        if node.target in ops.CONCATENATIONS and len(node.args[0]) == 1:
            node.replace_all_uses_with(node.args[0][0])
            graph.graph.erase_node(node)
            continue
        if node.target not in ops.CONCATENATIONS or len(users) != 1 or users[0].target not in ops.QUANTIZE:
            continue
        grid = users[0].args[1:]
        for index, part in enumerate(node.args[0]):
            if part.target is ops.qd.dequantize_per_tensor.default and part.args[1:] != grid:
                parts = list(node.args[0])
                parts[index] = _pair(graph, node, part, grid)
                node.args = (parts, *node.args[1:])


def clamp_as_hardtanh(graph: fx.GraphModule) -> None:
    """Spell every clamp between two numbers as hardtanh, the one that fuses with the op in front of it."""
    aten = ops.aten
    for node in graph.graph.nodes:
        bounds = node.args[1:3]
        if node.target is aten.relu6.default:
            node.target, node.args = aten.hardtanh.default, (node.args[0], 0.0, 6.0)
        elif node.target is aten.clamp.default and len(bounds) == 2 and None not in bounds:
            node.target = aten.hardtanh.default


def open_hardsigmoid(graph: fx.GraphModule) -> None:
    """Spell hardsigmoid as ``clamp(x + 3, 0, 6) / 6``, which torch would do with integers.

    ExecuTorch would convert these to float in every run, outside of XNNPACK.
    """
    for node in list(graph.graph.nodes):
        if node.target is ops.aten.hardsigmoid.default:
            with graph.graph.inserting_before(node):
                three = ops.constant_node(graph, f"{node.name}_three", torch.tensor(3.0))
                six = ops.constant_node(graph, f"{node.name}_six", torch.tensor(6.0))
                moved = graph.graph.call_function(ops.aten.add.Tensor, (node.args[0], three))
                clamped = graph.graph.call_function(ops.aten.hardtanh.default, (moved, 0.0, 6.0))
                result = graph.graph.call_function(ops.aten.div.Tensor, (clamped, six))
            result.meta = dict(node.meta)
            node.replace_all_uses_with(result)
            graph.graph.erase_node(node)


def open_pixel_shuffle(graph: fx.GraphModule) -> None:
    """Spell a pixel shuffle as reshape, permute, reshape: XNNPACK has these, on integers too."""
    for node in list(graph.graph.nodes):
        shape = ops.shape_of(node) if node.target is ops.aten.pixel_shuffle.default else None
        if shape is None or len(shape) != 4:
            continue
        (channels, height, width), factor = map(int, shape[1:]), int(node.args[1])
        steps = (
            (ops.aten.reshape.default, [-1, channels, factor, factor, height // factor, width // factor]),
            (ops.aten.permute.default, [0, 1, 4, 2, 5, 3]),
            (ops.aten.reshape.default, [-1, channels, height, width]),
        )
        source = node.args[0]
        grid = source.args[1:] if source.target is ops.qd.dequantize_per_tensor.default else None
        for target, argument in steps:
            with graph.graph.inserting_before(node):
                step = graph.graph.call_function(target, (source, argument))
            source = step if grid is None or argument is steps[-1][1] else _pair(graph, node, step, grid)
        source.meta = dict(node.meta)
        node.replace_all_uses_with(source)
        graph.graph.erase_node(node)


def own_biases(graph: fx.GraphModule) -> None:
    """Give every layer its own bias: its integers depend on the input's scale, which differs."""
    seen: set[fx.Node] = set()
    for node in list(graph.graph.nodes):
        bias = node.args[2] if node.target in ops.WEIGHTED and len(node.args) > 2 else None
        if isinstance(bias, fx.Node) and bias.op == "get_attr":
            if bias in seen:
                value = ops.attribute(graph, str(bias.target)).detach().clone()
                with graph.graph.inserting_before(node):
                    copy = ops.constant_node(graph, f"{node.name}_bias", value)
                node.args = (*node.args[:2], copy, *node.args[3:])
            seen.add(bias)


def own_dequantizers(graph: fx.GraphModule) -> PassResult:
    """Give every consumer of a quantised value its own dequantise op, in place: an ExecuTorch pass.

    The partitioner makes it part of the consumer. One that two share draws both into one partition, even when
    an op between them stays outside ("Invalid partition, found dependency cycles"); and one that is also an
    output of its partition may come out channels last where channels first is expected: wrong, silently.
    """
    changed = False
    for node in list(graph.graph.nodes):
        if not getattr(node.target, "__name__", "").endswith("dequantize_per_tensor.default"):
            continue
        for user in list(node.users)[1:]:
            with graph.graph.inserting_before(user):
                copy = graph.graph.node_copy(node, lambda value: value)
            user.replace_input_with(node, copy)
            changed = True
    graph.recompile()
    return PassResult(graph, changed)


def _pair(graph: fx.GraphModule, before: fx.Node, source: fx.Node, grid: tuple[Any, ...]) -> fx.Node:
    with graph.graph.inserting_before(before):
        quantized = graph.graph.call_function(ops.qd.quantize_per_tensor.default, (source, *grid))
        pair = graph.graph.call_function(ops.qd.dequantize_per_tensor.default, (quantized, *grid))
    pair.meta = dict(source.meta)
    return pair
