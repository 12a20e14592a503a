"""Depthwise families: MobileNet 1 to 3, EfficientNet, MobileOne, ShuffleNet, DS-CNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    """Convolution without bias, batch norm and, if given, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation is not None:
        layers.append(activation())
    return nn.Sequential(*layers)


class MobilenetV1(nn.Module):
    """Depthwise and pointwise in alternation, a ReLU after each; width 0.25."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 8, 3, 2, activation=nn.ReLU)]
        channels = 8
        plan = [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 3, (256, 2), (256, 1)]
        for outputs, stride in plan:
            layers.append(conv_norm(channels, channels, 3, stride, channels, nn.ReLU))
            layers.append(conv_norm(channels, outputs, 1, activation=nn.ReLU))
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Conv2d(channels, classes, 1)  # the original classifies with a 1x1 convolution

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.pool(self.features(x)))).flatten(1)


class Inverted(nn.Module):
    """Inverted residual with a linear bottleneck; the sum has no activation after it."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(conv_norm(inputs, hidden, 1, activation=nn.ReLU6))
        layers.append(conv_norm(hidden, hidden, 3, stride, hidden, nn.ReLU6))
        layers.append(conv_norm(hidden, outputs, 1))
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobilenetV2(nn.Module):
    """ReLU6 everywhere except after the bottlenecks and their sums.

    ``stages``: expansion, channels, blocks, stride of the first.
    """

    SEVEN = (
        (1, 8, 1, 1),
        (6, 12, 2, 2),
        (6, 16, 2, 2),
        (6, 24, 2, 2),
        (6, 32, 1, 1),
        (6, 48, 2, 2),
        (6, 64, 1, 1),
    )
    SHORT = ((1, 8, 1, 1), (6, 16, 2, 2), (6, 32, 1, 2))

    def __init__(self, stages: Sequence[tuple[int, int, int, int]] = SEVEN, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 12, 3, 2, activation=nn.ReLU6)]
        channels = 12
        for expansion, outputs, depth, stride in stages:
            for index in range(depth):
                layers.append(Inverted(channels, outputs, 1 if index else stride, expansion))
                channels = outputs
        layers.append(conv_norm(channels, 160, 1, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(160, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class SqueezeExcite(nn.Module):
    """A gate per channel from the map's mean: a product of a map and an (N, C, 1, 1) tensor."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        activation: Callable[[], nn.Module],
        gate: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3), keepdim=True)
        scale = self.expand(self.activation(self.reduce(scale)))
        return x * self.gate(scale)


class V3Block(nn.Module):
    """An inverted residual of ReLU or hard-swish; its gate, a hard sigmoid, comes after the activation."""

    def __init__(
        self, kernel: int, inputs: int, hidden: int, outputs: int, squeeze: bool, hard: bool, stride: int
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if hard else nn.ReLU
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(conv_norm(inputs, hidden, 1, activation=activation))
        layers.append(conv_norm(hidden, hidden, kernel, stride, hidden, activation))
        if squeeze:
            layers.append(SqueezeExcite(hidden, max(8, hidden // 4), nn.ReLU, nn.Hardsigmoid))
        layers.append(conv_norm(hidden, outputs, 1))
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.residual else y


class MobilenetV3Small(nn.Module):
    """Hard-swish, hard-sigmoid gates, ReLU, 5x5 depthwise, a hidden linear layer after the pool.

    ``blocks``: kernel, hidden channels, channels, whether gated, whether hard-swish, stride.
    """

    EIGHT = (
        (3, 8, 8, True, False, 2),
        (3, 36, 12, False, False, 2),
        (3, 44, 12, False, False, 1),
        (5, 48, 20, True, True, 2),
        (5, 120, 20, True, True, 1),
        (5, 60, 24, True, True, 1),
        (5, 144, 48, True, True, 2),
        (5, 288, 48, True, True, 1),
    )
    SHORT = (EIGHT[0], (3, 44, 8, False, False, 1), *EIGHT[3:5])

    def __init__(
        self, blocks: Sequence[tuple[int, int, int, bool, bool, int]] = EIGHT, classes: int = 10
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 8, 3, 2, activation=nn.Hardswish)]
        channels = 8
        for kernel, hidden, outputs, squeeze, hard, stride in blocks:
            layers.append(V3Block(kernel, channels, hidden, outputs, squeeze, hard, stride))
            channels = outputs
        layers.append(conv_norm(channels, 144, 1, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(144, 128), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(128, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


class MBConv(nn.Module):
    """EfficientNet's block: 3x3 or 5x5 depthwise, optionally gated; squeezed relative to its input."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, factor: int, lite: bool) -> None:
        super().__init__()
        activation = nn.ReLU6 if lite else nn.SiLU
        hidden = inputs * factor
        layers: list[nn.Module] = []
        if factor != 1:
            layers.append(conv_norm(inputs, hidden, 1, activation=activation))
        layers.append(conv_norm(hidden, hidden, kernel, stride, hidden, activation))
        if not lite:
            layers.append(SqueezeExcite(hidden, max(1, inputs // 4), nn.SiLU, nn.Sigmoid))
        layers.append(conv_norm(hidden, outputs, 1))
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y + x if self.residual else y


class Efficientnet(nn.Module):
    """B0 (SiLU, sigmoid gates) or Lite0 (ReLU6, no gates).

    ``stages``: expansion, channels, blocks, stride of the first, kernel.
    """

    SEVEN = (
        (1, 8, 1, 1, 3),
        (6, 8, 1, 2, 3),
        (6, 12, 2, 2, 5),
        (6, 20, 1, 2, 3),
        (6, 28, 1, 1, 5),
        (6, 40, 2, 2, 5),
        (6, 56, 1, 1, 3),
    )
    SHORT = (SEVEN[0], (6, 12, 2, 2, 5), (6, 20, 1, 2, 3))

    def __init__(
        self, lite: bool, stages: Sequence[tuple[int, int, int, int, int]] = SEVEN, classes: int = 10
    ) -> None:
        super().__init__()
        activation = nn.ReLU6 if lite else nn.SiLU
        layers: list[nn.Module] = [conv_norm(3, 8, 3, 2, activation=activation)]
        channels = 8
        for expansion, outputs, depth, stride, kernel in stages:
            for index in range(depth):
                layers.append(MBConv(channels, outputs, kernel, 1 if index else stride, expansion, lite))
                channels = outputs
        layers.append(conv_norm(channels, 160, 1, activation=activation))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(160, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.pool(self.features(x)).flatten(1)))


class Overparameterised(nn.Module):
    """MobileOne's sum of k like branches, a 1x1 scale branch and a batch norm of the input; then ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, branches: int = 3
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            conv_norm(inputs, outputs, kernel, stride, groups) for _ in range(branches)
        )
        self.scale = conv_norm(inputs, outputs, 1, stride, groups) if kernel > 1 else None
        self.skip = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = 0 if self.skip is None else self.skip(x)
        if self.scale is not None:
            y = y + self.scale(x)
        for branch in self.branches:
            y = y + branch(x)
        return F.relu(y)


class Mobileone(nn.Module):
    """MobileOne before its branches are merged: sums of up to five convolutions of one input."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        blocks: list[nn.Module] = [Overparameterised(3, 12, 3, 2, branches=1)]
        channels = 12
        for width, depth in ((16, 1), (32, 2), (64, 2), (96, 1)):
            for index in range(depth):
                blocks.append(Overparameterised(channels, channels, 3, 1 if index else 2, channels))
                blocks.append(Overparameterised(channels, width, 1))
                channels = width
        self.stages = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.stages(x)).flatten(1))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the groups of channels: view, transpose, view."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Half of the channels pass untouched; concatenation and shuffle mix values of two histories."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        entering = inputs if stride > 1 else half
        self.short = nn.Sequential()
        if stride > 1:
            self.short = nn.Sequential(
                conv_norm(inputs, inputs, 3, stride, inputs), conv_norm(inputs, half, 1, activation=nn.ReLU)
            )
        self.body = nn.Sequential(
            conv_norm(entering, half, 1, activation=nn.ReLU),
            conv_norm(half, half, 3, stride, half),
            conv_norm(half, half, 1, activation=nn.ReLU),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            left, right = x.chunk(2, dim=1)
            x = torch.cat((left, self.body(right)), dim=1)
        else:
            x = torch.cat((self.short(x), self.body(x)), dim=1)
        return channel_shuffle(x, 2)


class ShufflenetV2(nn.Module):
    """Channel split by chunk, concatenation, channel shuffle by view and transpose.

    ``stages``: channels and units.
    """

    def __init__(
        self, stages: Sequence[tuple[int, int]] = ((32, 3), (64, 3), (96, 2)), classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 16, 3, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1))
        units: list[nn.Module] = []
        channels = 16
        for width, depth in stages:
            for index in range(depth):
                units.append(ShuffleUnit(channels, width, 1 if index else 2))
                channels = width
        self.stages = nn.Sequential(*units)
        self.last = conv_norm(channels, 160, 1, activation=nn.ReLU)
        self.head = nn.Linear(160, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.stages(self.stem(x)))
        return self.head(x.mean([2, 3]))


class DsCnn(nn.Module):
    """Keyword spotting: a 10x4 kernel on a narrow one-channel map, odd sizes, a rectangular mean."""

    def __init__(self, classes: int = 12) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 64, (10, 4), (2, 2), (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU()
        )
        self.drop = nn.Dropout(0.2)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    conv_norm(64, 64, 3, groups=64, activation=nn.ReLU),
                    conv_norm(64, 64, 1, activation=nn.ReLU),
                )
                for _ in range(4)
            )
        )
        self.pool = nn.AvgPool2d((25, 5))
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.drop(self.stem(x)))
        return self.head(self.pool(x).flatten(1))
