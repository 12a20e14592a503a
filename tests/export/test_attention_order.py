"""What follows attention, whose result lies otherwise in memory than it looks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.formats.exporting import export
from tests.export.runtimes import nhwc, run_litert, run_onnx
from tests.networks import images, seeded


class Places(nn.Module):
    """Attention over the places of a picture (CoAtNet): channels first again behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.last = nn.Conv2d(3, 16, 4, 4), nn.Conv2d(16, 48, 1), nn.Conv2d(16, 5, 1)
        self.places = nn.Parameter(torch.randn(1, 4, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).view(n, 4, 3 * c // 4, h * w).chunk(3, dim=2)
        q, k, v = (one.transpose(-1, -2).contiguous() for one in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, self.places)
        found: Tensor = self.last(x + mixed.transpose(-1, -2).reshape(n, -1, h, w))
        return found


class Windows(nn.Module):
    """Attention with one axis less, or one more, than heads, places and width (Hiera)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.qkv, self.last = shape, nn.Linear(3, 48), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, dim=-1)
        q, k, v = (one.reshape(-1, *self.shape) for one in (q, k, v))
        found: Tensor = self.last(F.scaled_dot_product_attention(q, k, v).reshape(-1, 64, 16))
        return found.mean(1)


@pytest.mark.parametrize("format", ["onnx", "litert"])
@pytest.mark.parametrize("shape", [(64, 16), (2, 4, 8, 16)], ids=["three", "five"])
def test_attention_of_other_ranks(format: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    model, x = seeded(Windows, shape), images(3)
    path = tmp_path / "model"
    export(model, x[:1], path, format=format, precision="fp32", metadata={})
    with torch.no_grad():
        wanted = model(x)
    got = run_onnx(path, x) if format == "onnx" else run_litert(path, nhwc(x))
    np.testing.assert_allclose(np.asarray(got), wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_channels_are_put_first_again(format: str, tmp_path: Path) -> None:
    model, x = seeded(Places), images(3)
    path = tmp_path / "model"
    export(model, x[:1], path, format=format, precision="fp32", metadata={})
    with torch.no_grad():
        wanted = model(x)
    got = run_onnx(path, x) if format == "onnx" else run_litert(path, nhwc(x))
    np.testing.assert_allclose(np.asarray(got), wanted.numpy(), atol=1e-5)
