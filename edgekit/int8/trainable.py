"""The form of the int8 graph that is trained: quantise/dequantise pairs as fake-quantise ops, and back.

``aten.fake_quantize_*`` computes what the pair computes and passes gradients straight through inside the
range (straight-through estimator; Jacob et al. 2018, arXiv 1712.05877, section 3). Scales and zero points
stay as calibrated; weights and biases learn.
"""

from __future__ import annotations

import copy

import torch
from torch import fx

from edgekit.int8 import ops


def trainable(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy of the int8 graph in which every parameter gets gradients.

    Pairs behind ops that only move numbers are left out: what they get lies on their grid already.
    """
    graph = copy.deepcopy(graph)
    for node in list(graph.graph.nodes):
        if node.target in ops.DEQUANTIZE:
            node.replace_all_uses_with(_fake_quantize(graph, node))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    for parameter in graph.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return graph


def _fake_quantize(graph: fx.GraphModule, dequantize: fx.Node) -> fx.Node:
    quantize = dequantize.args[0]
    assert isinstance(quantize, fx.Node)
    value = quantize.args[0]
    assert isinstance(value, fx.Node)
    if _is_on_grid(value, quantize):
        return value
    for other in quantize.users:  # one fake-quantise for all consumers of a quantised value
        if other.meta.get("fake") is not None:
            known = other.meta["fake"]
            assert isinstance(known, fx.Node)
            return known
    with graph.graph.inserting_before(quantize):
        if quantize.target is ops.qd.quantize_per_tensor.default:
            fake = graph.graph.call_function(
                ops.aten.fake_quantize_per_tensor_affine.default, quantize.args[:5]
            )
        else:
            _, scale, zero_point, axis, low, high, _ = quantize.args
            zero = graph.graph.call_function(ops.aten.to.dtype, (zero_point, torch.int32))
            fake = graph.graph.call_function(
                ops.aten.fake_quantize_per_channel_affine.default, (value, scale, zero, axis, low, high)
            )
    dequantize.meta["fake"] = fake
    return fake


def _is_on_grid(value: fx.Node, quantize: fx.Node) -> bool:
    """Whether ``value`` comes out of a move of numbers that lie on the grid of ``quantize``."""
    if value.target not in ops.MOVES or value.target is ops.aten.avg_pool2d.default:
        return False
    source = value.args[0]
    return (
        isinstance(source, fx.Node)
        and source.target is ops.aten.fake_quantize_per_tensor_affine.default
        and tuple(source.args[1:3]) == tuple(quantize.args[1:3])
    )


def copy_parameters(trained: fx.GraphModule, graph: fx.GraphModule) -> None:
    """Write the trained weights and biases back into the int8 graph, in place.

    Raises:
        KeyError: ``trained`` isn't the trainable form of ``graph``.
    """
    source = dict(trained.named_parameters())
    with torch.no_grad():
        for name, parameter in graph.named_parameters():
            parameter.copy_(source[name])
