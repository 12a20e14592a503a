from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit import batching, macs
from edgekit.diagnosis import layers
from edgekit.diagnosis.layers import layers_of, snr_of_layers
from edgekit.diagnosis.record import LayerRow
from edgekit.formats.parity.divergence import snr_db
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.report.page.layers import Kernel, matched
from tests.networks import Mobile, Residual, images, quantized, seeded
from tests.recurrent import STEPS, Steps, draw


def test_the_layers_of_a_module_are_those_that_multiply() -> None:
    model = seeded(Mobile)
    rows = layers_of(model, images(2))
    assert [(row.name, row.kind, row.channels_in, row.channels_out) for row in rows] == [
        ("body.0", "convolution", 3, 16),
        ("body.3", "convolution", 16, 16),  # depthwise: 16 groups of one channel
        ("body.6", "convolution", 16, 8),
        ("head", "linear", 8, 5),
    ]
    assert [row.parameters for row in rows] == [3 * 16, 16 * 9, 16 * 8, 8 * 5 + 5]
    assert sum(row.macs for row in rows) == macs.count(model, images(1)).macs
    assert {(row.bits, row.snr_db) for row in rows} == {(32, None)}


def test_the_layers_of_an_int8_graph_bear_the_names_of_the_model() -> None:
    model, graph = quantized(Residual)
    rows = layers_of(graph, images(4))
    plain = {row.name: row for row in layers_of(model, images(4))}
    assert [row.name for row in rows] == ["first", "second", "head"]
    for row in rows:
        assert (row.macs, row.channels_in, row.channels_out) == (
            plain[row.name].macs,
            plain[row.name].channels_in,
            plain[row.name].channels_out,
        )
        assert row.bits == 8
    assert [row.parameters for row in rows] == [8 * 3 * 9 + 8, 8 * 8 * 9 + 8, 8 * 5 + 5]  # norms are folded


def test_the_noise_is_that_against_the_float_model() -> None:
    """Not trained, so without rounding the graph is the model itself, ReLU and all."""
    model, graph = quantized(Residual)
    samples = images(8)
    with torch.no_grad():
        first = torch.relu(model.norm1(model.first(samples)))
        answers = model(samples)
        expected = snr_db(answers, graph(samples))
    found = snr_of_layers(graph, samples)
    assert found["head"] == pytest.approx(expected, abs=1.5)  # which clamps nothing
    # The largest error of rounding is half a step, its root mean square a step over the root of 12.
    step = float(first.max()) / 255
    uniform = 20 * torch.log10(first.square().mean().sqrt() / (step / 12**0.5))
    assert found["first"] < float(uniform)
    assert found["first"] > float(uniform) - 12  # weights and the input are rounded as well
    assert found == snr_of_layers(graph, samples)


def test_the_noise_is_summed_up_and_nothing_of_a_batch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the samples, the same peak: of the layers' outputs those of one batch are there."""
    _, graph = quantized(Residual)
    monkeypatch.setattr(batching, "BUDGET", 100_000)
    found, most = [], []
    for count in (16, 64):
        samples = images(count)
        watch = batching._Watch(samples)
        with watch:
            found.append(snr_of_layers(graph, samples))
        most.append(watch.most - samples.nbytes)
    assert most[1] < 1.1 * most[0]
    monkeypatch.setattr(batching, "BUDGET", 1 << 30)
    assert snr_of_layers(graph, images(64)) == pytest.approx(found[1], abs=1e-3)


def test_large_samples_are_fewer_and_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _, graph = quantized(Residual)
    told: list[tuple[int, int]] = []
    layers_of(graph, images(40), tell=lambda *both: told.append(both))
    assert told[-1] == (40, 40)
    monkeypatch.setattr(layers, "_MOST_MADE", 1)
    layers_of(graph, images(40), tell=lambda *both: told.append(both))
    assert told[-1] == (16, 16)


def test_without_noise_the_graph_is_asked_about_one_sample() -> None:
    _, graph = quantized(Residual)
    told: list[tuple[int, int]] = []
    rows = layers_of(graph, images(4), noise=False, tell=lambda *both: told.append(both))
    assert not told
    assert {row.snr_db for row in rows} == {None}
    assert [row.macs for row in rows] == [row.macs for row in layers_of(graph, images(4))]


@pytest.mark.parametrize("build", [nn.LSTM, nn.MultiheadAttention])
def test_what_is_no_layer_of_its_own_is_listed_without_channels(build: type[nn.Module]) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = build(8, 8) if build is nn.LSTM else build(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inside(x)[0] if build is nn.LSTM else self.inside(x, x, x)[0]

    rows = layers_of(Wrapped().eval(), torch.randn(2, 6, 8))
    assert rows
    assert sum(row.macs for row in rows) > 0


def test_a_recurrent_layer_of_an_int8_graph_is_one_row() -> None:
    model = Steps(nn.LSTM)
    graph = calibrate(capture(model, draw(2)), [draw(8, 1)])
    row = next(one for one in layers_of(graph, draw(4)) if one.kind == "recurrent")
    assert (row.name, row.bits) == ("memory", 8)
    assert row.parameters == sum(one.numel() for one in model.memory.parameters())
    assert row.macs == STEPS * sum(one.numel() for one in model.memory.parameters() if one.dim() == 2)


# --- which kernels are which layer ----------------------------------------------------------------------

LAYERS = [
    LayerRow("block.conv1", "convolution", 100, 1),
    LayerRow("block.conv10", "convolution", 100, 1),
    LayerRow("block.shortcut", "convolution", 40, 1),
    LayerRow("head", "linear", 10, 1),
]


def kernels(*pairs: tuple[str, int]) -> list[Kernel]:
    return [Kernel(name, "Conv", cost, True) for name, cost in pairs]


def test_kernels_are_found_by_the_names_they_bear() -> None:
    given = kernels(("head", 10), ("block.conv10_token_3", 100), ("block.conv1_token_2", 100), ("t7", 40))
    found = matched(LAYERS, given)
    assert found == {3: given[0], 1: given[1], 0: given[2], 2: given[3]}


def test_nameless_kernels_go_by_their_order_and_cost() -> None:
    given = kernels(("t1", 40), ("t2", 100), ("t3", 100), ("t4", 10))
    assert matched(LAYERS, given) == {2: given[0], 0: given[1], 1: given[2], 3: given[3]}


def test_another_models_kernels_are_no_layers_of_this_one() -> None:
    assert matched(LAYERS, kernels(("block.conv1", 200), ("block.conv10", 200), ("head", 10))) is None
    assert matched(LAYERS, []) is None
