"""CIFAR-10 with the trained ResNets of He et al. 2016 (§4.2), as used in the benchmarks.

Data and weights are not part of this repository. The environment variable EDGEKIT_DATA names a folder with

    cifar10_train.npz, cifar10_test.npz     lossless images as WebP, see _decode()
    weights/resnet20-12fca82f.th, weights/resnet56-4bfd9763.th     github.com/akamaster/pytorch_resnet_cifar10

and then:  edgekit compress benchmarks/workloads/cifar10.py:resnet20 --recipe mobile
"""

from __future__ import annotations

import hashlib
import io
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.errors import MissingExtraError, WorkloadError
from edgekit.tasks import Classification
from edgekit.workload import Augmentation, Preprocessing, Samples, Workload, load_weights


class ZeroPadShortcut(nn.Module):
    """Option A of the paper: every second pixel, and ``pad`` zero channels on each side. No parameters."""

    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ZeroPadShortcut((outputs - inputs) // 2)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """(N, 3, 32, 32) to (N, 10): 6·blocks + 2 layers, 16, 32 and 64 channels."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._layer(16, 16, blocks, stride=1)
        self.layer2 = self._layer(16, 32, blocks, stride=2)
        self.layer3 = self._layer(32, 64, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, 10)

    @staticmethod
    def _layer(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(inputs, outputs, stride)
        return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


def resnet20() -> Workload:
    """ResNet-20: 269,722 parameters, 91.73 % of the 10,000 test images."""
    return _workload("resnet20", ResNet(3), "resnet20-12fca82f.th")


def resnet56() -> Workload:
    """ResNet-56: 853,018 parameters, 93.39 % of the 10,000 test images."""
    return _workload("resnet56", ResNet(9), "resnet56-4bfd9763.th")


def _workload(name: str, model: nn.Module, weights: str) -> Workload:
    folder = data_folder()
    load_weights(model, folder / "weights" / weights)
    train, classes = samples(folder / "cifar10_train.npz")
    validation, _ = samples(folder / "cifar10_test.npz")
    return Workload(
        name=f"cifar10-{name}",
        model=model.eval(),
        task=Classification(num_classes=10),
        train=train,
        validation=validation,
        preprocessing=Preprocessing(
            layout="NHWC", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
        augmentation=Augmentation(horizontal_flip=True, shift=4),
        classes=classes,
    )


def data_folder() -> Path:
    """What EDGEKIT_DATA names. Raises WorkloadError if the data aren't there."""
    value = os.environ.get("EDGEKIT_DATA", "")
    folder = Path(value).expanduser()
    if not value or not (folder / "cifar10_train.npz").is_file():
        raise WorkloadError(
            "the CIFAR-10 data is not there",
            where="environment variable EDGEKIT_DATA",
            got=value or "not set",
            expected="a folder that holds cifar10_train.npz, cifar10_test.npz and weights/",
            next="EDGEKIT_DATA=/path/to/data edgekit compress benchmarks/workloads/cifar10.py:resnet20",
        )
    return folder


def samples(path: Path) -> tuple[Samples, list[str]]:
    """uint8 images (N, 32, 32, 3) and labels. Decoded once, then kept in the user's cache."""
    if not path.is_file():
        raise WorkloadError("a data file is missing", where=str(path))
    with np.load(path, allow_pickle=False) as archive:
        labels, offsets = archive["labels"], archive["offsets"]
        classes = [str(c) for c in archive["classes"]]
        cache = cache_folder() / f"{path.stem}-{hashlib.sha256(offsets.tobytes()).hexdigest()[:16]}.npy"
        images = _cached(cache, len(labels))
        if images is None:
            images = _decode(archive["webp"].tobytes(), offsets)
            _keep(cache, images)
    return Samples(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))), classes


def cache_folder() -> Path:
    """Where edgekit keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit"


def _cached(path: Path, count: int) -> np.ndarray | None:
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return images if images.shape == (count, 32, 32, 3) and images.dtype == np.uint8 else None


def _keep(path: Path, images: np.ndarray) -> None:
    """Write under a temporary name first; without room or permission the cache is simply not there."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.save(file, images)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)


def _decode(webp: bytes, offsets: np.ndarray) -> np.ndarray:
    """All images stand in one byte string, image i between offsets[i] and offsets[i + 1]."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("Pillow is needed to decode CIFAR-10", next="pip install pillow") from error
    spans = pairwise(offsets)
    return np.stack([np.asarray(Image.open(io.BytesIO(webp[a:b])).convert("RGB")) for a, b in spans])
