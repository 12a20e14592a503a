"""What an int32 accumulator holds: a channel's bias decides how fine the grid of its weights may be.

Behind a batch norm whose factor is nearly 0 a channel gives its offset and nothing else. Its weights are so
small that their own grid, times the input's, is far too fine for the offset to fit into int32: the file would
give another constant. Coarser weights lose nothing there: what they add to the result is below the 24th digit
of the bias. A channel whose weights are all 0 has no grid of its own, and gets one that suits its bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from edgekit.graph import ops

__all__ = ["LARGEST_BIAS", "Biased", "biased", "hold_biases"]

# Half of int32 is left to the sum of products.
LARGEST_BIAS = 2**30
# Digits of a bias beside weights of 0: more than float32 holds would be in vain.
_FINE_BIAS = 2**20
# A channel as much smaller than the largest is 0 in whatever reads both, and some kernels take no finer one.
_SMALLEST_SHARE = 2.0**-30


@dataclass(frozen=True)
class Biased:
    """A layer on integers: the scale of its input, names of its weight, weight scales (C,) and bias (C,)."""

    input_scale: float
    weight: str
    weight_scale: str
    bias: str
    channel_axis: int


def biased(graph: fx.GraphModule) -> list[Biased]:
    """All layers with a bias whose input and weight are quantised, in the graph's order."""
    found = []
    for node in graph.graph.nodes:
        bias = node.args[2] if node.target in ops.WEIGHTED and len(node.args) > 2 else None
        if not isinstance(bias, fx.Node) or bias.op != "get_attr":
            continue
        source, weight = node.args[:2]
        if source.target is not ops.qd.dequantize_per_tensor.default:
            continue
        if weight.target is not ops.qd.dequantize_per_channel.default:
            continue
        quantize = weight.args[0]
        name, scale = str(quantize.args[0].target), str(weight.args[1].target)
        found.append(Biased(float(source.args[1]), name, scale, str(bias.target), int(weight.args[3])))
    return found


def hold_biases(graph: fx.GraphModule) -> int:
    """Coarsen the weight scales of channels whose bias int32 can't hold, in place.

    Returns:
        How many channels there were.
    """
    changed = 0
    for layer in biased(graph):
        scale = ops.attribute(graph, layer.weight_scale)
        bias = ops.attribute(graph, layer.bias).detach().abs().double()
        weight = ops.attribute(graph, layer.weight).detach()
        if len(scale) != len(bias):
            continue  # a transposed convolution with groups: scales of another axis
        empty = weight.movedim(layer.channel_axis, 0).flatten(1).abs().amax(1) == 0
        before = scale.double()
        least = torch.maximum(bias / (layer.input_scale * LARGEST_BIAS), before.max() * _SMALLEST_SHARE)
        wanted = torch.where(before < least, least, before)
        suits = (bias / (layer.input_scale * _FINE_BIAS)).maximum(least)
        wanted = torch.where(empty & (bias > 0), suits, wanted)
        with torch.no_grad():
            changed += int((wanted.to(scale) != scale).sum())
            scale.copy_(wanted)
    return changed
