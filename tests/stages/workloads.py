"""A tiny classification that a tiny network can learn: which quarter of the picture is bright."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit.progress import Event
from edgekit.stages.base import DistillationConfig, StageContext, TrainingConfig
from edgekit.tasks import Classification
from edgekit.workload import Workload

TRAINING = TrainingConfig(epochs=2, batch_size=16, lr=0.02)
# The teachers of these tests have random weights: nothing is to be learned from them.
LABELS_ONLY = TrainingConfig(epochs=30, batch_size=16, lr=0.05, distillation=DistillationConfig(loss="none"))


def quarters(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(count, 3, 8, 8) and labels 0…4, the last one for a picture without a bright quarter."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 8, 8, generator=generator)
    labels = torch.randint(0, 5, (count,), generator=generator)
    for picture, label in zip(x, labels.tolist(), strict=True):
        if label < 4:
            picture[:, 4 * (label // 2) :, 4 * (label % 2) :][:, :4, :4] += 2
    return x, labels


def workload(model: nn.Module, student: nn.Module | Callable[[], nn.Module] | None = None) -> Workload:
    return Workload(
        name="quarters",
        model=model,
        task=Classification(num_classes=5),
        train=quarters(96, 0),
        validation=quarters(64, 1),
        student=student,
    )


def context(work: Workload, folder: Path, seed: int = 0) -> tuple[StageContext, list[Event]]:
    events: list[Event] = []
    folder.mkdir(parents=True, exist_ok=True)
    return StageContext(work, work.model, folder, seed, events.append), events
