"""CIFAR-10 with a small MobileNetV3 (Howard et al. 2019, arXiv 1905.02244), trained here.

The network is table 2 of the paper ("small") for images of 32 x 32: the first convolution and the second
block keep the resolution, so that the last blocks see 4 x 4, and the last layers are narrower, as ten classes
need. What makes it hard for int8 is all there: depthwise convolutions, squeeze-excite gates, hard-swish.

Data: EDGEKIT_DATA, as in cifar10.py. No trained weights are at hand, so they are made, once:

    EDGEKIT_DATA=… python benchmarks/workloads/cifar10_mobilenet.py     about half an hour on 2 CPU cores

They are kept in the user's cache folder; a killed training goes on after its last epoch. Then:

    edgekit compress benchmarks/workloads/cifar10_mobilenet.py --recipe mobile
"""

from __future__ import annotations

import sys
from pathlib import Path

import cifar10  # beside this file, as is own_weights
import own_weights
import torch
from torch import Tensor, nn

from edgekit.config.settings import DistillationConfig, TrainingConfig
from edgekit.tasks import Classification
from edgekit.workload import Augmentation, Preprocessing, Workload

# kernel, widened to, channels, squeeze-excite, hard-swish, stride
BLOCKS = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 1),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
LAST, HEAD = 288, 256
TRAINING = TrainingConfig(
    epochs=12,
    batch_size=128,
    lr=0.1,
    weight_decay=2e-4,
    warmup_epochs=1.0,
    label_smoothing=0.1,
    distillation=DistillationConfig(loss="none"),
)


def conv_norm(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution that keeps the size (divided by the stride), and batch norm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class SqueezeExcite(nn.Module):
    """A gate for each channel from the means of all (§5.3), a quarter as wide inside."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(8, (channels // 4 + 4) // 8 * 8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, inner, 1)
        self.relu = nn.ReLU()
        self.excite = nn.Conv2d(inner, channels, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        gates: Tensor = self.gate(self.excite(self.relu(self.squeeze(self.pool(x)))))
        return x * gates


class Block(nn.Module):
    """Widen, depthwise, squeeze-excite, narrow; added to the input where the shapes agree."""

    def __init__(
        self, inputs: int, kernel: int, wide: int, outputs: int, gated: bool, swish: bool, stride: int
    ) -> None:
        super().__init__()
        activation = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = []
        if wide != inputs:
            layers += [*conv_norm(inputs, wide), activation()]
        layers += [*conv_norm(wide, wide, kernel, stride, groups=wide), activation()]
        if gated:
            layers.append(SqueezeExcite(wide))
        layers += conv_norm(wide, outputs)
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.adds else out


class MobileNetV3(nn.Module):
    """(N, 3, 32, 32) to (N, 10)."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [*conv_norm(3, 16, 3), nn.Hardswish()]
        channels = 16
        for kernel, wide, outputs, gated, swish, stride in BLOCKS:
            layers.append(Block(channels, kernel, wide, outputs, gated, swish, stride))
            channels = outputs
        layers += [*conv_norm(channels, LAST), nn.Hardswish()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(LAST, HEAD)
        self.activation = nn.Hardswish()
        self.linear = nn.Linear(HEAD, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.features(x)).flatten(1)
        logits: Tensor = self.linear(self.activation(self.hidden(x)))
        return logits


def workload() -> Workload:
    """The trained network. Raises WorkloadError if data or weights aren't there."""
    return own_weights.load(untrained(), TRAINING, "cifar10_mobilenet.py")


def untrained() -> Workload:
    """The same with random weights, always the same ones."""
    folder = cifar10.data_folder()
    train, classes = cifar10.samples(folder / "cifar10_train.npz")
    validation, _ = cifar10.samples(folder / "cifar10_test.npz")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(own_weights.SEED)
        model = MobileNetV3().eval()
    return Workload(
        name="cifar10-mobilenetv3",
        model=model,
        task=Classification(num_classes=10),
        train=train,
        validation=validation,
        preprocessing=Preprocessing(
            layout="NHWC", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
        augmentation=Augmentation(horizontal_flip=True, shift=4),
        classes=classes,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from work import Teller

    from edgekit.training import evaluate

    ready = own_weights.trained(untrained(), TRAINING, Teller("mobilenetv3"))
    print(f"{evaluate(ready.model, ready).score:.2%} of {len(ready.validation):,} test images")
