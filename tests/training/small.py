"""A net and its data that train in a second, and ways to kill a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.progress import Event, silent
from edgekit.stages.base import DistillationConfig, TrainingConfig
from edgekit.tasks import Classification
from edgekit.training import TrainingHistory, train
from edgekit.workload import Augmentation, Preprocessing, Workload

NO_TEACHER = DistillationConfig(loss="none")


class Small(nn.Module):
    """Convolution, batch norm, dropout, linear: everything that keeps a state or draws random numbers."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.3)
        self.linear = nn.Linear(6 * 4 * 4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.bn(self.conv(x))), 2)
        logits: Tensor = self.linear(self.drop(x.flatten(1)))
        return logits


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small().eval()


def bars(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy 8x8 byte images; the class is which third is bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=generator)
    images = torch.randint(0, 120, (n, 8, 8, 1), generator=generator)
    for image, label in zip(images, labels, strict=True):
        image[3 * int(label) : 3 * int(label) + 2] += 100
    return images.to(torch.uint8), labels


def workload(**changes: Any) -> Workload:
    settings: dict[str, Any] = {
        "name": "bars",
        "model": small(),
        "task": Classification(3),
        "train": bars(70, 0),
        "validation": bars(33, 1),
        "preprocessing": Preprocessing(layout="NHWC", scale=1 / 255, mean=(0.3,), std=(0.3,)),
        "augmentation": Augmentation(horizontal_flip=True, shift=1),
    }
    return Workload(**{**settings, **changes})


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 4, "batch_size": 16, "lr": 0.05, **changes})


def run(
    model: nn.Module, folder: Path, settings: TrainingConfig | None = None, **changes: Any
) -> TrainingHistory:
    arguments: dict[str, Any] = {
        "teacher": small(9),
        "workload": workload(),
        "config": settings or config(),
        "seed": 0,
        "checkpoint": folder / "checkpoint.pt",
        "stage": "prune",
        "progress": silent,
    }
    return train(model, **{**arguments, **changes})


def identical(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def without_times(entry: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in entry.items() if key not in ("seconds", "images_per_second")}


class Killed(Exception):
    pass


def kill_in(epoch: int, kind: str) -> Callable[[Event], None]:
    def progress(event: Event) -> None:
        if event.epoch == epoch and event.kind == kind:
            raise Killed

    return progress
