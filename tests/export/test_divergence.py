"""Finding the layer at which a file leaves its graph."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from edgekit.export.divergence import EXACT_DB, first_divergence, layer_parity, snr_db
from edgekit.export.options import Format
from edgekit.int8 import ops, unify
from tests.networks import Concatenated, ZeroPaddedShortcut, images, quantized
from tests.spelling import spelled


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_every_layer_of_a_good_file_agrees(format: Format) -> None:
    if format == "litert":
        pytest.importorskip("litert_torch")
    layers = layer_parity(quantized(ZeroPaddedShortcut)[1], format, images(3), fused=not spelled())
    assert {"stem", "body", "head"} <= {layer.layer for layer in layers}
    assert min(layer.snr_db for layer in layers) > 35
    assert first_divergence(layers, 20) is None


def test_a_converter_that_is_silently_wrong_is_found_at_its_layer() -> None:
    """LiteRT takes the inputs and the output of a concatenation for tensors of one grid, always."""
    pytest.importorskip("litert_torch")
    graph = copy.deepcopy(quantized(Concatenated)[1])
    (joined,) = (node for node in graph.graph.nodes if node.target in ops.CONCATENATIONS)
    quantize = joined.args[0][0].args[0]
    scale, zero_point = unify.grid_of(quantize)
    unify.set_grid(quantize, (scale / 8, zero_point))
    graph.recompile()
    found = first_divergence(layer_parity(graph, "litert", images(3)), 15)
    assert found is not None
    before, first = found
    assert first.layer == joined.name
    assert before is None or before.snr_db > 15


def test_signal_to_noise_ratio_as_by_hand() -> None:
    assert snr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(20.0)
    assert snr_db(torch.ones(3), torch.ones(3)) == EXACT_DB
    assert snr_db(torch.ones(3), torch.tensor([1.0, 1.0, float("nan")])) == -EXACT_DB
