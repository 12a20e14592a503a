"""Whole networks on edgekit's own road: captured, calibrated, exported, and their C compared with LiteRT."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

pytest.importorskip("litert_torch", reason="needs the extra litert")

from edgekit.errors import ExportError
from edgekit.formats.exporting import export
from edgekit.formats.litert import reading
from edgekit.formats.options import ExportOptions
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from edgekit.zoo import digits
from tests.bundle.c99.running import Library, Reference, differing, needs_gcc
from tests.models import CASES, inputs, trained
from tests.networks import ZeroPaddedShortcut, seeded


class Gated(nn.Module):
    """MobileNetV3's block: 1x1, depthwise 5x5, squeeze and excite, 1x1, residual; hard activations."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depthwise = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 5, 2, 2, groups=12)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.narrow, self.again = nn.Conv2d(12, 6, 1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.depthwise(F.relu6(self.expand(x))))
        gate = F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = self.narrow(x * F.hardsigmoid(self.excite(gate)))
        x = x + torch.tanh(self.again(x))
        return self.head(x.mean((2, 3)))


class Perceptron(nn.Module):
    """(N, 20) to (N, 7) probabilities, with a sigmoid inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(20, 32), nn.Linear(32, 16), nn.Linear(16, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.second(F.relu(self.first(x))))
        return torch.softmax(3 * self.third(x), 1)


class ResNet20(nn.Module):
    """He et al. 2016 (arXiv 1512.03385), §4.2, for CIFAR-10: shortcuts without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        channels = 16
        for width in (16, 32, 64):
            for index in range(6):
                stride = 2 if index == 0 and width > 16 else 1
                self.convolutions.append(nn.Conv2d(channels, width, 3, stride, 1, bias=False))
                self.norms.append(nn.BatchNorm2d(width))
                channels = width
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        pairs = list(zip(self.convolutions, self.norms, strict=True))
        for (one, norm1), (two, norm2) in zip(pairs[::2], pairs[1::2], strict=True):
            short = x
            y = F.relu(norm1(one(x)))
            if y.shape != x.shape:
                added = (y.shape[1] - x.shape[1]) // 2
                short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, added, added))
            x = F.relu(norm2(two(y)) + short)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def noise(*shape: int) -> Callable[[int, int], Tensor]:
    return lambda count, seed: torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def write(path: Path, model: nn.Module, draw: Callable[[int, int], Tensor]) -> Path:
    graph = calibrate(capture(model, draw(1, 0)), [draw(16, seed) for seed in range(1, 3)])
    export(graph, draw(1, 0), path, format="litert", precision="int8", metadata={})
    return path


@functools.cache
def perceptron() -> fx.GraphModule:
    draw = noise(20)
    return calibrate(capture(seeded(Perceptron), draw(1, 0)), [draw(16, seed) for seed in range(1, 3)])


def with_ends(path: Path, io: Any) -> Path:
    """The perceptron with other types at its ends."""
    options = ExportOptions(io=io)
    export(
        perceptron(), noise(20)(1, 0), path, format="litert", precision="int8", metadata={}, options=options
    )
    return path


def demo() -> nn.Module:
    return digits.workload().model


SMALL: dict[str, tuple[Callable[[], nn.Module], Callable[[int, int], Tensor]]] = {
    "demo": (demo, noise(1, 32, 32)),
    "zero_padded": (lambda: seeded(ZeroPaddedShortcut), noise(3, 8, 8)),
    "gated": (lambda: seeded(Gated), noise(3, 8, 8)),
    "perceptron": (lambda: seeded(Perceptron), noise(20)),
}


@pytest.mark.wide
@needs_gcc
@pytest.mark.parametrize("name", SMALL)
def test_small_networks_give_the_same_bits(name: str, tmp_path: Path) -> None:
    build, draw = SMALL[name]
    file = write(tmp_path / "net.tflite", build(), draw)
    library = Library(tmp_path, [file], "-O2")
    assert differing(library, [file], count=40) == {}
    made = library.made[0]
    assert made.arena_bytes == made.floor_bytes
    # inspect counts the ends, too, and PADs that here the convolution does.
    predicted = reading.read(file)["arena"]["bytes"]
    assert made.arena_bytes <= predicted


@needs_gcc
@pytest.mark.parametrize("io", ["float32", "uint8"])
def test_other_types_at_the_ends(io: Any, tmp_path: Path) -> None:
    file = with_ends(tmp_path / "net.tflite", io)
    library = Library(tmp_path, [file])
    assert (library.made[0].input.dtype, library.made[0].output.dtype) == (io, io)
    assert differing(library, [file], count=60) == {}
    if io == "float32":
        floats_that_no_grid_holds(library, Reference(file))


def floats_that_no_grid_holds(library: Library, reference: Reference) -> None:
    # LiteRT casts what doesn't fit into int32: undefined in C, and not clamped on x86. Here it is clamped.
    large, tiny, nothing = 1e6, 1e-40, float("nan")
    pairs = [
        (1e30, large),
        (-1e30, -large),
        (float("inf"), large),
        (float("-inf"), -large),
        (nothing, -large),
    ]
    for value, like in [*pairs, (tiny, tiny), (-0.0, -0.0), (large, large), (-large, -large)]:
        given, wanted = (torch.full((1, 20), one).numpy() for one in (value, like))
        assert library(given).tobytes() == reference(wanted).tobytes(), value


# What edgekit's other networks still need: floats inside, or kernels that are missing here.
REFUSED = {
    "activations",
    "attention_mask",
    "convnext_atto",
    "gru",
    "lstm",
    "padding",
    "text_encoder",
    "vit_tiny",
}


@pytest.mark.slow
@needs_gcc
@pytest.mark.parametrize("name", [*CASES, "resnet20"])
def test_the_model_matrix(name: str, tmp_path: Path) -> None:
    if name == "resnet20":
        model, draw = seeded(ResNet20), noise(3, 32, 32)
    else:
        case = CASES[name]
        model, draw = trained(name), lambda count, seed: inputs(case, count, seed)
    file = write(tmp_path / "net.tflite", model, draw)
    if name.removesuffix("_deep") in REFUSED:
        with pytest.raises(ExportError, match="can't be written as C source"):
            Library(tmp_path, [file])
        return
    library, likely = Library(tmp_path, [file], "-O2"), draw(12, 99)
    if likely.dim() == 4:
        likely = likely.permute(0, 2, 3, 1)
    assert differing(library, [file], count=12, likely=likely.numpy()) == {}
