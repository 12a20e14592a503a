"""Every multiplying layer: what it costs, and how much noise int8 adds to what it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekit import macs
from edgekit.batching import Footprint, fitting, footprint
from edgekit.diagnosis.record import LayerRow
from edgekit.execution import interpreted, mode, spans
from edgekit.graph import ops
from edgekit.graph.probes import layer_name, quantized_tensors
from edgekit.noise import Noise
from edgekit.tensors import Tensors

__all__ = ["layers_of", "snr_of_layers"]

_BATCH = 64
_MOST_MADE = 2 << 30  # bytes that the graph may make for all samples together: more of them say nothing new
_FEWEST_SAMPLES = 16

Tell = Callable[[int, int], None]  # samples done, all samples


def layers_of(
    model: nn.Module, samples: Tensors, *, noise: bool = True, tell: Tell = lambda done, total: None
) -> tuple[LayerRow, ...]:
    """The layers in the order of execution, as they are in ``model``: an int8 graph, or any module.

    Args:
        model: as a stage left it; as it was afterwards.
        samples: (N, …) preprocessed; of an int8 graph, the noise of all of them is told, of the first ones
            where a sample is large.
        noise: whether it is wanted; it takes two passes for each sample.
        tell: is told samples done, and all samples.
    """
    counted = macs.count(model, samples[:1])
    if not isinstance(model, fx.GraphModule):
        return tuple(_of_module(model, one) for one in counted.layers)
    costs = {one.name: one.macs for one in counted.layers}
    added = snr_of_layers(model, samples, tell=tell) if noise else {}
    nodes = [node for node in model.graph.nodes if costs.get(node.name)]
    quantised = any(node.target in ops.DEQUANTIZE for node in model.graph.nodes)
    return tuple(_of_node(model, node, costs[node.name], added, 8 if quantised else 32) for node in nodes)


def snr_of_layers(
    graph: fx.GraphModule, samples: Tensors, *, tell: Tell = lambda done, total: None
) -> dict[str, float]:
    """Layer → signal-to-noise ratio in dB of what it makes in the int8 graph, against the same graph without
    any rounding. Noise that comes in from the layers before is in it.

    Sums alone are kept, and of one batch what the layers make: memory doesn't grow with the samples.
    """
    readers = quantized_tensors(graph)
    if not readers:
        return {}
    cost = footprint(graph, samples[:2])
    samples = samples[: sample_count(cost, len(samples))]
    noise = {name: Noise(axis=None) for name in readers}
    with mode(graph, training=False), torch.no_grad():
        for start, end in spans(len(samples), fitting(cost.made, _BATCH)):
            kept: dict[str, Tensor] = {}
            interpreted(_Looking(graph, readers, kept.__setitem__, rounds=False), samples[start:end])

            def compare(name: str, value: Tensor, kept: dict[str, Tensor] = kept) -> None:
                noise[name].add(kept.pop(name), value)

            interpreted(_Looking(graph, readers, compare, rounds=True), samples[start:end])
            tell(end, len(samples))
    return {name: one.db for name, one in noise.items()}


def sample_count(cost: Footprint, most: int) -> int:
    """How many samples the layers' noise is told of: some 2 GiB of what the graph makes, at least 16."""
    return fitting(cost.made, most, _MOST_MADE, fewest=_FEWEST_SAMPLES)


class _Looking(fx.Interpreter):
    """Runs a graph, with or without its rounding, and shows what the named nodes make: ``look(name, value)``.

    Without: quantisers still clamp, as ReLUs are merged into them (``int8.grid``); weights that are stored
    as integers stay what they are.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        nodes: dict[str, fx.Node],
        look: Callable[[str, Tensor], None],
        *,
        rounds: bool,
    ) -> None:
        super().__init__(graph)
        self.names = {node: name for name, node in nodes.items()}
        self.look, self.rounds = look, rounds

    def run_node(self, n: fx.Node) -> Any:
        if not self.rounds and n.target in ops.QUANTIZE:
            value, *grid = self.fetch_args_kwargs_from_env(n)[0]
            if n.target is ops.qd.quantize_per_tensor.default:
                scale, zero_point, low, high = (float(one) for one in grid[:4])
                value = value.clamp((low - zero_point) * scale, (high - zero_point) * scale)
        elif not self.rounds and n.target in ops.DEQUANTIZE and _is_quantised_here(n.args[0]):
            value = self.fetch_args_kwargs_from_env(n)[0][0]
        else:
            value = super().run_node(n)
        if n in self.names:
            self.look(self.names[n], value)
        return value


def _of_module(model: nn.Module, one: macs.Layer) -> LayerRow:
    try:
        module = model.get_submodule(one.name)
    except AttributeError:  # an op of a graph, by the name of its node
        return LayerRow(one.name, one.operator, one.macs, 0)
    own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    weight = getattr(module, "weight", None)
    channels: tuple[int | None, int | None] = (None, None)
    if one.operator in ("convolution", "linear") and isinstance(weight, Tensor) and weight.dim() > 1:
        channels = weight.shape[1] * int(getattr(module, "groups", 1)), weight.shape[0]
        if getattr(module, "transposed", False):
            channels = weight.shape[0], weight.shape[1] * int(getattr(module, "groups", 1))
    return LayerRow(one.name, one.operator, one.macs, own, *channels)


def _of_node(graph: fx.GraphModule, node: fx.Node, cost: int, noise: dict[str, float], bits: int) -> LayerRow:
    name = layer_name(node)
    value, result = ops.shape_of(node.args[0]), ops.shape_of(node)
    constants = [_constant(graph, one) for one in node.all_input_nodes]
    own = sum(one.numel() for one in constants if one is not None)
    if node.target in ops.LINEAR:
        return LayerRow(name, "linear", cost, own, _last(value), _last(result), bits, noise.get(name))
    if node.target in ops.WEIGHTED:
        channels = (int(value[1]) if value else None, int(result[1]) if result else None)
        return LayerRow(name, "convolution", cost, own, *channels, bits, noise.get(name))
    if node.target in ops.RECURRENT:
        return LayerRow(ops.layer_of(node) or name, "recurrent", cost, own, bits=bits)
    return LayerRow(name, "matmul", cost, own, None, None, bits, noise.get(name))


def _is_quantised_here(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.target in ops.QUANTIZE


def _last(shape: torch.Size | None) -> int | None:
    return int(shape[-1]) if shape else None


def _constant(graph: fx.GraphModule, node: fx.Node) -> Tensor | None:
    """The weight or bias behind its quantisers; None for what is computed from the input."""
    while node.op == "call_function" and node.target in ops.QUANTIZE | ops.DEQUANTIZE:
        before = node.args[0]
        if not isinstance(before, fx.Node):
            return None
        node = before
    return ops.attribute(graph, str(node.target)) if node.op == "get_attr" else None
