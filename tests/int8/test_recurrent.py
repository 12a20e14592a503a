"""Recurrent layers in the int8 graph: their weights are rounded there, row by row, and train on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn

from edgekit.formats.parity.divergence import snr_db
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import CalibrationOptions, calibrate, estimate
from edgekit.int8.trainable import copy_parameters, trainable
from tests.recurrent import Quiet, Steps, draw, powers


def rounded(graph: fx.GraphModule) -> dict[str, Tensor]:
    """The weights of recurrent layers that are on a grid, by name, as they are multiplied."""
    found = {}
    for node in graph.graph.nodes:
        if node.target not in ops.RECURRENT:
            continue
        for back in node.all_input_nodes:
            if back.target is ops.qd.dequantize_per_channel.default:
                values = [ops.attribute(graph, one.target) for one in back.args[0].args[:3]]
                integers = back.args[0].target(*values, *back.args[0].args[3:])
                found[back.args[0].args[0].target] = back.target(integers, *values[1:], *back.args[3:])
    return found


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return Steps(nn.LSTM, layers=2, bidirectional=True)


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> fx.GraphModule:
    return calibrate(capture(model, draw(2)), [draw(32, 1), draw(32, 2)])


def test_every_matrix_has_a_grid_for_each_row(model: nn.Module, graph: fx.GraphModule) -> None:
    weights = {name: one for name, one in model.named_parameters() if "memory.weight" in name}
    found = rounded(graph)
    assert found.keys() == weights.keys()
    assert len(found) == 8  # of inputs and of states, two layers in two directions
    for name, value in found.items():
        weight = weights[name].detach()
        step = weight.abs().amax(1, keepdim=True) / 127
        assert bool(((value - weight).abs() <= step * 0.501).all())
        assert not torch.equal(value, weight)
        assert bool((value / step).abs().amax(1).isclose(torch.tensor(127.0)).all())


def test_calibration_alone_keeps_the_answers(model: nn.Module, graph: fx.GraphModule) -> None:
    with torch.no_grad():
        assert snr_db(model(draw(64, 3)), graph(draw(64, 3))) >= 35


def test_weights_train_on_through_their_rounding(graph: fx.GraphModule) -> None:
    student = trainable(graph)
    before = {name: one.detach().clone() for name, one in student.named_parameters()}
    optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
    student(draw(16, 4)).square().mean().backward()
    optimizer.step()
    moved = [n for n, one in student.named_parameters() if not torch.equal(one, before[n])]
    first = {"memory.weight_hh_l1_reverse"}  # what is read is its first step, in front of which is no state
    assert {name for name in before if "memory" in name} - first <= set(moved)
    trained = copy.deepcopy(graph)
    copy_parameters(student, trained)
    with torch.no_grad():
        torch.testing.assert_close(trained(draw(4, 5)), student(draw(4, 5)), rtol=0, atol=1e-5)


def test_a_layer_that_is_to_stay_in_float_does(model: nn.Module) -> None:
    options = CalibrationOptions(float_layers=("memory",))
    assert rounded(calibrate(capture(model, draw(2)), [draw(8, 1)], options)) == {}


@pytest.mark.parametrize("first", [True, False])
def test_inputs_that_8_bits_dont_hold_are_multiplied_in_float(first: bool) -> None:
    model, told = Quiet(first=first), list[str]()
    graph = estimate(capture(model, draw(2)), [powers(16, 1)], doubt=told.append)
    assert rounded(graph).keys() == {"memory.weight_hh_l0", "memory.weight_ih_l1", "memory.weight_hh_l1"}
    assert any("layer memory: its inputs span more than 8 bits hold" in one for one in told)
    told.clear()
    assert len(rounded(estimate(capture(Steps(nn.LSTM), draw(2)), [draw(16, 1)], doubt=told.append))) == 2
    assert not told


def test_a_weight_that_two_layers_read_has_one_grid() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.memory, self.head = nn.GRU(8, 8, batch_first=True), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.memory(self.memory(x)[0])[0][:, -1])
            return result

    graph = calibrate(capture(Twice().eval(), draw(2)), [draw(8, 1)])
    assert sum(node.target is ops.qd.quantize_per_channel.default for node in graph.graph.nodes) == 3
    assert len(rounded(graph)) == 2
