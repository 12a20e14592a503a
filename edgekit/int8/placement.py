"""Where quantisers go: one policy that suits ONNX Runtime, LiteRT and ARM kernels alike.

In words: every convolution, linear layer, matrix product, addition, product of activations, mean and
concatenation gets int8 inputs and gives an int8 output; an activation that is a clamp is quantised together
with its producer, after the clamp; ops that only move or choose numbers keep the grid of their input; inputs
and output of a concatenation share one grid. Activations are asymmetric per tensor, weights symmetric per
output channel. Anything else stays float between a dequantise and a quantise, and coverage tells.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torchao.quantization.pt2e.observer import HistogramObserver, PerChannelMinMaxObserver
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from edgekit.int8 import ops

KEY = "quantization_annotation"

ACTIVATION = QuantizationSpec(
    dtype=torch.int8,
    quant_min=-128,
    quant_max=127,
    qscheme=torch.per_tensor_affine,
    observer_or_fake_quant_ctr=HistogramObserver,  # NNCF calibrates; the specification demands one
)


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
    """The policy as a torchao ``Quantizer``, for ``nncf.experimental.torch.fx.quantize_pt2e``."""

    def transform_for_annotation(self, model: fx.GraphModule) -> fx.GraphModule:
        """Nothing to prepare: ``ops.normalize`` has done it at capture."""
        return model

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Write an annotation into ``node.meta`` of every node that is to compute on the integer grid."""
        for node in model.graph.nodes:
            if node.op == "call_function" and ops.is_float(node):
                _annotate(node)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """The annotations are checked by what comes out of them: coverage and parity."""


def _annotate(node: fx.Node) -> None:
    if node.target in ops.WEIGHTED:
        _annotate_weighted(node)
    elif node.target in ops.SUMS | ops.PRODUCTS | ops.MATMULS:
        if all(ops.is_float(value) and not ops.is_constant(value) for value in node.args[:2]):
            _write(node, dict.fromkeys(node.all_input_nodes, ACTIVATION))
    elif node.target in ops.MEANS:
        _write(node, {_first(node): ACTIVATION})
    elif node.target in ops.CONCATENATIONS:
        _annotate_concatenation(node)
    elif node.target in ops.MOVES and _is_quantized(_first(node)):
        source = _first(node)
        _write(node, {source: ACTIVATION}, output=SharedQuantizationSpec((source, node)))
    elif node.target in ops.CLAMPS and _is_quantized(_first(node)):
        _write(node, {_first(node): ACTIVATION})


def _annotate_weighted(node: fx.Node) -> None:
    source, weight = _first(node), node.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return  # a weight that is computed: left in float, and named by coverage
    channel_axis = 1 if node.target in ops.TRANSPOSED else 0
    _write(node, {source: ACTIVATION, weight: _weight(channel_axis)})


def _annotate_concatenation(node: fx.Node) -> None:
    parts: list[fx.Node] = [part for part in node.args[0] if isinstance(part, fx.Node)]  # type: ignore[union-attr]
    if not parts or any(ops.is_constant(part) for part in parts):
        return
    shared = SharedQuantizationSpec((parts[0], node))
    inputs: dict[fx.Node, Any] = dict.fromkeys(parts, shared)
    inputs[parts[0]] = ACTIVATION
    _write(node, inputs, output=shared)


def _write(node: fx.Node, inputs: dict[fx.Node, Any], output: Any = ACTIVATION) -> None:
    """Annotate ``node``; where its one consumer is a clamp, leave the output to the clamp."""
    if _clamp_behind(node) is not None and output is ACTIVATION:
        output = None
    node.meta[KEY] = QuantizationAnnotation(input_qspec_map=inputs, output_qspec=output, _annotated=True)
    clamp = _clamp_behind(node)
    if clamp is not None:
        clamp.meta[KEY] = QuantizationAnnotation(input_qspec_map={}, output_qspec=ACTIVATION, _annotated=True)


def _clamp_behind(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    if len(users) == 1 and users[0].target in ops.CLAMPS and node.target not in ops.MOVES:
        return users[0]
    return None


def _is_quantized(node: fx.Node) -> bool:
    annotation = node.meta.get(KEY)
    return annotation is not None and annotation.output_qspec is not None


def _first(node: fx.Node) -> fx.Node:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source
