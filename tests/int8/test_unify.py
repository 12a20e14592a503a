"""Grids that tensors must share, grids known beforehand, constants, weights and biases on theirs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.int8.grid import bake_weights, snap_biases, snap_weights
from edgekit.int8.unify import grid_for, grid_of, per_tensor
from tests.models import CASES, inputs, trained
from tests.networks import Mobile, Residual, images, quantized, seeded


def int8(model: nn.Module) -> fx.GraphModule:
    return calibrate(capture(model, images(1)), [images(16, seed) for seed in range(4)])


class Everything(nn.Module):
    """Sigmoid and ReLU joined, pooled, moved and up-sampled: four kinds of ops that must share grids."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.first(x).sigmoid(), 3 * F.relu(self.second(x))], 1)
        pooled = F.max_pool2d(F.avg_pool2d(joined, 2), 2)
        larger = F.interpolate(F.interpolate(pooled, scale_factor=2), scale_factor=2, mode="bilinear")
        return F.softmax(self.last(larger.flip(3)), 1)


def test_runtimes_never_have_to_rescale_what_they_move() -> None:
    """For every op that must keep its grid: all quantisers in front of it and behind it are alike."""
    graph = int8(seeded(Everything))
    checked = 0
    for node in graph.graph.nodes:
        if node.target not in ops.ONE_GRID:
            continue
        front = [s.args[0] for s in node.all_input_nodes if s.target in ops.DEQUANTIZE]
        behind = [user for user in node.users if user.target in ops.QUANTIZE]
        assert front
        assert len({grid_of(quantize) for quantize in [*front, *behind]}) == 1, node
        checked += 1
    assert checked >= 5


def test_known_functions_keep_their_grid_even_where_they_are_joined_with_others() -> None:
    graph = int8(seeded(Everything))
    sigmoid = next(node for node in graph.graph.nodes if node.target is ops.aten.sigmoid.default)
    softmax = next(node for node in graph.graph.nodes if node.target is ops.aten.softmax.int)
    for node in (sigmoid, softmax):
        (quantize,) = node.users
        assert grid_of(quantize) == (1 / 256, -128)
    (again,) = next(iter(next(iter(sigmoid.users)).users)).users  # a second pair, onto the common grid
    assert again.target in ops.QUANTIZE
    assert grid_of(again) != (1 / 256, -128)


def test_constants_of_sums_products_and_embeddings_are_quantised() -> None:
    case = CASES["text_encoder"]
    graph = calibrate(capture(trained("text_encoder"), inputs(case, 1)), [inputs(case, 16, seed=1)])
    baked = bake_weights(graph)
    table = next(node for node in baked.graph.nodes if node.target is ops.aten.embedding.default).args[0]
    assert table.target in ops.DEQUANTIZE
    assert ops.attribute(baked, table.args[0].target).dtype is torch.int8
    for node in graph.graph.nodes:
        if node.target in ops.SUMS | ops.PRODUCTS | ops.MATMULS and ops.is_float(node):
            assert all(source.target in ops.DEQUANTIZE for source in node.all_input_nodes), node


@given(st.floats(-50, 50), st.floats(-50, 50), st.booleans())
def test_a_grid_holds_its_range_and_zero_exactly(one: float, other: float, symmetric: bool) -> None:
    low, high = sorted((one, other))
    scale, zero_point = grid_for(low, high, symmetric=symmetric)
    assert -128 <= zero_point <= 127
    assert zero_point == 0 or not symmetric
    smallest, largest = (-128 - zero_point) * scale, (127 - zero_point) * scale
    assert smallest <= min(low, 0) + 0.51 * scale
    assert largest >= max(high, 0) - 0.51 * scale


@pytest.mark.parametrize("build", [Residual, Mobile])
def test_weights_and_biases_lie_on_the_integers_that_files_hold(build: type[nn.Module]) -> None:
    graph = copy.deepcopy(quantized(build)[1])
    layers = 0
    for node in graph.graph.nodes:
        if node.target not in ops.WEIGHTED:
            continue
        weight = ops.attribute(graph, node.args[1].args[1].target).double().numpy()
        scale = np.float64(node.args[0].args[1]) * weight
        integers = ops.attribute(graph, node.args[2].target).detach().double().numpy() / scale
        assert np.abs(integers - np.rint(integers)).max() < 0.05  # float32 holds 24 bits of them
        layers += 1
    assert layers == snap_biases(graph)
    before = graph(images(4))
    snap_weights(graph)
    assert torch.equal(graph(images(4)), before)


def test_a_channel_without_negative_weights_is_symmetric_too() -> None:
    model = seeded(Residual)
    with torch.no_grad():
        model.second.weight.abs_()
    graph = int8(model)
    for node in graph.graph.nodes:
        if node.target is ops.qd.quantize_per_channel.default:
            weight, scale, zero_point = (ops.attribute(graph, arg.target) for arg in node.args[:3])
            assert not zero_point.any()
            largest = weight.detach().abs().flatten(1).amax(1)
            assert bool((largest <= 127.51 * scale).all())


class Masked(nn.Module):
    """Scores with minus infinity in them: no grid may be asked to hold that."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0]
        scores = self.query(x) @ x.transpose(1, 2)
        hidden = torch.full((8, 8), -torch.inf).triu(1)
        return F.softmax(scores + hidden, -1) @ self.value(x)


def test_masks_stay_out_of_the_grid() -> None:
    model = seeded(Masked)
    graph = int8(model)
    for quantize in per_tensor(graph):
        assert np.isfinite(grid_of(quantize)[0])
    x = images(8, seed=9)
    assert (graph(x) - model(x)).abs().max() < 0.1 * model(x).abs().max()
