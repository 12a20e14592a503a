"""Plain and residual stacks: ResNet, VGG, RegNet, RepVGG."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Resnet8Block(nn.Module):
    """Its projection shortcut is a bare convolution: no batch norm to fold, a bias instead."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Resnet8(nn.Module):
    """MLPerf Tiny's image classifier: convolutions with bias before batch norm, a windowed mean."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.norm = nn.BatchNorm2d(16)
        self.stages = nn.Sequential(
            Resnet8Block(16, 16, 1),
            Resnet8Block(16, 32, 2),
            Resnet8Block(32, 64, 2),
        )
        self.pool = nn.AvgPool2d(8)
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(F.relu(self.norm(self.stem(x))))
        return self.head(self.pool(x).flatten(1))


class Basic(nn.Module):
    """One ReLU module used twice, in place, once after the residual sum."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.shortcut is None else self.shortcut(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += identity
        return self.relu(x)


class Bottleneck(nn.Module):
    """1x1, strided 3x3, 1x1; projection shortcuts of stride 1 and 2."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.shortcut is None else self.shortcut(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += identity
        return self.relu(x)


class Resnet(nn.Module):
    """The ImageNet ResNet: 7x7 stem of stride 2, overlapping max pool, stages of two blocks."""

    def __init__(
        self, block: type[Basic | Bottleneck], base: int, stages: int = 4, classes: int = 10
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 7, 2, 3, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        channels = 16
        blocks: list[nn.Module] = []
        for stage in range(stages):
            width = base << stage
            for index in range(2):
                stride = 2 if stage and not index else 1
                outputs = width * block.expansion
                shortcut = None
                if stride != 1 or channels != outputs:
                    shortcut = nn.Sequential(
                        nn.Conv2d(channels, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                    )
                blocks.append(block(channels, width, stride, shortcut))
                channels = outputs
        self.stages = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d((1, 1))
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stages(self.stem(x)))
        return self.head(x.flatten(1))


class VggBn(nn.Module):
    """An adaptive pool that changes nothing, a flatten of a map, a deep fully connected head with dropout."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for widths in ([8], [16], [32, 32], [64, 64]):
            for width in widths:
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(4 * channels, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(128, 128),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(128, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


class RegnetBlock(nn.Module):
    """Grouped 3x3 convolution (neither dense nor depthwise) and squeeze-excitation before the last 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int, group_width: int = 8) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
        self.b = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, stride, 1, groups=outputs // group_width, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        squeezed = max(inputs // 4, 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(outputs, squeezed, 1),
            nn.ReLU(),
            nn.Conv2d(squeezed, outputs, 1),
            nn.Sigmoid(),
        )
        self.c = nn.Sequential(nn.Conv2d(outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.a(x))
        y = self.c(y * self.gate(y))
        return F.relu(self.shortcut(x) + y)


class Regnet(nn.Module):
    """RegNetY, whose last maps have an odd size (3x3). ``blocks``: channels and stride."""

    def __init__(
        self,
        blocks: Sequence[tuple[int, int]] = ((24, 2), (48, 2), (48, 1), (96, 2), (96, 1)),
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        widths = [16, *(width for width, _ in blocks)]
        self.stages = nn.Sequential(
            *(RegnetBlock(inputs, *block) for inputs, block in zip(widths, blocks, strict=False))
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.stages(self.stem(x)), 1)
        return self.head(x.flatten(1))


class RepvggBlock(nn.Module):
    """Training-time form: 3x3, 1x1 and a bare batch norm on the input, summed, then ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.point = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.identity = nn.BatchNorm2d(inputs) if stride == 1 and inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x) + self.point(x)
        if self.identity is not None:
            y = y + self.identity(x)
        return F.relu(y)


class Repvgg(nn.Module):
    """RepVGG before its branches are merged."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = 3
        for width, depth in ((12, 1), (16, 2), (32, 3), (64, 3), (96, 1)):
            for index in range(depth):
                blocks.append(RepvggBlock(channels, width, 1 if index else 2))
                channels = width
        self.stages = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.stages(x)).flatten(1))
