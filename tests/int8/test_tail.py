"""The float tail: boxes, scores, offsets and small probabilities keep their digits in both files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import CalibrationOptions, calibrate
from edgekit.int8.tail import float_tail
from tests.export.runtimes import files_of
from tests.networks import Residual, images, seeded, snr_db


class Detector(nn.Module):
    """Boxes in pixels around anchors, scores near 0, and raw offsets, joined: (N, 8, 16)."""

    anchors: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.boxes, self.scores, self.offsets = (nn.Conv2d(16, count, 1) for count in (4, 2, 2))
        self.register_buffer("anchors", torch.arange(16.0).reshape(1, 1, 16) * 40)
        with torch.no_grad():
            self.scores.bias.sub_(5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        boxes = self.boxes(x).flatten(2) * 8 + self.anchors
        return torch.cat([boxes, self.scores(x).sigmoid().flatten(2), self.offsets(x).flatten(2)], 1)


def test_every_channel_of_a_joined_output_is_as_right_as_alone(tmp_path: Path) -> None:
    model, x = seeded(Detector), images(64)
    graph = calibrate(capture(model, x[:1]), list(x.split(16)))
    with torch.no_grad():
        wanted, reference = model(x), graph(x[:4])
    for channel in range(wanted.shape[1]):
        assert snr_db(wanted[:, channel], graph(x)[:, channel]) > 30, channel
    for name, got in files_of(graph, x[:4], tmp_path).items():
        for channel in range(wanted.shape[1]):
            assert snr_db(reference[:, channel], got[:, channel]) > 30, (name, channel)


class Many(nn.Module):
    """200 classes, and a function behind them."""

    def __init__(self, last: nn.Module, bias: float) -> None:
        super().__init__()
        self.stem, self.head, self.last = nn.Conv2d(3, 16, 3, 2, 1), nn.Linear(64, 200), last
        with torch.no_grad():
            self.head.weight.mul_(8)
            self.head.bias.add_(bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.head(F.adaptive_avg_pool2d(F.relu(self.stem(x)), 2).flatten(1)))


@pytest.mark.parametrize(("last", "bias"), [(nn.Softmax(1), 0.0), (nn.Sigmoid(), -6.0)])
def test_the_last_function_costs_nothing_against_its_logits(last: nn.Module, bias: float) -> None:
    """The graph gives the function of the very logits that it gives without the function."""
    x = images(32)
    graphs = [
        calibrate(capture(seeded(lambda f=f: Many(f, bias)), x[:1]), [x], CalibrationOptions("mse"))
        for f in (nn.Identity(), last)
    ]
    with torch.no_grad():
        logits, answers = (graph(x) for graph in graphs)
        assert torch.equal(last(logits), answers)


def test_the_tail_begins_behind_the_last_layer_that_multiplies() -> None:
    graph = capture(seeded(Detector), images(1))
    tail = float_tail(graph)
    assert sum(node.target in ops.CONCATENATIONS for node in tail) == 1
    assert sum(node.target is ops.aten.sigmoid.default for node in tail) == 1
    assert not any(node.target in ops.WEIGHTED for node in tail)
    assert not float_tail(capture(seeded(Residual), images(1)))
