"""The form of the int8 graph that is trained: quantise/dequantise pairs as fake-quantise ops, and back.

The ops compute what the pairs compute and let gradients through (``fake_quantize.py``). Weights and biases
learn, but for frozen ones; zero points stay as calibrated, and so do scales unless they are told to learn
(``scales.py``).
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from edgekit.graph import ops
from edgekit.int8.fake_quantize import (
    fake_quantize,
    fake_quantize_channels,
    learned_fake_quantize,
    learned_fake_quantize_channels,
)
from edgekit.int8.scales import Learned, LearnedScales

_PER_TENSOR = {fake_quantize, learned_fake_quantize}


def trainable(
    graph: fx.GraphModule, scales: LearnedScales | None = None, frozen: Collection[str] = ()
) -> fx.GraphModule:
    """A copy of the int8 graph in which every parameter gets gradients, but for those that are frozen.

    Pairs behind ops that only move numbers are left out: what they get lies on their grid already.

    Args:
        graph: the int8 graph; it is not changed.
        scales: which scales learn, as ``LearnedScales.of(graph)`` found them; None for none.
        frozen: names of parameters that stay; so does a scale by which such a weight is rounded.

    Raises:
        ValueError: a weight has another grid than edgekit's own, symmetric one.
    """
    graph = copy.deepcopy(graph)
    learned = {} if scales is None else scales.add_parameters(graph)
    stay = {*frozen, *_scales_of(learned, frozen)}
    for node in list(graph.graph.nodes):
        if node.target in ops.DEQUANTIZE:
            node.replace_all_uses_with(_fake_quantize(graph, node, learned))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    for name, parameter in graph.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point() and name not in stay)
    return graph


def _scales_of(learned: dict[fx.Node, Learned], weights: Collection[str]) -> set[str]:
    """Names of the scales by which these weights are rounded."""
    return {
        scale.name
        for quantize, scale in learned.items()
        if isinstance(quantize.args[0], fx.Node) and str(quantize.args[0].target) in weights
    }


def _fake_quantize(graph: fx.GraphModule, dequantize: fx.Node, learned: dict[fx.Node, Learned]) -> fx.Node:
    quantize = dequantize.args[0]
    assert isinstance(quantize, fx.Node)
    value = quantize.args[0]
    assert isinstance(value, fx.Node)
    grid = (*quantize.args[1:3], learned.get(quantize))
    if _is_on_grid(value, grid):
        return value
    for other in quantize.users:  # one fake-quantise for all consumers of a quantised value
        if other.meta.get("fake") is not None:
            known = other.meta["fake"]
            assert isinstance(known, fx.Node)
            return known
    with graph.graph.inserting_before(quantize):
        if quantize.target is ops.qd.quantize_per_tensor.default:
            fake = _per_tensor(graph, quantize, learned.get(quantize))
        else:
            fake = _per_channel(graph, quantize, learned.get(quantize))
    fake.meta["grid"] = grid
    dequantize.meta["fake"] = fake
    return fake


def _per_tensor(graph: fx.GraphModule, quantize: fx.Node, learned: Learned | None) -> fx.Node:
    call, (value, scale, *grid) = graph.graph.call_function, quantize.args[:5]
    if learned is None:
        return call(fake_quantize, (value, scale, *grid))
    parameter = graph.graph.get_attr(learned.name)
    bounds = (learned.smallest, learned.largest)
    return call(learned_fake_quantize, (value, parameter, *grid, *bounds, ops.is_constant(value)))


def _per_channel(graph: fx.GraphModule, quantize: fx.Node, learned: Learned | None) -> fx.Node:
    value, scale, zero_point, axis, low, high, _ = quantize.args
    assert isinstance(zero_point, fx.Node)
    if (low, high) != (-127, 127) or bool(ops.attribute(graph, str(zero_point.target)).any()):
        raise ValueError(f"{quantize.name}: a weight that is not on a symmetric int8 grid")
    if learned is None:
        return graph.graph.call_function(fake_quantize_channels, (value, scale, axis))
    parameter, floor = graph.graph.get_attr(learned.name), graph.graph.get_attr(learned.floor_name)
    return graph.graph.call_function(learned_fake_quantize_channels, (value, parameter, axis, floor))


def _is_on_grid(value: fx.Node, grid: tuple[Any, ...]) -> bool:
    """Whether ``value`` comes out of a move of numbers that lie on ``grid``."""
    if value.target not in ops.MOVES or not ops.moves_zero_alone(value):
        return False
    source = value.args[0]
    return isinstance(source, fx.Node) and source.target in _PER_TENSOR and source.meta["grid"] == grid


def copy_parameters(trained: fx.GraphModule, graph: fx.GraphModule) -> None:
    """Write the trained weights and biases back into the int8 graph, in place.

    Raises:
        KeyError: ``trained`` isn't the trainable form of ``graph``.
    """
    source = dict(trained.named_parameters())
    with torch.no_grad():
        for name, parameter in graph.named_parameters():
            parameter.copy_(source[name])
