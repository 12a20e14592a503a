"""Sums of integers as kernels form them: no error, one rounding, the files' very answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from edgekit.execution import Forward
from edgekit.formats import FORMATS
from edgekit.graph import ops
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.int8.integers import OnIntegers
from tests.export.runtimes import nhwc, run_litert, run_onnx, write
from tests.networks import images
from tests.spelling import spelled

STEP, NEXT, ZERO = 0.037, 3.1, -5
GRID = (-128, 127, torch.int8)


class Layer(nn.Module):
    """A convolution of integers, (N, 4, 6, 6) to (N, 3, 6, 6), between two grids."""

    def __init__(self, seed: int, groups: int, size: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.groups = groups
        scale = 0.001 + 0.02 * torch.rand(4, generator=random)
        whole = torch.randint(-size, size + 1, (4, 4 // groups, 3, 3), generator=random)
        self.register_buffer("scale", scale)
        self.register_buffer("zeros", torch.zeros(4, dtype=torch.int64))
        self.register_buffer("weight", whole.to(torch.int8))
        bias = torch.randint(-9000, 9000, (4,), generator=random)
        self.register_buffer("bias", (bias.double() * STEP * scale.double()).float())

    def forward(self, x: Tensor) -> Tensor:
        qd = ops.qd
        x = qd.quantize_per_tensor.default(x, STEP, ZERO, *GRID)
        x = qd.dequantize_per_tensor.default(x, STEP, ZERO, *GRID)
        grid = (self.scale, self.zeros, 0, -127, 127, torch.int8)
        weight = qd.dequantize_per_channel.default(self.weight, *grid)
        y = torch.ops.aten.conv2d.default(x, weight, self.bias, [1, 1], [1, 1], [1, 1], self.groups)
        y = qd.quantize_per_tensor.default(y, NEXT, 4, *GRID)
        return qd.dequantize_per_tensor.default(y, NEXT, 4, *GRID)


def slowly(layer: Any, x: Tensor) -> Tensor:
    """With integers of 64 bits, and one rounding of a product of two float32 numbers."""
    steps = np.rint(x.numpy() * (np.float32(1) / np.float32(STEP))) + ZERO
    whole = torch.from_numpy(np.clip(steps, -128, 127).astype(np.int64)) - ZERO
    unit = np.float32(STEP) * layer.scale.numpy()
    bias = torch.from_numpy(np.rint(layer.bias.double().numpy() / unit.astype(np.float64))).long()
    total = F.conv2d(whole.double(), layer.weight.double(), bias.double(), 1, 1, 1, layer.groups)
    factor = (unit / np.float32(NEXT)).reshape(1, -1, 1, 1)
    found = np.clip(np.rint(total.numpy().astype(np.float32) * factor) + 4, -128, 127)
    return torch.from_numpy((found - 4).astype(np.float32)) * torch.tensor(NEXT)


@given(seed=st.integers(0, 10_000), groups=st.sampled_from([1, 2, 4]), size=st.sampled_from([3, 127]))
def test_a_convolution_is_one_of_integers(seed: int, groups: int, size: int) -> None:
    layer = Layer(seed, groups, size)
    x = 4 * torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(seed))
    found = OnIntegers(fx.symbolic_trace(layer))(x)
    assert torch.equal(found, slowly(layer, x))


def test_sums_that_float32_does_not_hold_are_right() -> None:
    """Every product is 127 * 127, and there are 3,000 of them: the last digits count."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.full((2, 3000), 127.0))

        def forward(self, x: Tensor) -> Tensor:
            qd, one = ops.qd, (1.0, 0, *GRID)
            x = qd.dequantize_per_tensor.default(qd.quantize_per_tensor.default(x, *one), *one)
            weight = qd.quantize_per_tensor.default(self.weight, *one)
            y = torch.ops.aten.linear.default(x, qd.dequantize_per_tensor.default(weight, *one))
            grid = (127.0 * 127.0 * 100, 0, -128, 127, torch.int8)
            return qd.quantize_per_tensor.default(y, *grid)

    x = torch.full((1, 3000), 127.0)
    x[0, :1451] = 0  # 1,549 are left: 15.49 steps; with one more the next
    x[0, 0] = 1
    graph = OnIntegers(fx.symbolic_trace(Wide()))
    assert graph(x).tolist() == [[15, 15]]
    x[0, :2] = 127
    assert graph(x).tolist() == [[16, 16]]  # 15.51


def test_a_fixed_sum_rounds_halves_up() -> None:
    """1 + 0 and -1 + 0 steps of 0.5 on a grid of steps of 1: XNNPACK's halves go up, float32's to even."""

    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            qd, grid, coarse = ops.qd, (0.5, 0, *GRID), (1.0, 0, *GRID)
            one = qd.dequantize_per_tensor.default(qd.quantize_per_tensor.default(x, *grid), *grid)
            total = torch.ops.aten.add.Tensor(one, one * 0)
            other = qd.dequantize_per_tensor.default(qd.quantize_per_tensor.default(total, *grid), *grid)
            total = torch.ops.aten.add.Tensor(
                one, qd.dequantize_per_tensor.default(qd.quantize_per_tensor.default(other * 0, *grid), *grid)
            )
            return qd.quantize_per_tensor.default(total, *coarse)

    x = torch.tensor([[0.5, -0.5, 1.5, 2.0]])
    graph = fx.symbolic_trace(Sum())
    assert OnIntegers(graph)(x).tolist() == [[0, 0, 2, 2]]
    assert OnIntegers(graph, fixed_sums=True)(x).tolist() == [[1, 0, 2, 2]]


class Deep(nn.Module):
    """Twelve layers with SiLU: a rounding that falls otherwise in one grows in those behind it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(24, 24, 3, padding=1) for _ in range(11))
        self.head = nn.Conv2d(24, 8, 1)
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.mul_(3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.first(x))
        for layer in self.layers:
            x = F.silu(layer(x))
        return self.head(x)


@pytest.mark.skipif(bool(spelled()), reason="this CPU's kernels want weights of 7 bits")
@pytest.mark.parametrize("format", ["onnx", pytest.param("litert", marks=pytest.mark.wide)])
def test_files_of_a_deep_network_give_its_graphs_very_numbers(format: str, tmp_path: Path) -> None:
    graph = calibrate(capture(Deep(), images(1)), [images(16, seed) for seed in range(2)])
    x = images(16, 7)
    with torch.no_grad():
        plain, wanted = graph(x), Forward(OnIntegers(graph, fixed_sums=FORMATS[format].fixed_sums))(x)
    path = write(tmp_path, graph, format, "int8")
    told = run_onnx(path, x) if format == "onnx" else run_litert(path, nhwc(x))
    assert torch.equal(told, wanted)
    assert not torch.equal(told, plain)  # else it is no test
