"""Which quantisers a part of a network has to itself, and the calibrated graph with some of them left out.

What staying in float would take away is asked of the placement itself: the quantisers that it sets without
the part, and no longer sets with it. So a single convolution has its weights' alone, and a block those of all
that is made and read inside of it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from edgekit import macs
from edgekit.graph import ops
from edgekit.int8.lower import lower
from edgekit.int8.masks import masks_by_addition
from edgekit.int8.placement import quantized_outputs
from edgekit.int8.precision import nodes_of
from edgekit.tensors import Tensors

__all__ = ["Region", "Regions"]

# MACs in which a number that is made in float instead of int8 takes as long: four times the bytes, and the
# way from and to integers.
_A_NUMBER = 8


@dataclass(frozen=True)
class Region:
    """Modules that would stay float. ``off``: quantise nodes of the calibrated graph that they'd do without;
    ``macs``: that they multiply, for one sample; ``cost``: these, and 8 for each number that they make.
    """

    names: tuple[str, ...]
    off: frozenset[str]
    macs: int
    cost: float


@dataclass(eq=False)
class Regions:
    """All that can be asked about one calibrated graph (before ``settle``).

    Args:
        captured: the float graph that was calibrated.
        calibrated: what ``estimate`` made of it. Neither is changed.
        example: inputs (N, …).
        kept: names of nodes that were float in it already.
    """

    captured: fx.GraphModule
    calibrated: fx.GraphModule
    example: Tensors
    kept: Collection[str] = ()
    modules: dict[str, list[fx.Node]] = field(init=False)

    def __post_init__(self) -> None:
        self.lowered = lower(copy.deepcopy(self.captured))
        masks_by_addition(self.lowered)
        self.modules = nodes_of(self.lowered)
        self._kept = {node for node in self.lowered.graph.nodes if node.name in self.kept}
        self._plain = {node.name for node in quantized_outputs(self.lowered, self._kept)}
        counted = macs.count(self.lowered, self.example)
        self._macs = {layer.name: layer.macs for layer in counted.layers}
        self.macs = counted.macs

    def everything(self) -> frozenset[str]:
        """Every quantiser: without them the graph is the float model."""
        return frozenset(node.name for node in self.calibrated.graph.nodes if node.target in ops.QUANTIZE)

    def of(self, names: Collection[str]) -> Region:
        """The modules of these names together. Raises KeyError for one that isn't there."""
        kept = {node for name in names for node in self.modules[name]}
        by_name = {node.name for node in kept}
        standing = {node.name for node in quantized_outputs(self.lowered, kept | self._kept)}
        gone = self._plain - standing
        off = frozenset(
            node.name
            for node in self.calibrated.graph.nodes
            if node.target in ops.QUANTIZE and _leaves(node, by_name, gone)
        )
        multiplied = sum(self._macs.get(name, 0) for name in by_name)
        made = sum(_numbers(node) for node in kept if node.target not in ops.MOVES)
        return Region(tuple(sorted(names)), off, multiplied, multiplied + _A_NUMBER * made)

    def inside(self, name: str) -> list[str]:
        """The modules one level below; "" is the whole network."""
        below = [one for one in self.modules if not name or one.startswith(f"{name}.")]
        least = min((one.count(".") for one in below), default=0)
        return [one for one in below if one.count(".") == least]

    def without(self, off: Collection[str]) -> fx.GraphModule:
        """A copy in which these quantisers let everything through; a weight that isn't rounded has the bias
        from before its correction.
        """
        graph = copy.deepcopy(self.calibrated)
        biases = self._biases()
        for node in list(graph.graph.nodes):
            if node.name not in off:
                continue
            for back in list(node.users):
                if node.target is ops.qd.quantize_per_channel.default:
                    _give_bias_back(graph, back, biases)
                back.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(back)
            graph.graph.erase_node(node)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        return graph

    def _biases(self) -> dict[str, tuple[Tensor, Tensor]]:
        """By node, weight and bias as they were before calibration."""
        found = {}
        for node in self.lowered.graph.nodes:
            operands = node.args[1:3] if node.target in ops.WEIGHTED else ()
            if len(operands) == 2 and all(isinstance(o, fx.Node) and o.op == "get_attr" for o in operands):
                weight, bias = (ops.attribute(self.lowered, str(one.target)).detach() for one in operands)
                found[node.name] = weight, bias
        return found


def _leaves(quantize: fx.Node, kept: Collection[str], gone: Collection[str]) -> bool:
    source = quantize.args[0]
    assert isinstance(source, fx.Node)
    if source.name in gone:
        return True
    if ops.is_constant(source) or source.target in ops.DEQUANTIZE:  # a weight, a factor; a second grid
        readers = {reader.name for back in quantize.users for reader in back.users}
        return bool(readers) and readers <= set(kept)
    return False


def _give_bias_back(
    graph: fx.GraphModule, weight: fx.Node, biases: Mapping[str, tuple[Tensor, Tensor]]
) -> None:
    for layer in list(weight.users):
        if layer.name not in biases or len(layer.args) < 3 or not isinstance(layer.args[2], fx.Node):
            continue
        before, bias = biases[layer.name]
        quantize: Any = weight.args[0]
        now = ops.attribute(graph, str(quantize.args[0].target)).detach()
        if now.shape == before.shape and torch.equal(now, before):  # not one whose channels were evened
            with graph.graph.inserting_before(layer):
                constant = ops.constant_node(graph, f"{layer.name}_bias_before", bias.clone())
            layer.update_arg(2, constant)


def _numbers(node: fx.Node) -> int:
    shape = ops.shape_of(node)
    return math.prod(int(size) for size in shape[1:]) if shape is not None and len(shape) else 0
