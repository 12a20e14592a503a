"""Preprocessing inside the model: raw uint8 pixels in, channels last, as a camera gives them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.errors import ExportError
from edgekit.formats.options import ExportOptions
from edgekit.graph import ops
from edgekit.tensors import Tensors


def refuse(options: ExportOptions, example: Tensors, where: str) -> None:
    """Raise ExportError if ``options.preprocessing`` can't stand inside a model.

    Args:
        options: with a preprocessing, or without (then there is nothing to refuse).
        example: one preprocessed input, (1, C, H, W).
        where: for the message.
    """
    preprocessing = options.preprocessing
    if preprocessing is None:
        return
    reason = ""
    channels = example.shape[1] if isinstance(example, Tensor) and example.dim() > 1 else 0
    if not isinstance(example, Tensor):
        reason = f"there are several inputs: {', '.join(example.names)}"
    elif preprocessing.dtype != "float32" or preprocessing.layout == "any" or example.dim() != 4:
        reason = f"these inputs are no images: {preprocessing.dtype}, layout {preprocessing.layout!r}"
    elif preprocessing.size is not None and options.raw_size is None:
        reason = f"images are resized to {preprocessing.size}, and nobody says from what size"
    elif not {len(preprocessing.mean), len(preprocessing.std)} <= {1, channels}:
        reason = f"mean and std have other channels than the input's {channels}"
    if reason:
        raise ExportError(
            "this preprocessing can't be embedded",
            where=where,
            got=reason,
            expected="images of one known size, scaled and normalised",
            next="export without --embed-preprocessing, and preprocess in the app",
        )


def embed(graph: fx.GraphModule, example: Tensors, options: ExportOptions) -> tuple[fx.GraphModule, Tensor]:
    """A copy of the graph that takes raw pixels, and an example of them.

    What ``Preprocessing`` does is done in the same order and in float32, so that a float file answers as the
    Python preprocessing does; an int8 file quantises its result on the grid that the graph has. Where pixels
    are the first layer's integers already (``pixel_grid``, and a graph spelled uint8) nothing is computed.

    Args:
        graph: float or int8, with one input (N, C, H, W).
        example: one input, (1, C, H, W).
        options: with a preprocessing that ``refuse`` has let pass.

    Returns:
        The graph with one input (N, H, W, C) uint8 of the raw size, and zeros of that shape for N = 1.
    """
    assert isinstance(example, Tensor)  # ``refuse``
    graph = copy.deepcopy(graph)
    old = _input(graph)
    size = options.raw_size or tuple(example.shape[2:])
    pixels = torch.zeros(1, *size, example.shape[1], dtype=torch.uint8)
    grid = pixel_grid(graph, options)
    with graph.graph.inserting_before(old):
        raw = graph.graph.placeholder("pixels")
    raw.meta["val"] = pixels
    if grid is None or any(node.args[5] is not torch.uint8 for node in old.users):
        _compute(graph, old, raw, options)
    else:
        _reinterpret(graph, old, raw, *grid)
    graph.graph.erase_node(old)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, pixels


def pixel_grid(graph: fx.GraphModule, options: ExportOptions) -> tuple[float, int] | None:
    """(scale, uint8 zero point) of pixels that the first layer of an int8 graph can take as they are.

    So it is where all channels share one scale and mean, and ``mean / scale`` is a byte: preprocessed values
    are then ``(raw - zero point) * scale``, exactly, where the calibrated grid would have rounded them once
    more. None for any other preprocessing, a float graph, or an input that is more than a layer's: other ops
    want one grid for several tensors, or carry the input's grid on.
    """
    preprocessing = options.preprocessing
    assert preprocessing is not None
    if preprocessing.size not in (None, options.raw_size):
        return None
    if len(set(preprocessing.mean)) > 1 or len(set(preprocessing.std)) > 1 or preprocessing.scale < 0:
        return None
    zero = preprocessing.mean[0] / preprocessing.scale
    if abs(zero - round(zero)) > 1e-4 or not 0 <= round(zero) <= 255:
        return None
    return (preprocessing.scale / preprocessing.std[0], round(zero)) if _feeds_layers(graph) else None


def on_pixel_grid(graph: fx.GraphModule, grid: tuple[float, int]) -> fx.GraphModule:
    """A copy whose input is quantised on ``pixel_grid``'s grid: its integers are the pixels less 128."""
    graph = copy.deepcopy(graph)
    scale, zero = grid
    for quantizer in list(_input(graph).users):
        for node in (quantizer, *list(quantizer.users)):
            node.args = (node.args[0], scale, zero - 128, -128, 127, torch.int8)
    graph.recompile()
    return graph


