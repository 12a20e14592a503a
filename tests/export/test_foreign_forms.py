"""Layers in the settings that people use, as files: fp32 and int8, in both runtimes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.errors import ExportError
from edgekit.formats import FORMATS
from edgekit.formats.exporting import export
from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate
from tests.export.runtimes import nhwc, run_litert, run_onnx
from tests.networks import snr_db

pytestmark = pytest.mark.wide


def pictures(count: int, channels: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, channels, 4, 4, generator=generator)
    fine = 0.3 * torch.randn(count, channels, height, width, generator=generator)
    return F.interpolate(coarse, (height, width), mode="bilinear") + fine


class Between(nn.Module):
    """Something between two convolutions."""

    def __init__(self, middle: Callable[[Tensor], Tensor] | nn.Module, channels: int = 8) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(channels, 4, 1)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(torch.relu(self.first(x))))


class Gate(nn.Module):
    """Efficient channel attention (Wang et al. 2020, arXiv 1910.03151): a convolution over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.over = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.over(x.mean((2, 3)).view(x.shape[0], 1, -1)).sigmoid()
        return x * y.view(x.shape[0], -1, 1, 1).expand_as(x)


class SharedNorm(nn.Module):
    """One batch norm behind a ReLU and behind a sum: no layer can take it in."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.norm.running_mean.normal_(0, 0.3)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.norm(torch.relu(self.inner(x)) + x)


def chosen(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :, 0] = 0
    y = torch.where(y > 0.5, y * 0.1 + 0.45, y)
    y[:, [5, 6]] = y[:, [6, 5]]
    return y


def transposed(**settings: Any) -> Callable[[], nn.Module]:
    return lambda: Between(nn.ConvTranspose2d(8, 16, **settings), 16)


def between(middle: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Between(middle)


FORMS: dict[str, Callable[[], nn.Module]] = {
    "one-sided stride": transposed(kernel_size=(1, 5), stride=(1, 2), padding=(0, 2), groups=2),
    "dilated, transposed": transposed(kernel_size=3, stride=2, dilation=2, padding=1),
    "even kernel, same": lambda: Between(nn.Conv2d(8, 8, 2, padding="same")),
    "gate": lambda: Between(Gate()),
    "shared norm": lambda: Between(SharedNorm()),
    "bicubic": between(lambda x: F.interpolate(x, (15, 12), mode="bicubic")),
    "nearest": between(lambda x: F.interpolate(x, (15, 12), mode="nearest")),
    "nearest-exact": between(lambda x: F.interpolate(x, (15, 12), mode="nearest-exact")),
    "padded with a number": between(lambda x: F.pad(x, (2, 0, 1, 1), value=-2.5)),
    "chosen": between(chosen),
    "pooled, cut off": between(lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)),
    "adaptive": between(lambda x: F.adaptive_avg_pool2d(x, (5, 4))),
}
SLOW = set(FORMS) - {"gate", "chosen", "one-sided stride"}
CASES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FORMS]


@pytest.mark.parametrize("name", CASES)
def test_both_files_agree_with_the_model(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = FORMS[name]().eval(), pictures(40, 3, 11, 8)
    test = x[-8:]
    graph = capture(model, x)
    quantized = calibrate(graph, list(x[:32].split(16)))
    with torch.no_grad():
        wanted, int8 = model(test), quantized(test)
    assert snr_db(wanted, int8) > 28
    for source, precision, right, least in ((graph, "fp32", wanted, 100), (quantized, "int8", int8, 38)):
        for format, run, rows in (("onnx", run_onnx, test), ("litert", run_litert, nhwc(test))):
            path = tmp_path / f"{precision}.{format}"
            export(source, x[:1], path, format=format, precision=precision, metadata={})  # type: ignore[arg-type]
            assert snr_db(right, run(path, rows)) > least, (format, precision)  # type: ignore[operator]
            if precision == "int8":
                assert FORMATS[format].coverage(path).share == 1.0


def volumes(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(2, 8, 3, padding=1), nn.ReLU(), layer, nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()
    ).eval()


@pytest.mark.slow
def test_a_volume_keeps_its_clamps_in_litert(tmp_path: Path) -> None:
    model, x = volumes(nn.Conv3d(8, 8, 3, padding=1)), torch.randn(24, 2, 6, 8, 8)
    quantized = calibrate(capture(model, x), [x[:16]])
    export(quantized, x[:1], tmp_path / "m.tflite", format="litert", precision="int8", metadata={})
    assert snr_db(quantized(x[16:]).detach(), run_litert(tmp_path / "m.tflite", x[16:])) > 35


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (nn.Conv3d(8, 8, 3, padding=1, groups=8), "convolution in groups"),
        (nn.ConvTranspose3d(8, 8, 2, 2), "transposed convolution"),
    ],
)
def test_what_litert_has_no_kernel_for_is_refused_by_layer(
    layer: nn.Module, what: str, tmp_path: Path
) -> None:
    x = torch.randn(2, 2, 6, 8, 8)
    with pytest.raises(ExportError, match=rf"layer '2': LiteRT has no kernel for a three-dimensional {what}"):
        export(volumes(layer), x, tmp_path / "m.tflite", format="litert", precision="fp32", metadata={})
    assert not list(tmp_path.iterdir())
