"""Where quantisers go: one policy that suits ONNX Runtime, LiteRT and ARM kernels alike.

In words: **every tensor is quantised once, where it is made**, and all that read it read the same integers.
Quantised is what convolutions, linear layers, matrix products, sums, products, means, poolings,
concatenations and activations give, and what they read. An activation that is a clamp is quantised together
with its producer, after the clamp. Ops that only move or choose numbers keep the grid of their input.
Activations are asymmetric per tensor, weights symmetric per output channel (those of recurrent layers: see
``recurrent``). Anything else (layer norm, masks) stays float between a dequantise and a quantise: a float
island, which coverage names. So does what no grid holds: see ``scores``, ``statistics``, ``streams`` and
``tail``.

``unify.unify`` and ``joins.join`` then give one grid to all that must share one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import fx
from torchao.quantization.pt2e.observer import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

from edgekit.graph import ops
from edgekit.int8.scores import float_scores, is_long, reads_long_row
from edgekit.int8.statistics import float_statistics
from edgekit.int8.streams import float_streams
from edgekit.int8.tail import float_tail

KEY = "quantization_annotation"

ACTIVATION = QuantizationSpec(
    dtype=torch.int8,
    quant_min=-128,
    quant_max=127,
    qscheme=torch.per_tensor_affine,
    observer_or_fake_quant_ctr=HistogramObserver,  # NNCF calibrates; the specification demands one
)
# What reads integers only, so that its inputs are quantised whatever made them.
_READS_INTEGERS = ops.INTEGER - ops.ACTIVATIONS


def _weight(channel_axis: int) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric,
        ch_axis=channel_axis,
        observer_or_fake_quant_ctr=PerChannelMinMaxObserver,
    )


class EdgeQuantizer(Quantizer):  # type: ignore[misc]  # torchao is untyped
    """The policy as a torchao ``Quantizer``, for ``nncf.experimental.torch.fx.quantize_pt2e``.

    ``kept``: names of nodes that stay in float whatever they are (see ``last_layers``).
    """

    def __init__(self, kept: Collection[str] = ()) -> None:
        super().__init__()
        self.kept = frozenset(kept)

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Nothing to prepare: ``normalize`` and ``lower`` have done it."""
        return model

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Write an annotation into ``node.meta`` of every node whose output or weight is quantised."""
        kept = {node for node in model.graph.nodes if node.name in self.kept}
        outputs = quantized_outputs(model, kept)
        for node in model.graph.nodes:
            weight = None if node in kept else quantized_weight(node)
            if weight is None and node not in outputs:
                continue
            axis = 1 if node.target in ops.TRANSPOSED else 0
            node.meta[KEY] = QuantizationAnnotation(
                input_qspec_map={} if weight is None else {weight: _weight(axis)},
                output_qspec=ACTIVATION if node in outputs else None,
                _annotated=True,
            )
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """The annotations are checked by what comes out of them: coverage and parity."""


def quantized_weight(node: fx.Node) -> fx.Node | None:
    """The weight of a convolution or linear layer, if it is a parameter; a computed one stays float."""
    if node.target not in ops.WEIGHTED:
        return None
    weight = node.args[1]
    return weight if isinstance(weight, fx.Node) and weight.op == "get_attr" else None


def last_layers(model: fx.GraphModule, outputs: Collection[str]) -> set[str]:
    """Names of the nodes between the last layers in front of these outputs, and of these layers too."""
    results = ops.results(model)
    todo = [results[name] for name in outputs if name in results]
    found: set[str] = set()
    while todo:
        node = todo.pop()
        if node.name in found or node.op != "call_function" or ops.is_constant(node):
            continue
        found.add(node.name)
        if node.target not in ops.WEIGHTED | ops.MATMULS | ops.RECURRENT:
            todo += node.all_input_nodes
    return found


def quantized_outputs(model: fx.GraphModule, kept: Collection[fx.Node] = ()) -> set[fx.Node]:
    """The nodes behind which a quantiser stands; ``kept`` are none."""
    found: set[fx.Node] = set()
    streams = float_streams(model)
    islands = set(kept) | float_scores(model) | float_tail(model) | float_statistics(model) | streams
    for node in model.graph.nodes:
        if node not in islands and computes_integers(node):
            found.add(node)
            if node.target in _READS_INTEGERS:
                found.update(source for made in _operands(node) for source in _origins(made, streams))
    for node in model.graph.nodes:
        if node in islands:
            continue
        if node.target in ops.MOVES and ops.is_float(node) and not ops.is_constant(node):
            source = node.args[1] if node.target is ops.aten.embedding.default else node.args[0]
            if source in found:
                found.add(node)
    for node in model.graph.nodes:
        _hand_to_clamp(node, found)
    found.update(node for node in model.graph.nodes if _looks_up(node))
    return found


def _looks_up(node: fx.Node) -> bool:
    """A table of embeddings is bytes wherever its rows go: in most text models it is the larger part."""
    if node.target is not ops.aten.embedding.default or ops.is_constant(node):
        return False
    table, todo, seen = node.args[0], [node.args[1]], set[fx.Node]()
    while todo:  # positions and kinds of tokens come from sizes alone: a few rows, always the same
        index = todo.pop()
        if not isinstance(index, fx.Node) or index in seen or index.target is ops.aten.sym_size.int:
            continue
        if index.op == "placeholder":
            return isinstance(table, fx.Node) and table.op == "get_attr"
        seen.add(index)
        todo += index.all_input_nodes
    return False


def computes_integers(node: fx.Node) -> bool:
    """Whether the policy has this node compute on the integer grid."""
    if node.op != "call_function" or node.target not in ops.INTEGER or not ops.is_float(node):
        return False
    if ops.is_constant(node):
        return False
    if is_long(node) or reads_long_row(node):
        return False
    return node.target not in ops.WEIGHTED or quantized_weight(node) is not None


def _operands(node: fx.Node) -> Iterator[fx.Node]:
    """The float tensors that ``node`` computes on, without constants (``grid`` sees to those)."""
    if node.target in ops.WEIGHTED | ops.MEANS | ops.AVERAGES:
        candidates = node.all_input_nodes[:1]
    else:
        candidates = node.all_input_nodes
    for source in candidates:
        if ops.is_float(source) and not ops.is_constant(source):
            yield source


def _origins(node: fx.Node, streams: Collection[fx.Node]) -> Iterator[fx.Node]:
    """``node``, and what it is moved from: the quantiser belongs there, so that the move is on integers. What
    is cut out of a float stream is quantised behind the cut.
    """
    yield node
    while node.target in ops.MOVES and ops.moves_zero_alone(node):
        source = node.args[0]
        if not isinstance(source, fx.Node) or not ops.is_float(source) or ops.is_constant(source):
            return
        if source in streams:
            return
        node = source
        yield node


def _hand_to_clamp(node: fx.Node, found: set[fx.Node]) -> None:
    """Where the one consumer of ``node`` is a clamp, quantise behind the clamp instead.

    Not behind a concatenation or a move: their grid is that of their inputs.
    """
    if node not in found or node.target in ops.CLAMPS:
        return
    clamps = [user for user in node.users if user.target in ops.CLAMPS]
    found.update(clamps)
    if len(clamps) == len(node.users) == 1 and node.target not in ops.ONE_GRID and node.op == "call_function":
        found.discard(node)
