"""Ops that XNNPACK doesn't take, as those that it does: the same integers, in one piece."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor, nn

from edgekit.formats.exporting import export
from edgekit.formats.litert import tflite_edit
from edgekit.formats.litert.coverage import PRODUCT, of_litert
from edgekit.formats.litert.delegated import delegated
from edgekit.formats.litert.reading import load
from edgekit.formats.litert.taken import as_xnnpack_takes_them
from edgekit.formats.options import ExportOptions
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import files_of, nhwc, run_litert
from tests.export.written import Written, answers
from tests.networks import seeded, snr_db


def respelled(written: Written, *outputs: int) -> dict[str, int]:
    """What XNNPACK leaves after respelling; answers have to be the very same."""
    written.graph.outputs = list(outputs)
    wanted = answers(written.model)
    assert as_xnnpack_takes_them(written.model) > 0
    for got, want in zip(answers(written.model), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    interpreter = Interpreter(model_content=tflite_edit.write(written.model), num_threads=1)
    interpreter.allocate_tensors()
    found = delegated(interpreter)
    assert found.partitions == 1
    return found.outside


@pytest.mark.parametrize("count", [6, 8, 9, 10, 23, 26])
def test_many_tensors_are_joined_in_parts(count: int) -> None:
    one = Written(1, 2, 3, 4)
    parts = [one.add(0, one.tensor((4,), np.full(4, index, np.float32))) for index in range(count)]
    more: dict[str, Any] = {"name": "ConcatenationOptions", "axis": -1}
    (joined,) = one.op("CONCATENATION", parts, (1, 2, 3, 4 * count), **more)
    assert respelled(one, joined) == {}


def test_a_clamp_is_the_start_of_a_grid() -> None:
    one = Written(1, 2, 3, 4)
    clamped = one.relu(0)
    total = one.add(clamped, 0)
    one.on_integers()
    assert respelled(one, total) == {}


def test_a_clamp_stays_in_front_of_what_shares_its_grid() -> None:
    one = Written(1, 2, 3, 4)
    one.graph.outputs = [one.pad(one.relu(0), [(0, 0), (1, 1), (1, 1), (0, 0)])]
    one.on_integers()
    assert as_xnnpack_takes_them(one.model) == 0


def test_a_grid_behind_a_grid() -> None:
    one = Written(1, 2, 3, 4)
    nothing = one.tensor((), np.array(1e-37, np.float32))
    total = one.add(0, nothing)
    one.on_integers()
    constant = one.graph.tensors[nothing]
    one.give_grid(constant, 1e-9, 0)
    one.model.buffers[constant.buffer].data = np.zeros(1, np.uint8)
    one.give_grid(one.graph.tensors[total], 0.27, -20)
    assert respelled(one, total) == {}


@pytest.mark.parametrize(
    "sides",
    [[(0, 0), (0, 0), (0, 0), (0, 1)], [(0, 0), (2, 1), (0, 3), (0, 0)], [(0, 0), (1, 1), (1, 1), (1, 0)]],
)
@pytest.mark.parametrize("number", [-128, 5])
def test_what_surrounds_a_tensor_stands_beside_it(sides: list[tuple[int, int]], number: int) -> None:
    """Linear attention pads with ones, a maximum with the lowest number."""
    one = Written(1, 2, 3, 4)
    filling = one.tensor((), np.zeros((), np.float32))
    shape = tuple(size + sum(two) for size, two in zip((1, 2, 3, 4), sides, strict=True))
    (padded,) = one.op("PADV2", [one.add(0, 0), one.numbers(sides), filling], shape, name="PadV2Options")
    last = one.add(padded, padded)
    one.on_integers()
    one.give_grid(one.graph.tensors[filling], 0.1, 3)
    one.model.buffers[one.graph.tensors[filling].buffer].data = np.array([number], np.int8).view(np.uint8)
    assert respelled(one, last) == {}


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (1, 3), (4, 8), (6, 1)])
def test_pixels_are_repeated(rows: int, columns: int) -> None:
    one = Written(1, 2, 3, 4)
    size = one.numbers([2 * rows, 3 * columns])
    more: dict[str, Any] = {"name": "ResizeNearestNeighborOptions"}
    (large,) = one.op("RESIZE_NEAREST_NEIGHBOR", [0, size], (1, 2 * rows, 3 * columns, 4), **more)
    one.on_integers()
    assert respelled(one, large) == {}


def test_other_sizes_stay() -> None:
    for size in ((3, 3), (14, 21)):  # no whole factor, and a prime one
        one = Written(1, 2, 3, 4)
        more: dict[str, Any] = {"name": "ResizeNearestNeighborOptions"}
        one.graph.outputs = one.op("RESIZE_NEAREST_NEIGHBOR", [0, one.numbers(size)], (1, *size, 4), **more)
        one.on_integers()
        assert as_xnnpack_takes_them(one.model) == 0


class Preactivated(nn.Module):
    """Blocks that begin with a clamp of a stream that goes on without it, and a join of six."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, 8, 1), nn.Conv2d(48, 4, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        parts = [x]
        for block in self.blocks:
            x = x + block(torch.relu(x))
            parts.append(x)
        return self.last(torch.cat(parts, 1))


