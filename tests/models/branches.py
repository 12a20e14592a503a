"""Networks that concatenate: DenseNet, SqueezeNet, Inception, U-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """Batch norm before the convolution: it reads a concatenation and cannot be folded backwards."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.conv1(F.relu(self.norm1(torch.cat(features, 1))))
        return self.conv2(F.relu(self.norm2(x)))


class DenseBlock(nn.Module):
    """Every layer reads all earlier outputs: one tensor takes part in many concatenations."""

    def __init__(self, inputs: int, growth: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(inputs + i * growth, growth) for i in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(features))
        return torch.cat(features, 1)


class Densenet(nn.Module):
    """BN-ReLU-conv order, concatenations of concatenations, average-pool transitions, a last bare BN."""

    def __init__(self, depths: Sequence[int] = (3, 3, 3), growth: int = 8, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, 16, 7, 2, 3, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        channels = 16
        for index, depth in enumerate(depths):
            if index:
                layers += [
                    nn.BatchNorm2d(channels),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(channels, channels // 2, 1, bias=False),
                    nn.AvgPool2d(2, 2),
                ]
                channels //= 2
            layers.append(DenseBlock(channels, growth, depth))
            channels += depth * growth
        layers.append(nn.BatchNorm2d(channels))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.features(x), inplace=True)
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))


class Fire(nn.Module):
    """Squeeze, then two expansions of different kernel size, concatenated."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1(x)), F.relu(self.expand3(x))], 1)


class Squeezenet(nn.Module):
    """No batch norm, max pools in ceil mode, a convolution and ReLU as the classifier."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(16, 8, 24),
            Fire(48, 8, 24),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(48, 16, 32),
            Fire(64, 16, 32),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(64, 24, 48),
            Fire(96, 24, 64),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.2), nn.Conv2d(128, classes, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1))
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class ConvNorm(nn.Module):
    """Convolution, batch norm with Inception's larger epsilon, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class InceptionA(nn.Module):
    """Four branches: 1x1, 5x5, two 3x3, and a mean that counts the padding."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1 = ConvNorm(inputs, 16, 1)
        self.branch5 = nn.Sequential(ConvNorm(inputs, 12, 1), ConvNorm(12, 16, 5, padding=2))
        self.branch3 = nn.Sequential(
            ConvNorm(inputs, 16, 1), ConvNorm(16, 24, 3, padding=1), ConvNorm(24, 24, 3, padding=1)
        )
        self.pooled = ConvNorm(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(F.avg_pool2d(x, 3, stride=1, padding=1))
        return torch.cat([self.branch1(x), self.branch5(x), self.branch3(x), pooled], 1)


class Reduction(nn.Module):
    """Strided branches without padding; the max-pool branch keeps its input's range."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3 = ConvNorm(inputs, 24, 3, 2)
        self.twice = nn.Sequential(
            ConvNorm(inputs, 16, 1), ConvNorm(16, 24, 3, padding=1), ConvNorm(24, 24, 3, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 3, stride=2)
        return torch.cat([self.branch3(x), self.twice(x), pooled], 1)


class InceptionC(nn.Module):
    """7x7 factorised into 1x7 and 7x1."""

    def __init__(self, inputs: int, width: int = 16, outputs: int = 24) -> None:
        super().__init__()
        self.branch1 = ConvNorm(inputs, outputs, 1)
        self.branch7 = nn.Sequential(
            ConvNorm(inputs, width, 1),
            ConvNorm(width, width, (1, 7), padding=(0, 3)),
            ConvNorm(width, outputs, (7, 1), padding=(3, 0)),
        )
        self.double7 = nn.Sequential(
            ConvNorm(inputs, width, 1),
            ConvNorm(width, width, (7, 1), padding=(3, 0)),
            ConvNorm(width, width, (1, 7), padding=(0, 3)),
            ConvNorm(width, width, (7, 1), padding=(3, 0)),
            ConvNorm(width, outputs, (1, 7), padding=(0, 3)),
        )
        self.pooled = ConvNorm(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        return torch.cat([self.branch1(x), self.branch7(x), self.double7(x), pooled], 1)


class Inception(nn.Module):
    """Inception v3's blocks A, reduction and C: concatenations of four histories, one a mean."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNorm(3, 8, 3, 2), ConvNorm(8, 16, 3, padding=1), nn.MaxPool2d(3, 2, 1), ConvNorm(16, 24, 1)
        )
        self.blocks = nn.Sequential(InceptionA(24, 8), Reduction(64), InceptionC(112))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(96, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1)
        return self.head(self.drop(x).flatten(1))


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Unet(nn.Module):
    """Transposed convolutions of three geometries, long skips by concatenation, logits per pixel."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.down1 = double_conv(3, 8)
        self.down2 = double_conv(8, 16)
        self.down3 = double_conv(16, 24)
        self.bottom = double_conv(24, 32)
        self.pool = nn.MaxPool2d(2)
        self.up3 = nn.ConvTranspose2d(32, 24, 2, stride=2)
        self.merge3 = double_conv(48, 24)
        self.up2 = nn.ConvTranspose2d(24, 16, 3, stride=2, padding=1, output_padding=1)
        self.merge2 = double_conv(32, 16)
        self.up1 = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1)
        self.merge1 = double_conv(16, 8)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(self.pool(one))
        three = self.down3(self.pool(two))
        x = self.bottom(self.pool(three))
        x = self.merge3(torch.cat([three, self.up3(x)], dim=1))
        x = self.merge2(torch.cat([two, self.up2(x)], dim=1))
        x = self.merge1(torch.cat([one, self.up1(x)], dim=1))
        return self.head(x)
