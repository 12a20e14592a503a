"""Small networks for tests, named by what is hard about them."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgekit.graph.capture import capture
from edgekit.int8.calibration import calibrate


def seeded(build: type[nn.Module], *arguments: object) -> nn.Module:
    """A network with random weights and batch norm statistics that are not those of a new one."""
    torch.manual_seed(0)
    model = build(*arguments)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


class Residual(nn.Module):
    """Convolutions, a residual sum and ReLU after it, mean, linear: (N, 3, 8, 8) to (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.first(x)))
        x = F.relu(self.norm2(self.second(x)) + x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class ZeroPaddedShortcut(nn.Module):
    """A CIFAR ResNet's shortcut without parameters: every second pixel, zero channels on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        x = F.relu(self.body(x) + short)
        return self.head(F.avg_pool2d(x, x.shape[3]).flatten(1))


class Mobile(nn.Module):
    """Inverted residual: pointwise, depthwise, pointwise, ReLU6 in place, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(inplace=True),
            nn.Conv2d(16, 16, 3, stride=2, padding=1, groups=16, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU6(inplace=True),
            nn.Conv2d(16, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.body(x).mean((2, 3))))


class Concatenated(nn.Module):
    """Two branches of very different range, concatenated: their grids must become one."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.Conv2d(3, 8, 3, padding=1)
        self.large = nn.Conv2d(3, 8, 3, padding=1)
        self.after = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat([F.relu(self.small(x)), 5 * F.relu(self.large(x))], 1)
        x = F.max_pool2d(F.relu(self.after(both)), 2)
        return self.head(x.mean((2, 3)))


IMAGE_NETWORKS = [Residual, ZeroPaddedShortcut, Mobile, Concatenated]


@functools.cache
def quantized(build: type[nn.Module]) -> tuple[nn.Module, fx.GraphModule]:
    """A seeded network and its int8 graph, calibrated on random images; made once a session."""
    model = seeded(build)
    return model, calibrate(capture(model, images(1)), [images(16, seed) for seed in range(4)])


def images(count: int, seed: int = 0) -> Tensor:
    """(count, 3, 8, 8) standard normal."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def snr_db(reference: Tensor, value: Tensor) -> float:
    """Signal-to-noise ratio in decibels."""
    reference, value = reference.detach(), value.detach()
    return float(20 * torch.log10(reference.norm() / (reference - value).norm().clamp_min(1e-12)))
