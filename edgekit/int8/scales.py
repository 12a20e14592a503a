"""Scales that learn (LSQ; Esser et al. 2020, arXiv 1902.08153): which, within which bounds, and back.

Quantisers that must share a grid (see ``unify``) share one parameter. Zero points stay. Left as they are: the
grids that functions have by themselves (sigmoid, tanh, softmax), and groups whose grids differ.

Other than in the paper, scales start where calibration left them, not at ``2 mean|v| / sqrt(q)``: that is
meant for few bits, and at 8 it would throw a good range away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from edgekit.graph import ops
from edgekit.int8.grid import clamp_bounds
from edgekit.int8.unify import HIGH, LOW, grid_of, groups, has_known_grid, is_shared, per_tensor, set_grid

__all__ = ["Learned", "LearnedScales", "clamp_limits"]

# A scale stays positive: it may shrink to this share of what it was.
_SHRINK = 1 / 16


@dataclass(frozen=True)
class Learned:
    """One parameter: the scale of the quantisers at ``positions`` (counted over all of the graph's).

    Of activations, ``largest`` may be infinite; of weights, bounds are in the buffer ``floor_name``.
    """

    name: str
    positions: tuple[int, ...]
    smallest: float = 0.0
    largest: float = float("inf")

    @property
    def floor_name(self) -> str:
        """The buffer with the smallest scale of each channel of a weight."""
        return f"{self.name}_floor"


@dataclass(frozen=True)
class LearnedScales:
    """All scales of one int8 graph that learn; they serve any copy of it."""

    activations: tuple[Learned, ...]
    weights: tuple[Learned, ...]

    @classmethod
    def of(cls, graph: fx.GraphModule, limits: Mapping[str, float] | None = None) -> LearnedScales:
        """Find them in a settled int8 graph.

        Args:
            limits: the largest scale of quantisers by the names of their nodes (``clamp_limits``).
        """
        nodes = _quantizers(graph)
        place = {node: position for position, node in enumerate(nodes)}
        activations: list[Learned] = []
        for members in groups(graph, _keeps_grid):
            grids = {grid_of(node) for node in members}
            if len(grids) > 1 or any(has_known_grid(node.args[0]) for node in members):
                continue
            ((scale, _),) = grids
            largest = min((limits or {}).get(node.name, float("inf")) for node in members)
            positions = tuple(place[node] for node in members)
            name = f"_scales.activation{positions[0]}"
            activations.append(Learned(name, positions, scale * _SHRINK, max(largest, scale)))
        shared: dict[str, list[int]] = {}
        for node in nodes:
            if node.target is ops.qd.quantize_per_channel.default:
                shared.setdefault(_scale_name(node), []).append(place[node])
        weights = [Learned(f"_scales.weight{where[0]}", tuple(where)) for where in shared.values()]
        return cls(tuple(activations), tuple(weights))

    def add_parameters(self, graph: fx.GraphModule) -> dict[fx.Node, Learned]:
        """Put the parameters into a copy of the graph; which one belongs to which quantiser."""
        nodes, found = _quantizers(graph), {}
        for learned in (*self.activations, *self.weights):
            first = nodes[learned.positions[0]]
            if first.target is ops.qd.quantize_per_tensor.default:
                start = torch.tensor(grid_of(first)[0])
            else:
                start = ops.attribute(graph, _scale_name(first)).detach().clone()
                ops.set_attribute(graph, learned.floor_name, start * _SHRINK)
            ops.set_attribute(graph, learned.name, torch.nn.Parameter(start))
            found.update({nodes[position]: learned for position in learned.positions})
        return found

    def write_back(self, trained: fx.GraphModule, graph: fx.GraphModule) -> float:
        """Put the learned scales into the int8 graph, in place. Biases have to be snapped anew afterwards.

        Returns:
            The largest change of a scale: ``max |log2(after / before)|``.
        """
        nodes, changes = _quantizers(graph), [torch.zeros(())]
        for learned in self.activations:
            value = float(ops.attribute(trained, learned.name).detach())
            value = min(max(value, learned.smallest), learned.largest)
            value = float(torch.tensor(value, dtype=torch.float32))
            before, zero_point = grid_of(nodes[learned.positions[0]])
            for position in learned.positions:
                set_grid(nodes[position], (value, zero_point))
            changes.append(torch.tensor(value / before).log2().abs())
        for learned in self.weights:
            scale = ops.attribute(graph, _scale_name(nodes[learned.positions[0]]))
            value_of = ops.attribute(trained, learned.name).detach()
            new = torch.maximum(value_of, ops.attribute(trained, learned.floor_name)).to(scale)
            changes.append((new / scale).log2().abs().max())
            scale.copy_(new)
        graph.recompile()
        return float(torch.stack(changes).max())


def clamp_limits(graph: fx.GraphModule) -> dict[str, float]:
    """The largest scale of each quantiser behind a bounded clamp (ReLU6), by the name of its node.

    ``absorb_clamps`` takes away clamps whose work the grid's ends do. A scale that then grew past this limit
    would undo the clamp. To be asked before they are taken away.
    """
    limits = {}
    for node in per_tensor(graph):
        source = node.args[0]
        if not isinstance(source, fx.Node) or source.target not in ops.CLAMPS:
            continue
        lower, upper = clamp_bounds(source)
        _, zero_point = grid_of(node)
        ends = [(lower, LOW - zero_point), (upper, HIGH - zero_point)]
        limits[node.name] = min(
            (bound / end for bound, end in ends if end and abs(bound) < float("inf")), default=float("inf")
        )
    return limits


def _quantizers(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.target in ops.QUANTIZE]


def _scale_name(quantize: fx.Node) -> str:
    scale = quantize.args[1]
    assert isinstance(scale, fx.Node)
    return str(scale.target)


def _keeps_grid(node: fx.Node) -> bool:
    """Whether the quantisers in front of a node and behind it must stay alike.

    A clamp between equal grids (``meet_clamps``) is a comparison of integers.
    """
    if is_shared(node):
        return True
    source = node.args[0] if node.target in ops.CLAMPS else None
    if not isinstance(source, fx.Node) or source.target is not ops.qd.dequantize_per_tensor.default:
        return False
    behind = [user for user in node.users if user.target is ops.qd.quantize_per_tensor.default]
    return any(user.args[1:3] == source.args[1:3] for user in behind)
