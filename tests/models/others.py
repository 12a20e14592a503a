"""Other domains (audio, anomaly detection) and special cases, each about one thing."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """MLPerf Tiny's anomaly detector: linear layers with 1-D batch norm, a bottleneck of 8."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 640
        for outputs in (128, 128, 128, 128, 8, 128, 128, 128, 128):
            layers += [nn.Linear(width, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
            width = outputs
        self.body = nn.Sequential(*layers, nn.Linear(width, 640))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Audio1d(nn.Module):
    """1-D convolutions (a long strided one first), batch norms and pools."""

    def __init__(self, classes: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(1, 16, 80, stride=4),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.MaxPool1d(4),
            nn.Conv1d(16, 24, 3, padding=1, bias=False),
            nn.BatchNorm1d(24),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(24, 48, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm1d(48),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(48, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).squeeze(-1))


def stage(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Upsample(nn.Module):
    """A feature pyramid: sums of a lateral map and one enlarged by nearest or bilinear interpolation."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stage1 = stage(3, 16, 2)
        self.stage2 = stage(16, 24, 2)
        self.stage3 = stage(24, 32, 2)
        self.lateral1 = nn.Conv2d(16, 16, 1)
        self.lateral2 = nn.Conv2d(24, 16, 1)
        self.lateral3 = nn.Conv2d(32, 16, 1)
        self.smooth = nn.Conv2d(16, 24, 3, 2, 1)
        self.head = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        one = self.stage1(x)
        two = self.stage2(one)
        three = self.stage3(two)
        x = self.lateral3(three)
        x = self.lateral2(two) + F.interpolate(x, scale_factor=2, mode="nearest")
        x = self.lateral1(one) + F.interpolate(x, size=one.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(F.relu(self.smooth(x)).mean((2, 3)))


class Lstm(nn.Module):
    """A recurrent layer: no convolution, no linear layer but the head."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 24, batch_first=True)
        self.head = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.lstm(x)
        return self.head(output[:, -1])


class Gru(nn.Module):
    """Two recurrent layers, in both directions, behind a convolution over time."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.front = nn.Conv1d(8, 16, 3, padding=1)
        self.gru = nn.GRU(16, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        output, _ = self.gru(F.relu(self.front(x.transpose(1, 2))).transpose(1, 2))
        return self.head(output.mean(1))


class ReusedModule(nn.Module):
    """One convolution applied twice: one weight, two calls, activations of two ranges."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = stage(3, 16, 2)
        self.shared = nn.Conv2d(16, 16, 3, padding=1)
        self.down = stage(16, 32, 2)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.shared(x))
        x = F.relu(self.shared(x) + x)
        return self.head(self.down(x).mean((2, 3)))


class Padding(nn.Module):
    """Explicit padding (constant on two sides, reflect), strided slices, split, concatenation of unequals."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2)
        self.norm = nn.BatchNorm2d(16)
        self.blur = nn.Conv2d(16, 16, 3)
        self.narrow = nn.Conv2d(4, 8, 3, padding=1)
        self.wide = nn.Conv2d(12, 20, 1)
        self.last = nn.Conv2d(28 + 16, 32, 3, padding=1)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1, 0, 1))
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.blur(F.pad(x, (1, 1, 1, 1), mode="reflect")))
        half = x[:, :, ::2, ::2]
        few, many = torch.split(half, [4, 12], dim=1)
        short = x[:, :, 1::2, 1::2]
        x = torch.cat([F.relu(self.narrow(few)), F.relu(self.wide(many)), short], 1)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class Activations(nn.Module):
    """Twelve convolutions, each with an activation of its own kind after it."""

    def __init__(self, width: int = 12, classes: int = 10) -> None:
        super().__init__()
        kinds: list[nn.Module] = [
            nn.LeakyReLU(0.1),
            nn.ELU(),
            nn.Sigmoid(),
            nn.Tanh(),
            nn.Softmax(dim=1),
            nn.GELU(),
            nn.SiLU(),
            nn.Hardswish(),
            nn.Hardsigmoid(),
            nn.PReLU(width),
            nn.Mish(),
            nn.Softplus(),
        ]
        layers: list[nn.Module] = []
        channels = 3
        for index, kind in enumerate(kinds):
            stride = 2 if index in (0, 6) else 1
            layers += [
                nn.Conv2d(channels, width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(width),
                kind,
            ]
            channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(4 * 4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))
