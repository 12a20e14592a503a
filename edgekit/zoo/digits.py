"""The embedded demo: a small residual CNN that reads handwritten digits.

The data are scikit-learn's 1,797 scans of 8x8 pixels (UCI "Optical Recognition of Handwritten Digits",
Alpaydin and Kaynak 1998, CC BY 4.0), shown to the network at 32x32. The weights beside this file were trained
by ``scripts/train_digits.py`` on two thirds of them.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.errors import MissingExtraError
from edgekit.tasks import Classification
from edgekit.weights import load_weights
from edgekit.workload.preprocessing import Augmentation, Preprocessing
from edgekit.workload.samples import Samples
from edgekit.workload.workload import Workload

__all__ = ["WEIGHTS", "DigitsNet", "split", "untrained", "workload"]

WEIGHTS = Path(__file__).with_name("digits.safetensors")


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus a 1x1 shortcut, then ReLU; halves height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
        self.shortcut_bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut_bn(self.shortcut(x)))


class DigitsNet(nn.Module):
    """(N, 1, 32, 32) to (N, 10) logits. 223,658 parameters and 11.3 M MACs at 32, 32, 64 and 96 channels."""

    def __init__(self, channels: tuple[int, int, int, int] = (32, 32, 64, 96)) -> None:
        super().__init__()
        stem, one, two, three = channels
        self.conv = nn.Conv2d(1, stem, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(stem)
        self.block1 = ResidualBlock(stem, one)
        self.block2 = ResidualBlock(one, two)
        self.block3 = ResidualBlock(two, three)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(three, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        x = self.block3(self.block2(self.block1(x)))
        logits: Tensor = self.linear(self.pool(x).flatten(1))
        return logits


def workload() -> Workload:
    """The trained demo. Raises MissingExtraError without scikit-learn, which brings the data."""
    made = untrained()
    load_weights(made.model, WEIGHTS)
    return made


def untrained() -> Workload:
    """The demo with random weights: what the training script starts from."""
    train, validation = split()
    return Workload(
        name="digits",
        model=DigitsNet().eval(),
        task=Classification(num_classes=10),
        train=train,
        validation=validation,
        preprocessing=Preprocessing(layout="NHWC", size=(32, 32), scale=1 / 16, mean=(0.3,), std=(0.37,)),
        augmentation=Augmentation(shift=1),
        classes=[str(digit) for digit in range(10)],
    )


def split() -> tuple[Samples, Samples]:
    """Train (1,201) and validation (596): every third scan of each digit, in the order of the data set."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError(
            "scikit-learn is not installed", where="the embedded demo", next="pip install scikit-learn"
        ) from error
    digits = load_digits()
    images = torch.from_numpy(digits.images.astype("uint8"))[:, :, :, None]
    labels = torch.from_numpy(digits.target.astype("int64"))
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        held_out[(labels == digit).nonzero()[2::3, 0]] = True
    return Samples(images[~held_out], labels[~held_out]), Samples(images[held_out], labels[held_out])