def _input(graph: fx.GraphModule) -> fx.Node:
    nodes: list[fx.Node] = list(graph.graph.nodes)
    return next(node for node in nodes if node.op == "placeholder")


def _feeds_layers(graph: fx.GraphModule) -> bool:
    """Whether the input is quantised, and nothing but convolutions and linear layers reads it."""
    quantizers = list(_input(graph).users)
    pairs = [pair for quantizer in quantizers for pair in quantizer.users]
    return (
        bool(pairs)
        and all(node.target is ops.qd.quantize_per_tensor.default for node in quantizers)
        and all(node.target is ops.qd.dequantize_per_tensor.default for node in pairs)
        and all(
            user.target in ops.WEIGHTED and user.args[0] is pair and ops.is_constant(user.args[1])
            for pair in pairs
            for user in pair.users
        )
    )


def _compute(graph: fx.GraphModule, old: fx.Node, raw: fx.Node, options: ExportOptions) -> None:
    """(raw * scale - mean) / std on channels last, then channels first, then resized."""
    preprocessing = options.preprocessing
    assert preprocessing is not None
    constants = {}
    for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        constants[name] = _constant(graph, f"preprocessing_{name}", torch.tensor(values))
    constants["scale"] = _constant(graph, "preprocessing_scale", torch.tensor([preprocessing.scale]))
    steps = [
        (ops.aten.mul.Tensor, "scale", preprocessing.scale == 1),
        (ops.aten.sub.Tensor, "mean", set(preprocessing.mean) == {0.0}),
        (ops.aten.div.Tensor, "std", set(preprocessing.std) == {1.0}),
    ]
    with graph.graph.inserting_before(old):
        value = graph.graph.call_function(ops.aten._to_copy.default, (raw,), {"dtype": torch.float32})
        for operation, constant, nothing in steps:
            if not nothing:
                value = graph.graph.call_function(operation, (value, constants[constant]))
        value = graph.graph.call_function(ops.aten.permute.default, (value, [0, 3, 1, 2]))
        if preprocessing.size not in (None, options.raw_size):
            resize = ops.aten.upsample_bilinear2d.vec
            value = graph.graph.call_function(resize, (value, list(preprocessing.size), False, None))
    value.meta["val"] = old.meta.get("val")
    old.replace_all_uses_with(value)


def _constant(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    first = next(iter(graph.graph.nodes))
    ops.set_attribute(graph, name, value)
    with graph.graph.inserting_before(first):
        node = graph.graph.create_node("get_attr", name)
    node.meta["val"] = value
    return node


def _reinterpret(graph: fx.GraphModule, old: fx.Node, raw: fx.Node, scale: float, zero: int) -> None:
    """Take the pixels as the first layer's integers."""
    with graph.graph.inserting_before(old):
        value = graph.graph.call_function(ops.aten.permute.default, (raw, [0, 3, 1, 2]))
        dequantize: Any = ops.qd.dequantize_per_tensor.default
        new = graph.graph.call_function(dequantize, (value, scale, zero, 0, 255, torch.uint8))
    new.meta["val"] = old.meta.get("val")
    for quantizer in list(old.users):
        for pair in list(quantizer.users):
            pair.replace_all_uses_with(new)
            graph.graph.erase_node(pair)
        graph.graph.erase_node(quantizer)
