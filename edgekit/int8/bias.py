"""Bias correction: what rounding the weights moves a layer's mean by is taken off its bias.

Rounding errors of a channel's weights don't cancel, least of all in depthwise convolutions: the channel's
mean moves by ``(W_rounded - W) E[x]`` (Nagel et al. 2019, arXiv 1906.04721, section 4.2). ``E[x]``, the mean
of each input channel, is measured on calibration data in the float model; pixels outside of the image count
as if they had it too.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.graph import ops

__all__ = ["ChannelMeans", "correct_biases"]


class ChannelMeans:
    """The mean of each input channel of every layer with a weight and a bias, by the layer's name."""

    def __init__(self, graph: fx.GraphModule) -> None:
        layers = [node for node in graph.graph.nodes if _has_bias(node)]
        shared = Counter(_bias_name(node) for node in layers)
        # A bias of several layers would be corrected by each.
        self.layers = [node for node in layers if shared[_bias_name(node)] == 1]
        self.names = {node.name for node in self.layers}
        self.sums: dict[str, Tensor] = {}
        self.counts: Counter[str] = Counter()

    def look(self, node: fx.Node, arguments: list[Any]) -> None:
        """Count what a layer reads."""
        if node.name not in self.names:
            return
        x: Tensor = arguments[0].detach()
        axis = x.dim() - 1 if node.target in ops.LINEAR else x.dim() - (arguments[1].dim() - 1)
        # Each sample by itself in float32, whose sums are taken in pairs; all of them in float64.
        inner = [dim for dim in range(x.dim()) if dim not in (0, axis)]
        sums = (x.sum(inner) if inner else x).double()
        self.sums[node.name] = self.sums.get(node.name, 0) + (sums.sum(0) if axis else sums)
        self.counts[node.name] += x.numel() // x.shape[axis]

    def of(self, node: fx.Node) -> Tensor:
        """(C,) float64."""
        return self.sums[node.name] / self.counts[node.name]


def correct_biases(graph: fx.GraphModule, means: ChannelMeans) -> int:
    """Correct them in place; the weights stay float, on the grid that their quantisers have now.

    Returns:
        How many layers were corrected.
    """
    corrected = 0
    shifts: dict[str, list[Tensor]] = {}
    for node in means.layers:
        back = node.args[1]
        if back.target is not ops.qd.dequantize_per_channel.default:
            continue
        quantize = back.args[0]
        weight, scale = (ops.attribute(graph, str(arg.target)).detach().double() for arg in quantize.args[:2])
        step = scale.reshape(-1, *[1] * (weight.dim() - 1))
        moved = (weight / step).round().clamp(*quantize.args[4:6]) * step - weight
        moved = moved.flatten(2).sum(2) if weight.dim() > 2 else moved
        mean, bias = means.of(node), ops.attribute(graph, _bias_name(node))
        groups = len(mean) // moved.shape[1]
        shift = (moved.reshape(groups, -1, moved.shape[1]) @ mean.reshape(groups, -1, 1)).flatten()
        shifts.setdefault(_bias_name(node), []).append(shift.to(bias))
        corrected += 1
    for name, several in shifts.items():  # of a layer that is used in several places, their mean
        with torch.no_grad():
            ops.attribute(graph, name).sub_(torch.stack(several).mean(0))
    return corrected


def _has_bias(node: fx.Node) -> bool:
    if node.target not in ops.WEIGHTED - ops.TRANSPOSED or len(node.args) < 3:
        return False
    return isinstance(node.args[2], fx.Node) and node.args[2].op == "get_attr"


def _bias_name(node: fx.Node) -> str:
    bias = node.args[2]
    assert isinstance(bias, fx.Node)
    return str(bias.target)