def test_a_network_in_one_piece(tmp_path: Path) -> None:
    model = seeded(Preactivated)
    x = torch.randn(32, 4, 9, 8, generator=torch.Generator().manual_seed(1))
    graph = calibrate(capture(model, x[:1]), [x])
    with torch.no_grad():
        wanted = graph(x[:4])
    assert snr_db(wanted, files_of(graph, x[:4], tmp_path)["litert"]) > 40
    found = delegated(load(tmp_path / "graph.litert"))
    assert (found.partitions, found.outside) == (1, {})


def test_coverage_tells_what_stays_outside(tmp_path: Path) -> None:
    """``whole_kernels``: nothing is spelled for XNNPACK, so that LiteRT's own GELU stands between."""
    layers = [nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)]
    x, path = torch.randn(8, 3, 12, 12), tmp_path / "split.tflite"
    graph = calibrate(capture(nn.Sequential(*layers).eval(), x[:1]), [x])
    options = ExportOptions(whole_kernels=True)
    export(graph, x[:1], path, format="litert", precision="int8", metadata={}, options=options)
    found = of_litert(path)
    assert found.partitions == 2
    assert found.outside == {"GELU": 1}


class Attention(nn.Module):
    """Scores of few places, which stay int8 in the graph, a softmax and a GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.last = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores = (self.query(x) @ self.key(x).transpose(1, 2)).softmax(-1)
        return self.last(nn.functional.gelu(scores @ self.value(x)))


def test_what_xnnpack_has_in_float_alone_is_computed_there(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, files = torch.randn(64, 12, 16), {}
    graph = calibrate(capture(Attention().eval(), x[:1]), [x])
    for whole in (False, True):
        files[whole] = tmp_path / f"{whole}.tflite"
        options = ExportOptions(whole_kernels=whole)
        about: Any = {"format": "litert", "precision": "int8", "metadata": {}, "options": options}
        export(graph, x[:1], files[whole], **about)
    mended, plain = (of_litert(files[whole]) for whole in (False, True))
    assert (mended.partitions, mended.outside) == (1, {})
    assert {one.kernel: one.reason for one in mended.floats()} == {"BATCH_MATMUL": PRODUCT}
    assert plain.outside == {"FULLY_CONNECTED": 2, "SOFTMAX": 1, "GELU": 1}
    for whole, path in files.items():
        assert snr_db(graph(x), run_litert(path, x)) > 40, whole


class Selected(nn.Module):
    """Two branches, weighed against each other by a softmax across them (SKNet, ResNeSt)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.choose, self.last = nn.Conv2d(8, 16, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.one(x).relu(), self.two(x).relu()], 1)
        weights = self.choose(both.sum(1).mean((2, 3), keepdim=True)).reshape(-1, 2, 8, 1, 1).softmax(1)
        found: Tensor = self.last((both * weights).sum(1))
        return found.softmax(1)


@pytest.mark.parametrize("size", [0.0, 1e-7, 1e-4, 3.0])
def test_a_summand_of_any_size_splits_nothing(tmp_path: Path, size: float) -> None:
    """XNNPACK adds no tensors whose scales differ too much: a bias of its own that training left near 0."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
            self.shift = nn.Parameter(size * torch.linspace(-0.2, 1, 8).reshape(1, 8, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x)
            found: Tensor = self.two(y * y.sigmoid() + self.shift)
            return found

    model, inputs = seeded(Shifted), torch.randn(32, 3, 8, 8)
    graph = calibrate(capture(model, inputs[:2]), [inputs])
    path = tmp_path / "model.tflite"
    export(graph, inputs[:1], path, format="litert", precision="int8", metadata={})
    found = delegated(load(path))
    assert (found.partitions, found.outside) == (1, {})
    with torch.no_grad():
        assert snr_db(model(inputs), run_litert(path, nhwc(inputs))) > 30


def test_a_softmax_across_branches_splits_nothing(tmp_path: Path) -> None:
    """Along axes that aren't the last one, between transposes."""
    model, inputs = seeded(Selected), torch.randn(8, 3, 8, 8)
    graph = calibrate(capture(model, inputs[:2]), [inputs])
    path = tmp_path / "model.tflite"
    export(graph, inputs[:1], path, format="litert", precision="int8", metadata={})
    found = delegated(load(path))
    assert (found.partitions, found.outside) == (1, {})
    with torch.no_grad():
        wanted, exact = graph(inputs), model(inputs)
    answered = run_litert(path, nhwc(inputs))
    assert snr_db(wanted, answered) > 40
    assert snr_db(exact, answered) > 30


def test_products_of_matrices_in_float_split_nothing_either(tmp_path: Path) -> None:
    """The converter writes them as linear layers, whose weights have to be constants in XNNPACK."""
    model, x, path = seeded(Attention), torch.randn(4, 12, 16), tmp_path / "model.tflite"
    export(model, x[:1], path, format="litert", precision="fp32", metadata={})
    found = delegated(load(path))
    assert (found.partitions, found.outside) == (1, {})
    with torch.no_grad():
        assert snr_db(model(x), run_litert(path, x)) > 100
