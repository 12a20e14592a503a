"""Convolutions in groups, in fewer and wider ones: the same integers, and no MAC more in the count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.onnx.groups import merged, widened
from edgekit.formats.options import ExportOptions, Target
from edgekit.formats.parity.file_parity import file_parity
from edgekit.formats.parity.layers import first_wrong
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.networks import snr_db

# channels, groups -> groups of the file
CASES = {(64, 16): 2, (64, 4): 2, (24, 3): 1, (56, 7): 1, (64, 2): 2, (152, 19): 19, (48, 48): 48, (16, 1): 1}


PLAIN = ExportOptions()


class Grouped(nn.Module):
    """(N, 3, 8, 8) to 5, by way of a convolution in groups that is used twice."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, channels, 1), nn.Conv2d(channels, 5, 1)
        self.grouped = nn.Conv2d(channels, channels, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        answers: Tensor = self.last(self.grouped(torch.relu(self.grouped(torch.relu(self.first(x))))))
        return answers


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def written(path: Path, channels: int, groups: int, options: ExportOptions = PLAIN) -> nn.Module:
    torch.manual_seed(0)
    graph = calibrate(capture(Grouped(channels, groups).eval(), pictures(1)), [pictures(32)])
    how = {"format": "onnx", "precision": "int8", "metadata": {}, "options": options}
    export(graph, pictures(1), path, **how)  # type: ignore[arg-type]
    return graph


def answered(path: Path, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (answers,) = session.run(None, {"input": x.numpy()})
    return torch.from_numpy(answers)


def groups_of(path: Path) -> set[int]:
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"][1:-1]
    return {next((a.i for a in node.attribute if a.name == "group"), 1) for node in nodes}


@pytest.mark.parametrize(("channels", "groups"), CASES)
def test_the_file_answers_as_the_graph(channels: int, groups: int, tmp_path: Path) -> None:
    path, x = tmp_path / "x.onnx", pictures(16, seed=5)
    graph = written(path, channels, groups)
    assert groups_of(path) == {CASES[channels, groups]}
    assert snr_db(graph(x), answered(path, x)) > 40
    assert first_wrong(file_parity(graph, path, "onnx", x[:4])) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("channels", "groups"), CASES)
def test_coverage_counts_the_macs_of_the_network(channels: int, groups: int, tmp_path: Path) -> None:
    written(tmp_path / "x.onnx", channels, groups)
    counted = FORMATS["onnx"].coverage(tmp_path / "x.onnx")
    by_hand = 64 * (3 * channels + 2 * channels * channels // groups * 9 + 5 * channels)
    assert (counted.total_macs, counted.share) == (by_hand, 1.0)


def test_arm_and_openvino_keep_the_groups(tmp_path: Path) -> None:
    written(tmp_path / "arm.onnx", 64, 16, ExportOptions(target=Target("int8", 8)))
    assert groups_of(tmp_path / "arm.onnx") == {16}
    torch.manual_seed(0)
    graph = calibrate(capture(Grouped(64, 16).eval(), pictures(1)), [pictures(32)])
    how = {"format": "openvino", "precision": "int8", "metadata": {}}
    export(graph, pictures(1), tmp_path / "own.onnx", **how)  # type: ignore[arg-type]
    assert groups_of(tmp_path / "own.onnx") == {16}


def test_a_widened_weight_computes_the_same() -> None:
    weight = torch.randint(-9, 10, (24, 4, 3, 3), generator=torch.Generator().manual_seed(0)).float()
    x = pictures(1).expand(8, 3, 8, 8).reshape(1, 24, 8, 8)
    expected = nn.functional.conv2d(x, weight, groups=6)
    for times in (1, 2, 3, 6):
        wide = widened(weight, 6, times)
        assert wide.shape == (24, 4 * times, 3, 3)
        torch.testing.assert_close(nn.functional.conv2d(x, wide, groups=6 // times), expected)
        assert merged(wide.numpy(), 6 // times) == times
    assert merged(np.ones((8, 8, 1, 1)), 1) == 1


def test_a_weight_that_another_layer_reads(tmp_path: Path) -> None:
    class Shared(Grouped):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.first(x))
            twice = nn.functional.conv2d(x, self.grouped.weight, stride=2, groups=16)
            answers: Tensor = self.last(self.grouped(x)[:, :, :3, :3] + twice)
            return answers

    torch.manual_seed(0)
    graph = calibrate(capture(Shared(64, 16).eval(), pictures(1)), [pictures(32)])
    export(graph, pictures(1), tmp_path / "x.onnx", format="onnx", precision="int8", metadata={})
    assert snr_db(graph(pictures(16, seed=5)), answered(tmp_path / "x.onnx", pictures(16, seed=5))) > 40
