"""A layer that is used in several places is on integers in all of them."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.int8.trainable import trainable
from tests.export.runtimes import run_onnx
from tests.networks import images, snr_db


class Shared(nn.Module):
    """One convolution on two scales and one linear layer used twice, with a bias each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.relu(self.body(F.relu(self.stem(x))))
        coarse = F.relu(self.body(F.max_pool2d(fine, 2)))
        both = fine.mean((2, 3)) + coarse.mean((2, 3))
        return self.head(F.relu(self.mix(F.relu(self.mix(both)))))


def int8(model: nn.Module) -> fx.GraphModule:
    return calibrate(capture(model, images(1)), [images(16, seed) for seed in range(4)])


def test_every_place_reads_the_one_pair() -> None:
    graph = int8(Shared())
    layers = [node for node in graph.graph.nodes if node.target in ops.WEIGHTED]
    assert len(layers) == 6
    assert all(layer.args[1].target in ops.DEQUANTIZE for layer in layers)
    pairs = [node for node in graph.graph.nodes if node.target is ops.qd.quantize_per_channel.default]
    assert len(pairs) == 4


def test_the_file_is_integer_throughout_and_right(tmp_path: Path) -> None:
    model = Shared()
    graph, x = int8(model), images(16, 9)
    with torch.no_grad():
        assert snr_db(model(x), graph(x)) > 25
    export(graph, images(1), tmp_path / "n.onnx", format="onnx", precision="int8", metadata={})
    assert FORMATS["onnx"].coverage(tmp_path / "n.onnx").share == 1.0
    assert snr_db(graph(x), run_onnx(tmp_path / "n.onnx", x)) > 35


def test_a_shared_weight_stays_one_when_it_is_trained() -> None:
    graph = int8(Shared())
    trained = trainable(graph)
    assert len(list(trained.parameters())) == len(list(Shared().parameters()))
    trained(images(4)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())
    plain = copy.deepcopy(graph)
    assert torch.equal(plain(images(4)), graph(images(4)))
