"""Small networks for measuring speed, from their papers; random weights that behave like trained ones.

Accuracy means nothing here. What matters for a file is alike: channel counts, kernels, strides, ranges that
differ from channel to channel, batch-norm statistics that fit what comes in. Everything follows from a seed.

    ResNet-8       MLPerf Tiny image classification (Banbury et al. 2021, arXiv 2106.07597)
    MobileNetV1    Howard et al. 2017 (arXiv 1704.04861), table 1; at 0.25 MLPerf Tiny's person detection
    MobileNetV2    Sandler et al. 2018 (arXiv 1801.04381), table 2
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A network to measure: ``size`` is the height and width of its input."""

    name: str
    size: int
    build: Callable[[], nn.Module]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one input, channels first."""
        return 3, self.size, self.size


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes, the shortcut is a 1x1 convolution without batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet8(nn.Module):
    """(N, 3, 32, 32) to (N, 10): three blocks of 16, 32 and 64 channels, each times ``width``."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        first, second, third = 16 * width, 32 * width, 64 * width
        self.conv1 = nn.Conv2d(3, first, 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(first)
        self.block1 = ResidualBlock(first, first, 1)
        self.block2 = ResidualBlock(first, second, 2)
        self.block3 = ResidualBlock(second, third, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(third, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.block3(self.block2(self.block1(x)))
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits


class SeparableConv(nn.Module):
    """A depthwise 3x3 convolution and a 1x1 convolution, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.depthwise(x)))
        return F.relu(self.bn2(self.pointwise(x)))


class MobileNetV1(nn.Module):
    """(N, 3, H, W) to (N, classes): one convolution and thirteen separable ones."""

    BLOCKS = (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *(((512, 1),) * 5),
        (1024, 2),
        (1024, 1),
    )

    def __init__(self, width: float = 1.0, classes: int = 1000) -> None:
        super().__init__()
        channels = int(32 * width)
        self.conv1 = nn.Conv2d(3, channels, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        blocks = []
        for outputs, stride in self.BLOCKS:
            blocks.append(SeparableConv(channels, int(outputs * width), stride))
            channels = int(outputs * width)
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits


class InvertedResidual(nn.Module):
    """Widen with 1x1, depthwise 3x3, narrow with 1x1 (no activation); added to the input where it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        layers += [
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
        ]
        layers += [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.adds else out


class MobileNetV2(nn.Module):
    """(N, 3, H, W) to (N, classes): seventeen inverted residuals between two convolutions."""

    STAGES = (  # expansion, channels, repetitions, first stride
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
        channels = 32
        for expansion, outputs, repetitions, first in self.STAGES:
            for index in range(repetitions):
                layers.append(InvertedResidual(channels, outputs, first if index == 0 else 1, expansion))
                channels = outputs
        layers += [nn.Conv2d(channels, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.pool(self.features(x)).flatten(1))
        return logits


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network("resnet8", 32, ResNet8),
        Network("resnet8-x4", 32, lambda: ResNet8(4)),
        Network("mobilenetv1-0.25", 96, lambda: MobileNetV1(0.25, classes=2)),
        Network("mobilenetv1", 224, MobileNetV1),
        Network("mobilenetv2", 224, MobileNetV2),
    )
}


def make(network: Network, *, seed: int = 0, passes: int = 4, batch: int = 16) -> nn.Module:
    """The network in eval mode: weights from ``seed``, batch-norm statistics of ``passes`` batches."""
    generator = torch.Generator().manual_seed(seed)
    model = network.build()
    for module in model.modules():
        _draw(module, generator)
    _align(model, images(batch, network.size, generator))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the passes
    with torch.no_grad():
        for _ in range(passes):
            model(images(batch, network.size, generator))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def images(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Images (count, 3, size, size) with about zero mean and unit variance that have structure, as photos do.

    Fields of noise from coarse to fine, each twice as fine as the last and half as strong: the 1/f spectrum
    of natural images (Field 1987). Images differ in brightness and contrast, as they still do after the usual
    normalisation.
    """
    total = torch.zeros(count, 3, size, size)
    cells, strength = 2, 1.0
    while cells <= size:
        noise = torch.randn(count, 3, cells, cells, generator=generator)
        total += strength * F.interpolate(noise, size=(size, size), mode="bilinear", align_corners=False)
        cells, strength = cells * 2, strength / 2
    total /= total.std((1, 2, 3), keepdim=True)
    contrast = 0.8 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    brightness = 0.1 * torch.randn(count, 3, 1, 1, generator=generator)
    return (contrast * total + brightness).clamp(-2.5, 2.5)


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    """Weights as He et al. 2015 start them; batch norm as training leaves it: no two channels alike."""
    with torch.no_grad():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                _blur(module.weight, generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.05, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.7, 1.3, generator=generator)
            module.bias.normal_(1.0, 0.3, generator=generator)


def _blur(weight: Tensor, generator: torch.Generator) -> None:
    """Depthwise kernels as training leaves most of them: a blob of either sign, and something on top."""
    line = torch.tensor([1.0, 2.0, 1.0])
    shape = (len(weight), 1, 1, 1)
    strength = 0.25 + 0.5 * torch.rand(shape, generator=generator)
    sign = (torch.rand(shape, generator=generator) - 0.5).sign()
    weight.mul_(0.5).add_(sign * strength * torch.outer(line, line) / 4)


def _align(model: nn.Module, inputs: Tensor) -> None:
    """Turn each layer's weights to where its input varies, as training does.

    Random layers with batch norm are chaotic: every one of them makes a small disturbance grow against the
    signal (Yang et al. 2019, arXiv 1902.08129), by about 1 dB. In 27 layers rounding would drown any signal
    in any int8 file, which no trained network does. Weights times the square root of the input's covariance
    prefer what the input says to what rounding adds.
    """

    def turn(layer: nn.Module, arguments: tuple[Tensor]) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        values = arguments[0].transpose(0, 1).flatten(1)
        energy, directions = torch.linalg.eigh(torch.cov(values))
        energy = energy.clamp_min(0)
        gains = (energy * energy.sum() / energy.square().sum()).sqrt()  # the output stays as strong as it was
        root = (directions * gains) @ directions.T
        weight.copy_(torch.einsum("oc...,cd->od...", weight, root))

    layers = [
        m for m in model.modules() if isinstance(m, nn.Linear) or (isinstance(m, nn.Conv2d) and m.groups == 1)
    ]
    hooks = [layer.register_forward_pre_hook(turn) for layer in layers]
    model.train()
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
