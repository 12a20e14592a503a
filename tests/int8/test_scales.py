"""Scales that learn: shared where grids are shared, fixed where functions have their own, written back."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate, estimate, settle
from edgekit.int8.fake_quantize import learned_fake_quantize
from edgekit.int8.grid import snap_biases
from edgekit.int8.scales import LearnedScales, clamp_limits
from edgekit.int8.trainable import copy_parameters, trainable
from edgekit.int8.unify import grid_of, per_tensor
from edgekit.runtimes.device import runtimes
from tests.networks import Concatenated, Mobile, Residual, images, quantized, seeded, snr_db


class Gated(nn.Module):
    """Squeeze-excite: a sigmoid, whose grid is known; pooled and joined tensors, whose grids are shared."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        joined = torch.cat([F.max_pool2d(x, 2), F.avg_pool2d(x, 2)], 1)
        return self.head(joined.mean((2, 3)))


@functools.cache
def calibrated(build: type[nn.Module]) -> fx.GraphModule:
    return calibrate(capture(seeded(build), images(1)), [images(16, seed) for seed in range(2)])


def int8(build: type[nn.Module]) -> fx.GraphModule:
    return copy.deepcopy(calibrated(build))


def learn(graph: fx.GraphModule, scales: LearnedScales, steps: int = 8, lr: float = 2e-3) -> fx.GraphModule:
    """Train weights and scales for a moment, towards other answers than those of the graph."""
    trained = trainable(graph, scales)
    x = images(16, 5)
    wanted = graph(x).detach() * 1.2 + 0.1
    optimizer = torch.optim.Adam(trained.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(trained(x), wanted).backward()
        optimizer.step()
    return trained


def finish(trained: fx.GraphModule, scales: LearnedScales, graph: fx.GraphModule) -> None:
    copy_parameters(trained, graph)
    scales.write_back(trained, graph)
    snap_biases(graph)


@pytest.mark.parametrize("build", [Residual, Concatenated, Gated])
def test_learning_starts_from_the_same_numbers_and_reaches_every_scale(build: type[nn.Module]) -> None:
    graph = int8(build)
    scales = LearnedScales.of(graph)
    training = trainable(graph, scales)
    x = images(8)
    assert torch.equal(training(x), graph(x))
    training(x).square().sum().backward()
    parameters = dict(training.named_parameters())
    for learned in (*scales.activations, *scales.weights):
        assert parameters[learned.name].grad is not None, learned
    assert len(scales.weights) == sum(n.target in ops.WEIGHTED for n in graph.graph.nodes)
    before = {name: value.clone() for name, value in training.state_dict().items()}
    again = copy.deepcopy(training)
    again.load_state_dict(before)
    assert torch.equal(again(x), graph(x))


def test_quantisers_that_share_a_grid_share_a_parameter() -> None:
    graph = int8(Gated)
    nodes = [node for node in graph.graph.nodes if node.target in ops.QUANTIZE]
    owner = {nodes[p]: learned for learned in LearnedScales.of(graph).activations for p in learned.positions}
    joins = [node for node in graph.graph.nodes if node.target in ops.ONE_GRID]
    assert joins
    for node in joins:
        around = [s.args[0] for s in node.all_input_nodes if s.target in ops.DEQUANTIZE]
        around += [user for user in node.users if user in owner]
        assert len({owner[quantize] for quantize in around}) == 1
    (sigmoid,) = (node for node in graph.graph.nodes if node.target is ops.aten.sigmoid.default)
    assert not set(sigmoid.users) & set(owner)


def test_after_training_the_graph_has_the_learned_scales_and_the_promises_hold() -> None:
    graph = int8(Gated)
    before = [grid_of(node) for node in per_tensor(graph)]
    scales = LearnedScales.of(graph)
    trained = learn(graph, scales)
    finish(trained, scales, graph)
    after = [grid_of(node) for node in per_tensor(graph)]
    assert [zero for _, zero in after] == [zero for _, zero in before]
    assert sum(one != other for one, other in zip(before, after, strict=True)) > 5
    for node in graph.graph.nodes:
        if node.target in ops.DEQUANTIZE:
            assert node.args[1:] == node.args[0].args[1:], node
        if node.target in ops.ONE_GRID:
            front = [grid_of(s.args[0]) for s in node.all_input_nodes if s.target in ops.DEQUANTIZE]
            behind = [grid_of(user) for user in node.users if user.target in ops.QUANTIZE]
            assert len({*front, *behind}) == 1, node
    x = images(16, 9)
    # Biases are rounded to a grid that is 256 times finer than the rest, or more.
    assert snr_db(trained(x), graph(x)) > 35


class Limited(nn.Module):
    """A ReLU6 that has work to do: what it clamps, the grid's end does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu6(6 * self.first(x) + 2).mean((2, 3)))


def test_a_scale_never_grows_past_the_clamp_that_its_grid_does() -> None:
    raw = estimate(capture(seeded(Limited), images(1)), [images(16, seed) for seed in range(2)])
    limits = clamp_limits(raw)
    graph = settle(copy.deepcopy(raw))
    assert not [node for node in graph.graph.nodes if node.target in ops.CLAMPS]
    (name,) = (node.name for node in per_tensor(raw) if node.args[0].target in ops.CLAMPS)
    scales = LearnedScales.of(graph, limits)
    trained = trainable(graph, scales)
    with torch.no_grad():
        for learned in scales.activations:
            ops.attribute(trained, learned.name).mul_(3)
    scales.write_back(trained, graph)
    grids = {node.name: grid_of(node) for node in per_tensor(graph)}
    scale, zero_point = grids[name]
    assert (127 - zero_point) * scale == pytest.approx(6, rel=1e-3)
    (start,) = (grid_of(node)[0] for node in per_tensor(raw) if node.args[0].op == "placeholder")
    (first,) = (grid_of(node)[0] for node in per_tensor(graph) if node.args[0].op == "placeholder")
    assert first == pytest.approx(3 * start)  # nothing clamps there
    x = images(8, 9)
    assert torch.equal(trained(x), graph(x))  # training saw the same limit


def test_the_scale_of_a_weight_stays_positive() -> None:
    graph = int8(Residual)
    scales = LearnedScales.of(graph)
    trained = trainable(graph, scales)
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.dim() <= 1:
                parameter.neg_()
    finish(trained, scales, graph)
    for node in graph.graph.nodes:
        if node.target is ops.qd.quantize_per_channel.default:
            assert bool((ops.attribute(graph, str(node.args[1].target)) > 0).all())
    assert all(grid_of(node)[0] > 0 for node in per_tensor(graph))


def test_a_clamp_between_equal_grids_keeps_them_equal() -> None:
    _, graph = quantized(Concatenated)
    met = copy.deepcopy(graph)
    nodes = {node.name: node for node in met.graph.nodes}
    quantize = next(node for node in nodes.values() if node.target is ops.qd.quantize_per_tensor.default)
    back = next(iter(quantize.users))
    with met.graph.inserting_after(back):
        clamp = met.graph.call_function(ops.aten.relu.default, (back,))
    with met.graph.inserting_after(clamp):
        second = met.graph.call_function(ops.qd.quantize_per_tensor.default, (clamp, *quantize.args[1:]))
    scales = LearnedScales.of(met)
    order = [node for node in met.graph.nodes if node.target in ops.QUANTIZE]
    places = {order.index(quantize), order.index(second)}
    assert any(places <= set(learned.positions) for learned in scales.activations)


def answers_of(path: Path, format: str, samples: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    kind = runtimes.find({"onnx": "onnxruntime", "litert": "litert"}[format])
    kind.prepare()
    model = kind(str(path), 1)
    rows = []
    for row in samples.split(1):
        model.bind(model.arrange(row.numpy(), "NHWC" if format == "litert" else "NCHW"))
        model.invoke()
        rows.append(np.array(model.output()))
    return np.concatenate(rows)


@pytest.mark.parametrize("format", ["onnx", "litert"])
@pytest.mark.parametrize("build", [Gated, pytest.param(Mobile, marks=pytest.mark.slow)])
def test_files_agree_with_the_graph_whose_scales_have_learned(
    build: type[nn.Module], format: str, tmp_path: Path
) -> None:
    if format == "litert":
        pytest.importorskip("litert_torch", reason="needs the extra litert")
    graph = int8(build)
    scales = LearnedScales.of(graph)
    finish(learn(graph, scales), scales, graph)
    path = tmp_path / f"net.{format}"
    export(graph, images(1), path, format=format, precision="int8", metadata={})
    assert FORMATS[format].coverage(path).floats() == []
    samples = images(16, 99)
    got = torch.from_numpy(answers_of(path, format, samples))
    with torch.no_grad():
        assert snr_db(graph(samples), got) > 30


def test_the_ops_of_constants_count_all_their_numbers() -> None:
    """The factor of the scale's gradient goes by the numbers of a sample, or by those of a whole constant."""
    x = torch.randn(4, 25, generator=torch.Generator().manual_seed(0)) * 20
    slopes = []
    for constant in (False, True):
        scale = torch.tensor(0.25, requires_grad=True)
        y = learned_fake_quantize(x, scale, 0, -128, 127, 0.01, 1.0, constant)
        slopes.append(float(torch.autograd.grad(y.square().sum(), scale)[0]))
    assert slopes[0] == pytest.approx(2 * slopes[1], rel=1e-4)
