"""The int8 graph: placement, calibration, the trainable form, storage, integer spellings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from edgekit.errors import StageError, WeightsError
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8 import storage
from edgekit.int8.calibration import calibrate, calibration_batches
from edgekit.int8.grid import bake_weights, spell
from edgekit.int8.trainable import copy_parameters, trainable
from tests.networks import (
    IMAGE_NETWORKS,
    Concatenated,
    Mobile,
    Residual,
    images,
    quantized,
    seeded,
    snr_db,
)


def nodes(graph: fx.GraphModule, targets: set[object]) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if node.target in targets]


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_every_weighted_layer_reads_integers_and_is_quantised(build: type[nn.Module]) -> None:
    _, graph = quantized(build)
    layers = nodes(graph, set(ops.WEIGHTED))
    assert layers
    for layer in layers:
        assert all(source.target in ops.DEQUANTIZE for source in layer.args[:2]), layer
        assert all(user.target in ops.QUANTIZE for user in layer.users), layer


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_int8_answers_stay_close_to_float(build: type[nn.Module]) -> None:
    model, graph = quantized(build)
    x = images(64, seed=99)
    assert snr_db(model(x), graph(x)) > 22


@pytest.mark.parametrize("build", [Residual, Mobile])
def test_clamps_that_the_grid_does_anyway_are_gone(build: type[nn.Module]) -> None:
    _, graph = quantized(build)
    assert not nodes(graph, set(ops.CLAMPS))


def test_weights_are_symmetric_per_channel_and_activations_per_tensor() -> None:
    _, graph = quantized(Mobile)
    per_channel = nodes(graph, {ops.qd.quantize_per_channel.default})
    assert len(per_channel) == len(nodes(graph, set(ops.WEIGHTED)))
    for node in per_channel:
        assert torch.all(ops.attribute(graph, node.args[2].target) == 0)
        assert node.args[4:6] == (-127, 127)
    for node in nodes(graph, {ops.qd.quantize_per_tensor.default}):
        assert node.args[3:] == (-128, 127, torch.int8)


def test_inputs_and_output_of_a_concatenation_share_one_grid() -> None:
    _, graph = quantized(Concatenated)
    (cat,) = nodes(graph, set(ops.CONCATENATIONS))
    grids = {part.args[1:3] for part in cat.args[0]} | {user.args[1:3] for user in cat.users}
    assert len(grids) == 1


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
def test_trainable_form_computes_the_same_and_every_parameter_learns(build: type[nn.Module]) -> None:
    _, graph = quantized(build)
    training = trainable(graph)
    x = images(8)
    assert torch.equal(training(x), graph(x))
    training(x).square().sum().backward()
    parameters = dict(training.named_parameters())
    assert {name for name, _ in graph.named_parameters()} == set(parameters)
    assert all(parameter.grad is not None for parameter in parameters.values())


def test_training_comes_back_into_the_graph() -> None:
    _, graph = quantized(Residual)
    training = trainable(graph)
    with torch.no_grad():
        for parameter in training.parameters():
            parameter.mul_(0.9)
    other = trainable(graph)  # any copy with the same names
    copy_parameters(training, other)
    assert torch.equal(training(images(4)), other(images(4)))


@pytest.mark.parametrize("build", IMAGE_NETWORKS)
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_spelling_and_baking_change_no_bit(build: type[nn.Module], dtype: torch.dtype) -> None:
    _, graph = quantized(build)
    x = images(8)
    assert torch.equal(bake_weights(spell(graph, dtype))(x), graph(x))


def test_baked_weights_are_int8() -> None:
    _, graph = quantized(Residual)
    baked = bake_weights(graph)
    assert not nodes(baked, {ops.qd.quantize_per_channel.default})
    assert baked.get_buffer("first.weight").dtype is torch.int8


def test_storage_gives_the_same_graph_back(tmp_path: Path) -> None:
    _, graph = quantized(Concatenated)
    storage.save(graph, images(1), tmp_path / "graph.pt2")
    again = storage.load(tmp_path / "graph.pt2")
    assert torch.equal(again(images(7)), graph(images(7)))
    assert {n for n, _ in again.named_parameters()} == {n for n, _ in graph.named_parameters()}
    assert [p.name for p in tmp_path.iterdir()] == ["graph.pt2"]


def test_the_same_graph_made_again_gives_the_same_bytes(tmp_path: Path) -> None:
    model = seeded(Residual)
    for name in ("one.pt2", "other.pt2"):
        graph = calibrate(capture(model, images(2)), [images(8)])
        storage.save(graph, images(1), tmp_path / name)
    assert (tmp_path / "one.pt2").read_bytes() == (tmp_path / "other.pt2").read_bytes()


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_graph_is_an_error_with_advice(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "graph.pt2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match="can't read the int8 graph"):
        storage.load(path)


def test_calibration_without_data_is_refused() -> None:
    with pytest.raises(StageError, match="no calibration data"):
        calibrate(capture(seeded(Residual), images(1)), [])


@given(st.integers(1, 200), st.integers(1, 300), st.integers(1, 64), st.integers(0, 5))
def test_calibration_batches_are_a_seeded_choice_without_repeats(
    rows: int, samples: int, batch: int, seed: int
) -> None:
    inputs = torch.arange(rows)
    first = list(calibration_batches(inputs, samples, batch_size=batch, seed=seed))
    again = list(calibration_batches(inputs, samples, batch_size=batch, seed=seed))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    chosen = torch.cat(first)
    assert len(chosen) == len(set(chosen.tolist())) == min(rows, samples)
    assert all(len(part) == batch for part in first[:-1])
    assert len(first[-1]) <= batch + 1  # a last single one is not left alone
    assert torch.equal(chosen, torch.cat(list(calibration_batches(inputs, samples, batch_size=7, seed=seed))))


def fake_quantize_slowly(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """Ten lines of plain arithmetic: what a quantise/dequantise pair means."""
    out = []
    for value in x.flatten().double().tolist():
        inverse = float(torch.tensor(1.0) / torch.tensor(scale))
        grid = round(float(torch.tensor(value, dtype=torch.float32) * torch.tensor(inverse)))
        grid = max(-128, min(127, grid + zero_point))
        out.append((grid - zero_point) * scale)
    return torch.tensor(out, dtype=torch.float32).reshape(x.shape)


@given(st.floats(1e-3, 10), st.integers(-128, 127), st.integers(0, 1000))
def test_pair_equals_the_plain_reference_and_is_idempotent(scale: float, zero: int, seed: int) -> None:
    scale = float(torch.tensor(scale))
    x = torch.randn(32, generator=torch.Generator().manual_seed(seed)) * 40 * scale
    arguments = (scale, zero, -128, 127, torch.int8)
    once = ops.qd.dequantize_per_tensor(ops.qd.quantize_per_tensor(x, *arguments), *arguments)
    torch.testing.assert_close(once, fake_quantize_slowly(x, scale, zero), rtol=1e-5, atol=1e-6)
    twice = ops.qd.dequantize_per_tensor(ops.qd.quantize_per_tensor(once, *arguments), *arguments)
    assert torch.equal(once, twice)
    inside = (x >= (-128 - zero) * scale) & (x <= (127 - zero) * scale)
    assert torch.all((once - x)[inside].abs() <= scale * 0.501)
