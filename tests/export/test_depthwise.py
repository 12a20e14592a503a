"""Depthwise convolutions with large kernels: the same numbers, by kernels that XNNPACK has."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.formats.options import ExportOptions
from edgekit.formats.parity.divergence import layer_parity
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.graph.depthwise import MOST_TAPS, parts, split_large_kernels
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import nhwc, run_litert
from tests.networks import snr_db


@given(st.lists(st.integers(1, 70), min_size=1, max_size=2).map(tuple))
def test_parts_hold_each_tap_once(kernel: tuple[int, ...]) -> None:
    found = parts(kernel)
    taps = [
        tap for part in found for tap in itertools.product(*(range(side.start, side.stop) for side in part))
    ]
    assert sorted(taps) == sorted(itertools.product(*map(range, kernel)))
    assert all(math.prod(side.stop - side.start for side in part) <= MOST_TAPS for part in found)


def test_seven_by_seven_is_cut_into_three_parts() -> None:
    assert [side.stop - side.start for side, _ in parts((7, 7))] == [3, 3, 1]


class Large(nn.Module):
    """A depthwise convolution with the settings given, between two others."""

    def __init__(self, kernel: int | tuple[int, int], dims: int = 2, **settings: object) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
        self.first, self.last = conv(4, 16, 1), conv(16, 4, 1)
        self.large = conv(16, 16, kernel, groups=16, **settings)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.large(torch.relu(self.first(x)))))


SETTINGS = {
    "padded": ({"kernel": 7, "padding": 3}, (4, 12, 12)),
    "strided": ({"kernel": 7, "padding": 3, "stride": 2}, (4, 13, 12)),
    "dilated": ({"kernel": (9, 5), "dilation": (1, 2), "bias": False}, (4, 12, 12)),
    "one side each": ({"kernel": (1, 31), "padding": (0, 15)}, (4, 6, 33)),
    "of features": ({"kernel": 31, "padding": 15, "dims": 1}, (4, 33)),
    "without padding": ({"kernel": 8}, (4, 12, 12)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_graph_gives_the_same(name: str) -> None:
    settings, shape = SETTINGS[name]
    torch.manual_seed(0)
    model, x = Large(**settings).eval(), torch.randn(3, *shape)  # type: ignore[arg-type]
    graph = capture(model, x[:1])
    assert split_large_kernels(graph) == 1
    with torch.no_grad():
        torch.testing.assert_close(graph(x), model(x), rtol=1e-5, atol=1e-6)
    for node in graph.graph.nodes:
        if node.target in ops.CONVOLUTIONS and ops.shape_of(node.args[1])[1] == 1:
            assert math.prod(ops.shape_of(node.args[1])[2:]) <= MOST_TAPS


def test_small_kernels_and_dense_ones_stay() -> None:
    x = torch.randn(1, 4, 12, 12)
    for model in (Large(5, padding=2), nn.Conv2d(4, 4, 7, padding=3), nn.Conv2d(4, 8, 7, groups=2)):
        assert split_large_kernels(capture(model.eval(), x)) == 0


def _taps(path: Path) -> list[tuple[int, str]]:
    """(taps, type) of each depthwise convolution in a file."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    tensors = {one["index"]: one for one in interpreter.get_tensor_details()}
    found = []
    for one in interpreter._get_ops_details():
        if one["op_name"] == "DEPTHWISE_CONV_2D":
            weight = tensors[one["inputs"][1]]
            found.append((int(math.prod(weight["shape"][1:3])), weight["dtype"].__name__))
    return found


def test_files_have_no_large_kernel_and_int8_is_right_to_the_step(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="needs the extra litert")
    torch.manual_seed(0)
    model, x = Large(7, padding=3).eval(), torch.randn(24, 4, 12, 12)
    graph = capture(model, x[:1])
    int8 = calibrate(graph, [x[:16]])
    written = {
        "fp32": tmp_path / "fp32.tflite",
        "int8": tmp_path / "int8.tflite",
        "whole": tmp_path / "whole.tflite",
    }
    for name, path in written.items():
        export(
            graph if name == "fp32" else int8,
            x[:1],
            path,
            format="litert",
            precision="fp32" if name == "fp32" else "int8",
            metadata={},
            options=ExportOptions(whole_kernels=name == "whole"),
        )
    assert (
        _taps(written["fp32"]) == _taps(written["int8"]) == [(21, "float32"), (21, "float32"), (7, "float32")]
    )
    assert _taps(written["whole"]) == [(49, "int8")]
    counted = FORMATS["litert"].coverage(written["int8"])
    assert {layer.kernel for layer in counted.floats()} == {"DEPTHWISE_CONV_2D"}
    assert all("more than 25 taps" in layer.reason for layer in counted.floats())
    assert FORMATS["litert"].coverage(written["whole"]).floats() == []
    with torch.no_grad():
        wanted, exact = int8(x[16:]), model(x[16:])
    assert snr_db(wanted, run_litert(written["int8"], nhwc(x[16:]))) > 50
    assert snr_db(exact, run_litert(written["fp32"], nhwc(x[16:]))) > 100
    layers = layer_parity(int8, "litert", x[16:20])
    assert layers
    assert max(layer.peak for layer in layers) <= 1
