"""Recurrent layers with int8 weights: a pair behind every matrix, one scale for each of its rows.

The layers stay whole in the graph (``aten.lstm``, ``aten.gru``): their steps, states and what they read are
float there. Kernels that multiply on integers quantise inputs and states as they come, with a scale for each
step, which no grid that was found beforehand is as good as.

States are within -1 … 1, but inputs may be anything: powers of a spectrum span more decades than 8 bits
hold, and quiet steps, of which a layer makes as much as of loud ones, would all be 0. Where calibration data
says so the matrix of the inputs stays float, and what is multiplied with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, fx

from edgekit.execution import interpreted, mode
from edgekit.graph import ops
from edgekit.noise import Noise
from edgekit.tensors import Tensors

__all__ = ["matrices", "quantize_recurrent"]

_SAMPLES = 16
_LEAST_DB = 25.0  # of what a layer gives; inputs of one loudness are above 40


def matrices(node: fx.Node) -> list[fx.Node]:
    """What a recurrent layer multiplies with, layer by layer and direction by direction; biases left out.

    (gates * hidden, inputs), (gates * hidden, hidden), and of an LSTM with a projection (projected, hidden).
    """
    given = node.args[2]
    assert isinstance(given, list | tuple)
    return [one for one in given if isinstance(one, fx.Node) and len(ops.shape_of(one) or ()) == 2]


def quantize_recurrent(
    graph: fx.GraphModule, batches: Iterable[Tensors], kept: Collection[str] = ()
) -> dict[str, float]:
    """Put a pair behind the matrices of recurrent layers, in place; ``fit_weight_scales`` finds their scales.

    A matrix that several layers read has one pair.

    Args:
        graph: with the quantisers of all other layers.
        batches: calibration data, each (N, …); the first samples of the first are looked at.
        kept: names of nodes that stay in float.

    Returns:
        Layers whose inputs 8 bits don't hold, and how near (dB) what they give came to that of their floats.
    """
    pairs: dict[str, fx.Node] = {}
    layers = [one for one in graph.graph.nodes if one.target in ops.RECURRENT and one.name not in kept]
    near = _nearness(graph, batches, [one for one in layers if not _on_a_grid(one.args[0])])
    unheld = {node: db for node, db in near.items() if db < _LEAST_DB}
    entries = {source for node in unheld for source in _entries(node)}
    for node in list(graph.graph.nodes):
        if node.target not in ops.RECURRENT or node.name in kept:
            continue
        for weight in (one for one in matrices(node) if one not in entries):
            # What is computed has no name to learn by, and what another layer reads has its pair already.
            if weight.op != "get_attr" or any(user.target not in ops.RECURRENT for user in weight.users):
                continue
            name = str(weight.target)
            if name not in pairs:
                pairs[name] = _pair(graph, weight)
            node.replace_input_with(weight, pairs[name])
    graph.graph.lint()
    graph.recompile()
    return {ops.layer_of(node) or node.name: db for node, db in unheld.items()}


def _entries(node: fx.Node) -> list[fx.Node]:
    """The matrices that a layer multiplies its inputs with: of its first layer, in each direction."""
    settings: Any = node.args[4:8]
    layers, _, _, both_ways = settings
    directions = 2 if both_ways else 1
    found = matrices(node)
    each = len(found) // (layers * directions)
    return found[: each * directions : each]


def _on_a_grid(node: Any) -> bool:
    """Whether 8 bits have held these numbers already."""
    while isinstance(node, fx.Node) and node.target in ops.MOVES:
        node = node.args[0]
    return isinstance(node, fx.Node) and node.target in ops.DEQUANTIZE


def _nearness(
    graph: fx.GraphModule, batches: Iterable[Tensors], layers: Collection[fx.Node]
) -> dict[fx.Node, float]:
    """How near (dB) what layers give is to that of floats, if 256 steps hold all inputs of a sample."""
    if not layers:
        return {}
    looking = _Looking(graph, layers)
    with mode(graph, training=False), torch.no_grad():
        interpreted(looking, next(iter(batches))[:_SAMPLES])
    return {node: noise.db for node, noise in looking.noise.items()}


class _Looking(fx.Interpreter):
    """Runs a graph; each of the layers once more, on rounded inputs."""

    def __init__(self, graph: fx.GraphModule, layers: Collection[fx.Node]) -> None:
        super().__init__(graph)
        self.noise = {node: Noise(axis=None) for node in layers}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.noise:
            (steps, *others), named = self.fetch_args_kwargs_from_env(n)
            first = bool(n.args[8]) if len(n.args) > 8 else False
            rounded = _rounded(steps if first else steps.transpose(0, 1))
            again: Any = n.target
            given = again(rounded if first else rounded.transpose(0, 1), *others, **named)
            self.noise[n].add(value[0], given[0])
        return value


def _rounded(x: Tensor) -> Tensor:
    """Each sample of (N, …) on a grid of 256 steps of its own, as runtimes find it: 0 is on it."""
    rows = x.flatten(1)
    low, high = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0)
    step = ((high - low) / 255).clamp(min=1e-30).reshape(-1, *[1] * (x.dim() - 1))
    return (x / step).round() * step


def _pair(graph: fx.GraphModule, weight: fx.Node) -> fx.Node:
    name, rows = str(weight.target), int(ops.attribute(graph, str(weight.target)).shape[0])
    value = weight.meta.get("val")
    with graph.graph.inserting_after(weight):
        scale = ops.constant_node(graph, f"{name}_scale", torch.ones(rows))
    with graph.graph.inserting_after(scale):
        zero = ops.constant_node(graph, f"{name}_zero_point", torch.zeros(rows, dtype=torch.int64))
    grid = (scale, zero, 0, -127, 127, torch.int8)
    with graph.graph.inserting_after(zero):
        quantize = graph.graph.call_function(ops.qd.quantize_per_channel.default, (weight, *grid))
    with graph.graph.inserting_after(quantize):
        back = graph.graph.call_function(ops.qd.dequantize_per_channel.default, (quantize, *grid))
    back.meta = {"val": value}
    if isinstance(value, torch.Tensor):
        quantize.meta = {"val": value.to(torch.int8)}
    return back
