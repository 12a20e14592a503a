"""Finding the layer at which a file leaves its graph."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from edgekit.formats.exporting import export
from edgekit.formats.parity import divergence
from edgekit.formats.parity.divergence import (
    EXACT_DB,
    WRONG_STEPS,
    first_divergence,
    first_wrong,
    layer_parity,
    orders,
    snr_db,
)
from edgekit.graph import ops
from edgekit.int8.disturbed import disturbed
from tests.networks import Concatenated, Mobile, Residual, ZeroPaddedShortcut, images, quantized
from tests.spelling import spelled


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_every_layer_of_a_good_file_agrees(format: str) -> None:
    if format == "litert":
        pytest.importorskip("litert_torch")
    layers = layer_parity(quantized(ZeroPaddedShortcut)[1], format, images(3), fused=not spelled())
    assert {"stem", "body", "head"} <= {layer.layer for layer in layers}
    assert min(layer.snr_db for layer in layers) > 35
    assert first_divergence(layers, 20) is None
    assert first_wrong(layers) is None


def _breaks(layer: str, harm: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., None]:
    """An exporter that writes something else than it was given: the weights of ``layer`` are harmed."""

    def broken(graph: fx.GraphModule, *arguments: Any, **options: Any) -> None:
        other = copy.deepcopy(graph)
        weight = other.get_parameter(f"{layer}.weight")
        with torch.no_grad():
            weight.copy_(harm(weight))
        export(other, *arguments, **options)

    return broken


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_a_converter_that_is_silently_wrong_is_found_at_its_layer(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if format == "litert":
        pytest.importorskip("litert_torch")
    monkeypatch.setattr(divergence, "export", _breaks("after", lambda weight: -weight))
    layers = layer_parity(quantized(Concatenated)[1], format, images(3), fused=not spelled())
    found, wrong = first_divergence(layers, 15), first_wrong(layers)
    assert found is not None
    assert found[1].layer == "after"
    assert found[0] is None or found[0].snr_db > 15
    assert wrong is not None
    assert wrong.layer == "after"


def test_layers_behind_a_wrong_one_are_right_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "export", _breaks("stem", lambda weight: weight.roll(1, 0)))
    layers = layer_parity(quantized(ZeroPaddedShortcut)[1], "onnx", images(3), fused=not spelled())
    by_name = {layer.layer: layer for layer in layers}
    assert by_name["stem"].steps > 5 * WRONG_STEPS
    assert by_name["head"].snr_db < 20
    assert all(layer.steps < WRONG_STEPS for layer in layers if layer.layer != "stem")


def test_any_order_of_axes_is_recognised() -> None:
    value = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    for order in itertools.permutations((1, 2, 3)):
        turned = value.transpose(0, *order)
        assert any(np.array_equal(one, value) for one in orders(turned, value.shape))


def test_disturbing_no_rounding_changes_nothing_and_more_changes_more() -> None:
    graph = quantized(Mobile)[1]
    samples = images(16, 3)
    plain = graph(samples).detach()
    assert torch.equal(disturbed(graph, samples, 0.0), plain)
    few, many = (snr_db(plain, disturbed(graph, samples, share)) for share in (0.05, 0.5))
    assert many < few < EXACT_DB
    assert torch.equal(disturbed(graph, samples, 0.1, seed=3), disturbed(graph, samples, 0.1, seed=3))


def test_disturbed_integers_stay_on_their_grid_one_step_away() -> None:
    graph = quantized(Residual)[1]
    step = next(n.args[1] for n in reversed(graph.graph.nodes) if n.target in ops.DEQUANTIZE)
    # Only the last quantiser moves here: what it gives are whole steps of its grid.
    moved = disturbed(graph, images(8), 1.0) / step
    assert torch.allclose(moved, moved.round(), atol=1e-3)


def test_signal_to_noise_ratio_as_by_hand() -> None:
    assert snr_db(np.array([3.0, 4.0]), np.array([3.0, 4.5])) == pytest.approx(20.0)
    assert snr_db(torch.ones(3), torch.ones(3)) == EXACT_DB
    assert snr_db(torch.ones(3), torch.tensor([1.0, 1.0, float("nan")])) == -EXACT_DB


def test_a_map_of_one_dimension_may_have_an_axis_more_in_the_file() -> None:
    value = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 1, 5, 3)  # N, 1, T, C
    (found,) = orders(value, (2, 3, 5))
    np.testing.assert_array_equal(found, value[:, 0].transpose(0, 2, 1))
